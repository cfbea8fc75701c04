"""What a face is, and what every face detector does."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]


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

    def detect(self, rgb: RGB) -> list[Face]:
        """Faces of an (H, W, 3) uint8 RGB picture, in reading order. Raises ValueError for another shape or dtype."""


class DetectorError(RuntimeError):
    """A detector cannot be used on this machine; the message says what to do."""


def check_rgb(rgb: RGB) -> None:
    """Raise ValueError unless the picture is a non-empty (H, W, 3) uint8 array."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"a picture must be a non-empty (H, W, 3) uint8 array, not {rgb.shape} {rgb.dtype}")


def in_reading_order(faces: Iterable[Face]) -> list[Face]:
    """Sort by the box centre, top to bottom, then left to right.

    A total order over distinct boxes that needs no row height to be guessed: the k of a crop's name depends on it.
    """
    return sorted(faces, key=lambda f: (2 * f.y + f.h, 2 * f.x + f.w, f.w, f.h))


def reduce_picture(rgb: RGB, max_side: int | None) -> tuple[RGB, float]:
    """The picture with its long side at most ``max_side`` pixels, and its size relative to the original (at most 1)."""
    height, width = rgb.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return rgb, 1.0
    factor = max_side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    reduced = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, dtype=np.uint8), factor


def iou(a: Face, b: Face) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    height = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a.w * a.h + b.w * b.h - width * height)


def place(
    box: tuple[float, float, float, float], factor: float, picture: RGB, score: float, detector: str
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
