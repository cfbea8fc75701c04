"""A second look at each face: what animeface finds, confirmed by the LBP cascade.

The two were trained apart and err apart: hardly any place that is no face looks like one to both. Looking again at the
few places that were found costs next to nothing, so the cascade, which knows upright frontal faces only, looks three
times: at the face as it lies, and turned by 20 degrees either way.
"""

from dataclasses import replace

import cv2
import numpy as np

from models.faces.animeface import AnimefaceDetector
from models.faces.detector import SAME_FACE, Face, Picture, iou, reduce_to_grey
from models.faces.lbp import LBPDetector

SIDE = 48  # pixels to which a face is brought: twice the cascade's window
REACH = 2.4  # side of the piece around a face, in sides of its box
ANGLES = (0.0, -20.0, 20.0)  # degrees


class ConfirmedDetector:
    """Faces of animeface that the LBP cascade sees, too; boxes, landmarks and scores are animeface's."""

    def __init__(self, finder: AnimefaceDetector, confirmer: LBPDetector, max_side: int | None = None) -> None:
        """
        Args:
            finder: proposes faces.
            confirmer: must find each of them again, in a piece of the picture that is brought to its size.
            max_side: the pieces are taken from a copy whose long side is reduced to this many pixels.
        """
        self.name = f"{confirmer.name}+{finder.name}"
        self.weights: tuple[str, ...] = (*confirmer.weights, *finder.weights)
        self._finder = finder
        self._confirmer = confirmer
        self._max_side = max_side

    def detect(self, picture: Picture) -> list[Face]:
        """See `FaceDetector.detect`."""
        faces = self._finder.detect(picture)
        if not faces:
            return []
        grey, factor = reduce_to_grey(picture, self._max_side, SIDE / min(face.w for face in faces))
        return [replace(face, detector=self.name) for face in faces if self._confirms(grey, factor, face)]

    def _confirms(self, grey: Picture, factor: float, face: Face) -> bool:
        """Whether the cascade finds the face in its surroundings, at one of the angles."""
        piece = cut_piece(grey, factor, face)
        middle = piece.shape[0] / 2
        wanted = Face(round(middle - SIDE / 2), round(middle - SIDE / 2), SIDE, SIDE, 1.0, self.name)
        for angle in ANGLES:
            turned = piece
            if angle:
                turn = cv2.getRotationMatrix2D((middle - 0.5, middle - 0.5), angle, 1.0)
                flags, size = cv2.INTER_LINEAR, piece.shape[::-1]
                turned = np.asarray(
                    cv2.warpAffine(piece, turn, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8
                )
            if any(iou(found, wanted) >= SAME_FACE for found in self._confirmer.glimpse(turned)):
                return True
        return False


def cut_piece(grey: Picture, factor: float, face: Face) -> Picture:
    """The square around a face, brought to the size at which the face is `SIDE` pixels wide.

    ``grey`` is the picture reduced by ``factor``, the face's box in pixels of the picture. Where the square leaves the
    picture, its border is repeated.
    """
    side = max(face.w, face.h) * factor * REACH
    left = round((face.x + face.w / 2) * factor - side / 2)
    top = round((face.y + face.h / 2) * factor - side / 2)
    length = max(1, round(side))
    height, width = grey.shape
    inner = grey[max(0, top) : max(1, top + length), max(0, left) : max(1, left + length)]
    piece = cv2.copyMakeBorder(
        inner,
        max(0, -top),
        max(0, top + length - height),
        max(0, -left),
        max(0, left + length - width),
        borderType=cv2.BORDER_REPLICATE,
    )
    size = round(SIDE * REACH)
    method = cv2.INTER_AREA if size < length else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(piece, (size, size), interpolation=method), dtype=np.uint8)
