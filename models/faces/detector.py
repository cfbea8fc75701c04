"""What a face is, and what every face detector does."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]
Picture = npt.NDArray[np.uint8]  # (H, W, 3) RGB, or (H, W) grey

SAME_FACE = 0.3  # IoU from which two boxes mean the same face
_STRIP = 3.0  # sides: a picture longer than this is a strip, whose faces are as wide as it, not as long


class Landmark(NamedTuple):
    """A named point in pixels from the top left: left_eye, right_eye (the character's own sides), nose, mouth, chin."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Face:
    """One detected face: a tight box, from the brows to the chin and from cheek to cheek, whichever detector found it.

    Coordinates are pixels of the picture given to `detect`, from its top left; the box lies within the picture.
    """

    x: int
    y: int
    w: int
    h: int
    score: float  # 0 to 1, rounded to 6 digits; what it means is the detector's own matter
    detector: str
    landmarks: tuple[Landmark, ...] = ()


class FaceDetector(Protocol):
    """Finds drawn faces. The result depends on the picture's pixels alone, and `detect` may be called from threads."""

    @property
    def name(self) -> str:
        """What `Face.detector` says."""

    @property
    def weights(self) -> tuple[str, ...]:
        """Digests or versions of everything learned that the result depends on: part of a cache key."""

    def detect(self, picture: Picture) -> list[Face]:
        """Faces of an (H, W, 3) RGB or (H, W) grey uint8 picture, in reading order.

        lbp and animeface look at grey alone; a network of the user's gets a grey picture as three equal channels.
        Raises ValueError for another shape or dtype.
        """


class DetectorError(RuntimeError):
    """A detector cannot be used on this machine; the message says what to do."""


def check_rgb(rgb: RGB) -> None:
    """Raise ValueError unless the picture is a non-empty (H, W, 3) uint8 array."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"a picture must be a non-empty (H, W, 3) uint8 array, not {rgb.shape} {rgb.dtype}")


def check_picture(picture: Picture) -> None:
    """Raise ValueError unless the picture is a non-empty (H, W, 3) or (H, W) uint8 array."""
    if picture.ndim != 2:
        check_rgb(picture)
    elif picture.dtype != np.uint8 or 0 in picture.shape:
        raise ValueError(f"a grey picture must be a non-empty (H, W) uint8 array, not {picture.shape} {picture.dtype}")


def in_reading_order(faces: Iterable[Face]) -> list[Face]:
    """Sort by the box centre, top to bottom, then left to right.

    A total order over distinct boxes that needs no row height to be guessed: the k of a crop's name depends on it.
    """
    return sorted(faces, key=lambda f: (2 * f.y + f.h, 2 * f.x + f.w, f.w, f.h))


def limit_side(width: int, height: int, max_side: int) -> float:
    """The longest side, in pixels, of the copy in which a picture of this size is searched.

    ``max_side`` up to three times as long as wide; beyond, it grows with the length, so that a strip of panels keeps
    the width (a third of ``max_side``) in which its faces are seen.
    """
    return max_side * max(1.0, max(width, height) / min(width, height) / _STRIP)


def reduce_to_grey(picture: Picture, max_side: int | None, factor: float = 1.0) -> tuple[Picture, float]:
    """The picture in grey, (h, w) uint8, and its size relative to the original (at most 1).

    It is reduced by ``factor``, and further where its long side would be more than `limit_side` allows; never enlarged.
    Raises ValueError for what is no picture.
    """
    check_picture(picture)
    height, width = picture.shape[:2]
    if max_side:
        factor = min(factor, limit_side(width, height, max_side) / max(height, width))
    factor = min(factor, 1.0)
    if picture.ndim == 3:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return picture, factor


def iou(a: Face, b: Face) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    shared = _shared_area(a, b)
    return shared / (a.w * a.h + b.w * b.h - shared)


def share_inside(face: Face, box: Face) -> float:
    """Which part of the face's area lies within the box, 0 to 1."""
    return _shared_area(face, box) / (face.w * face.h)


def _shared_area(a: Face, b: Face) -> int:
    width = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    height = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    return max(0, width) * max(0, height)


def place(
    box: tuple[float, float, float, float], factor: float, picture: Picture, score: float, detector: str
) -> Face | None:
    """A face from a box in a copy reduced by ``factor``: scaled back, rounded, clipped to the picture.

    None when nothing of it lies within the picture.
    """
    height, width = picture.shape[:2]
    left, top = max(0, round(box[0] / factor)), max(0, round(box[1] / factor))
    right = min(width, round((box[0] + box[2]) / factor))
    bottom = min(height, round((box[1] + box[3]) / factor))
    if right <= left or bottom <= top:
        return None
    return Face(left, top, right - left, bottom - top, round(float(score), 6), detector)
