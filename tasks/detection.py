"""Looking for faces: in a copy that is reduced as far as the faces that are looked for allow."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from datasets.pictures import OpenPicture
from models.faces.detector import Face, FaceDetector, Landmark, limit_side
from models.faces.load import load_detector

_MIN_SHORT_SIDE = 128  # of a reduced copy, in pixels: it is also what the picture's perceptual hash is taken from


class Detector(StrEnum):
    """Who looks for faces."""

    LBP = "lbp"
    ANIMEFACE = "animeface"
    UNION = "union"
    AGREEMENT = "agreement"
    ONNX = "onnx"


WITHOUT_NETWORK = (Detector.LBP, Detector.ANIMEFACE)  # use no file of the user's

# pixels that the smallest face must have left in a reduced copy: what the detector was made for
_FACE_PIXELS = {
    Detector.LBP: 18,
    Detector.ANIMEFACE: 52,
    Detector.UNION: 52,
    Detector.AGREEMENT: 52,
    Detector.ONNX: 24,
}


class FaceSearch:
    """Finds the faces of pictures; what it finds depends on the picture and on these settings alone.

    May be used from several threads: a detector is built once for each reduction, at its first picture.
    """

    def __init__(
        self,
        detector: Detector,
        search_face: int,
        search_side: int,
        folders: Sequence[Path] = (),
        model: Path | None = None,
    ) -> None:
        """
        Args:
            detector: who looks.
            search_face: smallest face box to look for, in pixels of the picture.
            search_side: larger pictures are searched in a copy with this long side.
            folders: where weights are looked for besides the user's own folder.
            model: the network's file, for `onnx`.

        Raises what `load_detector` raises, now and not at the first picture.
        """
        self.detector = detector
        self._search_face = search_face
        self._search_side = search_side
        self._folders = tuple(folders)
        self._model = model
        self._detectors: dict[int, FaceDetector] = {}
        self._lock = threading.Lock()
        self._for_reduction(1)

    def choose_reduction(self, width: int, height: int) -> int:
        """By how much a picture of this size may be reduced while it is decoded: 1 or more (`open_picture` rounds).

        As far as the smallest face keeps the pixels that its detector needs, or, in a picture that is searched in a
        smaller copy anyway, as far as that copy.
        """
        by_face = self._search_face // _FACE_PIXELS[self.detector]
        by_side = int(max(width, height) // limit_side(width, height, self._search_side))
        return max(1, min(max(by_face, by_side), min(width, height) // _MIN_SHORT_SIDE))

    def find(self, picture: OpenPicture) -> list[Face]:
        """The faces of a picture in reading order, boxes and landmarks in its own pixels."""
        found = self._for_reduction(picture.reduction).detect(picture.preview)
        if picture.reduction == 1:
            return found
        return [_enlarge(face, picture) for face in found]

    def _for_reduction(self, reduction: int) -> FaceDetector:
        with self._lock:
            if reduction not in self._detectors:
                smallest = max(1, round(self._search_face / reduction))
                network = {} if self._model is None else {"model": self._model}
                self._detectors[reduction] = load_detector(
                    self.detector.value, smallest, self._folders, self._search_side, **network
                )
            return self._detectors[reduction]


def _enlarge(face: Face, picture: OpenPicture) -> Face:
    """A face of the reduced copy in the picture's own pixels, within it."""
    scale = picture.reduction
    x, y = min(face.x * scale, picture.width - 1), min(face.y * scale, picture.height - 1)
    w, h = min(face.w * scale, picture.width - x), min(face.h * scale, picture.height - y)
    landmarks = tuple(Landmark(mark.name, mark.x * scale, mark.y * scale) for mark in face.landmarks)
    return Face(x, y, w, h, face.score, face.detector, landmarks)
