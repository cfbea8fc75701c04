"""Cutting, reducing and framing pictures: what brings them to an exact size once they are large enough."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

RGB = npt.NDArray[np.uint8]


def check_picture(rgb: RGB) -> None:
    """ValueError unless it is a non-empty (H, W, 3) uint8 array."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"a picture must be a non-empty (H, W, 3) uint8 array, not {rgb.shape} {rgb.dtype}")


def crop_centre(rgb: RGB) -> RGB:
    """The largest square in the middle; of an odd rest the extra pixel is lost at the end."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return rgb[top : top + side, left : left + side]


def letterbox(rgb: RGB) -> RGB:
    """Black bars on both sides of the shorter direction, to a square."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = rgb
    return square


def reduce_to(rgb: RGB, height: int, width: int) -> RGB:
    """Another size by Pillow's Lanczos (OpenCV's does not filter when it reduces, so it would alias)."""
    reduced = Image.fromarray(np.ascontiguousarray(rgb)).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(reduced)
