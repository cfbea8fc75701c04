"""What is wrong with a picture, as figures: blur, contrast, colours, and whether it is coloured at all.

Every function takes decoded pixels, uint8 (H, W, 3) sRGB; none opens a file or judges.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

RGB = npt.NDArray[np.uint8]

BLUR_SIDE = 256  # pixels: sharpness is compared at one size, or large pictures would all seem sharp
TINT_SIDE = 64  # pixels: small enough that JPEG's chroma noise is averaged away
COLOUR_LIMIT = 4096
_LUMA_BINS = 16
_MIN_BIN_PIXELS = 8


@dataclass(frozen=True)
class Quality:
    """The measures of one picture."""

    blur: float  # variance of the Laplacian at BLUR_SIDE; lower is blurrier
    contrast: float  # standard deviation of luma, 0..127.5
    colours: int  # distinct RGB values, at most COLOUR_LIMIT + 1
    saturation: float  # mean of max(R,G,B) - min(R,G,B) of the reduced picture, 0..255
    tint_residual: float  # RMS chroma that luma does not explain, 0..180; see measure_tint


def measure_quality(rgb: RGB) -> Quality:
    """All measures of a picture, uint8 (H, W, 3), rounded to 4 digits so that they can be stored and compared."""
    grey = np.asarray(cv2.cvtColor(_reduce(rgb, BLUR_SIDE), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    small = _reduce(rgb, TINT_SIDE)
    return Quality(
        blur=round(measure_blur(grey), 4),
        contrast=round(float(grey.std()), 4),
        colours=count_colours(rgb),
        saturation=round(float(np.mean(small.max(axis=2).astype(np.int16) - small.min(axis=2))), 4),
        tint_residual=round(measure_tint(small), 4),
    )


def _reduce(rgb: RGB, side: int) -> RGB:
    """The picture with its long side at most `side`, by area averaging; never enlarged."""
    height, width = rgb.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return rgb
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def measure_blur(grey: npt.NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of uint8 (H, W): the usual focus measure (Pech-Pacheco et al. 2000)."""
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def count_colours(rgb: RGB, limit: int = COLOUR_LIMIT) -> int:
    """Distinct RGB values, counted up to `limit`; `limit + 1` means more. Stops early on coloured pictures."""
    colours = Image.fromarray(rgb).getcolors(limit)
    return limit + 1 if colours is None else len(colours)


def measure_tint(small: RGB) -> float:
    """How much colour a picture has that its brightness does not explain, in chroma levels.

    A grey, an RGB-coded grey, a sepia or any other toned picture maps each brightness to one colour: within a band of
    luma its chroma hardly varies. So: the root mean square distance of (Cb, Cr) from the mean of its luma band, over 16
    bands. Near 0 for toned pictures, whatever the tone and its strength; soft pastel art stays well above. A test of
    few colours or low saturation finds only the pure grey ones.

    small: uint8 (H, W, 3), already reduced to about TINT_SIDE.
    """
    luma, cr, cb = (c.astype(np.float64).ravel() for c in cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)))
    bands = np.minimum((luma * (_LUMA_BINS / 256.0)).astype(np.int64), _LUMA_BINS - 1)
    counts = np.bincount(bands, minlength=_LUMA_BINS)
    residual = np.zeros_like(luma)
    for chroma in (cb, cr):
        # within a band the tone still drifts with luma: take out the straight line, not only the mean
        residual += _line_residual(bands, luma, chroma, counts) ** 2
    trusted = counts[bands] >= _MIN_BIN_PIXELS
    if not trusted.any():
        return 0.0
    return float(np.sqrt(residual[trusted].mean()))


def _line_residual(
    bands: npt.NDArray[np.int64],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """y less its least-squares line in x, fitted in each band."""
    safe = np.maximum(counts, 1)
    mean_x = np.bincount(bands, x, _LUMA_BINS) / safe
    mean_y = np.bincount(bands, y, _LUMA_BINS) / safe
    dx, dy = x - mean_x[bands], y - mean_y[bands]
    variance = np.bincount(bands, dx * dx, _LUMA_BINS)
    slope = np.bincount(bands, dx * dy, _LUMA_BINS) / np.where(variance > 0, variance, 1.0)
    return np.asarray(dy - slope[bands] * dx)
