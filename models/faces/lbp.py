"""nagadomi's LBP cascade for frontal anime faces, run by OpenCV.

The cascade has 20 boosted stages of local binary patterns on a 24 x 24 window. It is fast and seldom wrong, but finds
frontal faces only, and by its training at most 90 % of these (.995 hit rate per stage).
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2

from models.faces.detector import DetectorError, Face, Picture, in_reading_order, place, reduce_to_grey
from models.faces.lbp_search import NEIGHBOURS, search_cascade
from models.weights import read_weight

WINDOW = 24  # pixels: the size of face the cascade was trained at, so the smallest it can see
SCALE_STEP = 1.1  # of a glimpse
DENSE = 2  # how much finer the picture is kept than the smallest face needs: the second look is a close one
ROUNDING = 0.04  # of a window: sizes are searched in steps of 5 %
TIGHT = 0.75  # side of the reported box relative to the cascade's; see LBPDetector


class LBPDetector:
    """Frontal anime faces from the LBP cascade.

    The score is ``1 - NEIGHBOURS / (2 n)``, where n counts the raw hits (at neighbouring places and scales) that were
    merged into the face: .5 for the fewest that count, towards 1 for a stable face. It ranks faces; it is not a
    probability. (The stage weights of `detectMultiScale3` are not used: asking for them makes OpenCV also report
    windows that the last stages rejected.)

    The cascade's own box reaches from the forehead to below the chin; animeface's, from the brows to the chin. Both
    have the same centre (median offset 1 % of the side, over 41 faces found by both) and a ratio of sides of .75
    (median deviation .035), so the box is reported at .75 of its side: a crop then does not depend on who found it.
    """

    name = "lbp"

    def __init__(self, xml: bytes, min_size: int = WINDOW, max_side: int | None = None) -> None:
        """
        Args:
            xml: the cascade file's bytes.
            min_size: smallest box to report, in pixels of the picture (18 is the least the cascade can do). The picture
                is searched in the smallest copy that still shows it.
            max_side: search a copy whose long side is reduced to this many pixels; None: as large as min_size asks for.
        """
        self._xml = xml.decode("ascii")
        self._min_size = min_size
        self._max_side = max_side
        self._local = threading.local()  # a CascadeClassifier keeps the picture inside, so each thread needs its own
        self.weights: tuple[str, ...] = (f"lbpcascade-animeface sha256:{hashlib.sha256(xml).hexdigest()}",)
        self._classifier()  # a broken file shows now, not at the first picture

    @classmethod
    def load(cls, min_size: int = WINDOW, max_side: int | None = None, folders: Sequence[Path] = ()) -> "LBPDetector":
        """With the registered cascade, checked; raises `models.weights.WeightError` when it is missing or damaged."""
        return cls(read_weight("lbpcascade-animeface", folders), min_size, max_side)

    def detect(self, picture: Picture) -> list[Face]:
        """See `FaceDetector.detect`."""
        grey, factor = reduce_to_grey(picture, self._max_side, DENSE * WINDOW * TIGHT / max(self._min_size, 1))
        smallest = max(WINDOW, self._min_size * factor / TIGHT)
        found = [
            place(_tighten(*box), factor, picture, 1 - NEIGHBOURS / (2 * max(hits, NEIGHBOURS)), self.name)
            for box, hits in search_cascade(self._classifier(), grey, smallest)
            if box[2] >= smallest * (1 - ROUNDING)
        ]
        return in_reading_order(face for face in found if face is not None)

    def glimpse(self, piece: Picture) -> list[Face]:
        """Every box of a small grey piece (h, w) uint8 that two raw hits agree on: for faces that are known of."""
        boxes, _ = self._classifier().detectMultiScale2(piece, scaleFactor=SCALE_STEP, minNeighbors=1)
        placed = (place(_tighten(*map(float, box)), 1.0, piece, 0.0, self.name) for box in boxes)
        return in_reading_order(face for face in placed if face is not None)

    def _classifier(self) -> cv2.CascadeClassifier:
        if not hasattr(self._local, "classifier"):
            self._local.classifier = _parse_cascade(self._xml)
        classifier: cv2.CascadeClassifier = self._local.classifier
        return classifier


def _parse_cascade(xml: str) -> cv2.CascadeClassifier:
    classifier = cv2.CascadeClassifier()
    try:
        storage = cv2.FileStorage(xml, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        whole = classifier.read(storage.getFirstTopLevelNode())
    except cv2.error as error:
        raise DetectorError(f"OpenCV cannot read this as an LBP cascade: {error}") from error
    if not whole or classifier.empty():
        raise DetectorError("OpenCV cannot read this as an LBP cascade: it has no stages.")
    return classifier


def _tighten(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
    """The reported box: the cascade's, shrunk about its centre."""
    return x + w * (1 - TIGHT) / 2, y + h * (1 - TIGHT) / 2, w * TIGHT, h * TIGHT
