"""Pixels to the bytes of a blob."""

from __future__ import annotations

import cv2
import numpy as np

# Runs are looked for, not repeats, and rows are predicted from the row above: on drawn faces it is smaller than zlib's
# level 1, twice as fast to write and half again as fast to read (benchmarks/cropping.py, docs/cropping.md).
_PNG = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]


def encode_png(rgb: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG bytes, lossless and fast.

    The same pixels give the same bytes (with one version of OpenCV), whatever their order in memory: the digest of
    the bytes is the blob's name. Raises ValueError for another shape or dtype.
    """
    return _encode(".png", rgb, _PNG)


def encode_jpeg(rgb: np.ndarray, quality: int = 95) -> bytes:
    """uint8 (H, W, 3) as JPEG bytes of the given quality (1..100), colours at full resolution (4:4:4).

    Drawn art has hard coloured edges, which halved colour planes would bleed. Same pixels, same bytes, as `encode_png`.
    Raises ValueError for another shape or dtype.
    """
    full_colour = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    return _encode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality, *full_colour])


def _encode(suffix: str, rgb: np.ndarray, settings: list[int]) -> bytes:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"expected uint8 pixels of shape (H, W, 3), got {rgb.dtype} {rgb.shape}")
    written, data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), settings)
    if not written:
        raise ValueError(f"OpenCV cannot write a {suffix[1:]} of {rgb.shape[1]} x {rgb.shape[0]} pixels")
    return data.tobytes()
