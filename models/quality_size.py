"""Pictures made smaller for measuring: by area averaging, fast, never enlarged."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def reduce_picture(pixels: Pixels, side: int) -> Pixels:
    """uint8 (H, W) or (H, W, 3) with its long side at most `side`; the picture itself where it is small enough."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return pixels
    return reduce_to(pixels, (max(1, round(width * factor)), max(1, round(height * factor))))


def reduce_to(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """uint8 (H, W) or (H, W, 3) at size = (width, height), neither larger than it is.

    By halves as far as that goes, which is several times as fast as one step; an odd last row or column is left out of
    a half.
    """
    height, width = pixels.shape[:2]
    while width >= 2 * size[0] and height >= 2 * size[1]:
        height, width = height // 2, width // 2
        pixels = _resize(pixels[: 2 * height, : 2 * width], (width, height))
    return pixels if (width, height) == size else _resize(pixels, size)


def _resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
