"""Is a picture coloured, or grey, or one tone from dark to light? Told from its colours at a very small size."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from models.quality_size import reduce_to

RGB = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

TINT_SIDE = 32  # pixels: small enough that the chroma noise of scans and JPEGs is averaged away
TINT_REDUCTION = 4  # a small picture is reduced at least by so much: JPEG keeps colour at half its size
_CELL_ROWS = 4  # rows of the picture that are read for a row of the reduced one, at the least
_BANDS = 16  # of luma
_HIGHLIGHTS = 14  # the band from which on chroma may run away from luma: there a toned picture clips
_MIN_BAND_PIXELS = 6
_NOISE = 0.3  # chroma levels that rounding and coding leave in a grey picture
_FLOOR = 1.5  # chroma levels: with less colour than this all told, a picture counts as grey
_MEMBERS = np.eye(_BANDS)
_TO_LUMA_CHROMA = np.array(  # ITU-R BT.601, with chroma about 0
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
_STRONG = 5.0  # chroma levels: more than coding leaves of a toned picture, so it speaks for colour
_FLAT = 1e-3  # variance of luma within a band, levels squared, below which no line can be drawn through it


def reduce_for_tint(rgb: RGB) -> RGB:
    """uint8 (H, W, 3) with its long side at most TINT_SIDE, and at most a TINT_REDUCTIONth of what it was.

    Of a large picture only some rows are read: a mean of 64 pixels tells a colour as well as one of 256.
    """
    height, width = rgb.shape[:2]
    cell = max(float(TINT_REDUCTION), max(height, width) / TINT_SIDE)
    size = (max(1, round(width / cell)), max(1, round(height / cell)))
    return reduce_to(rgb[:: max(1, int(cell) // _CELL_ROWS)], size)


def measure_saturation(small: RGB) -> float:
    """Mean of max(R, G, B) - min(R, G, B), 0 to 255."""
    red, green, blue = cv2.split(small)
    highest = cv2.max(cv2.max(red, green), blue)
    return float(cv2.subtract(highest, cv2.min(cv2.min(red, green), blue)).mean())


def measure_tint(small: RGB) -> float:
    """The share of a picture's colour that its brightness does not explain, 0 to 1.

    A grey, an RGB-coded grey, a sepia or any other toned picture maps each brightness to one colour: in RGB its pixels
    lie on a curve. So: within 16 bands of luma a straight line is fitted to (Cb, Cr) against luma; what is left is the
    residual, what the lines say is the tone. The share is residual / sqrt(residual^2 + tone^2 + floor^2), by root mean
    squares. Taking a share makes the answer the same for a picture and for its pastel: whoever halves all chroma halves
    both. Where the residual is stronger than what coding leaves of a toned picture, the share is raised by as much:
    vivid pictures of one hue (red hair and skin, a sunset) are coloured. A test of few colours, of low saturation or of
    the residual alone drops soft art, or lets sepia pass.

    In the highlights the line is fitted to all three (the main axis of the band's pixels): where a sepia picture clips,
    one level of luma is worth many of chroma, and the noise of luma would look like colour.

    small: uint8 (H, W, 3), from reduce_for_tint. 0.0 for pictures of too few pixels to tell.
    """
    pixels: Floats = _TO_LUMA_CHROMA @ small.reshape(-1, 3).T.astype(np.float64)  # (3, N): luma, Cb, Cr
    counts, scatter, squares = _scatter(pixels)
    trusted = counts >= _MIN_BAND_PIXELS
    total = float(counts[trusted].sum())
    if total == 0:
        return 0.0
    left = _beside_line(scatter)
    left[_HIGHLIGHTS:] = _beside_axis(scatter[_HIGHLIGHTS:])
    residual = max(0.0, float(left[trusted].sum()) / total)
    tone = max(0.0, float(squares[trusted].sum()) / total - residual)
    residual = max(0.0, residual - _NOISE**2)
    share = math.sqrt(residual / (residual + tone + _FLOOR**2))
    return min(1.0, share * max(1.0, math.sqrt(residual) / _STRONG))


def _scatter(pixels: Floats) -> tuple[Floats, Floats, Floats]:
    """Of (luma, Cb, Cr) (3, N) by bands of luma: pixels (bands,), sums of products about the mean (bands, 3, 3), and
    sums of squared chroma (bands,)."""
    members = _MEMBERS[(pixels[0] * (_BANDS / 256.0)).astype(np.intp)]
    features = np.empty((13, pixels.shape[1]))
    features[0] = 1.0
    features[1:4] = pixels
    np.multiply(pixels[:, None], pixels[None, :], out=features[4:].reshape(3, 3, -1))
    moments = (features @ members).T
    counts, sums, raw = moments[:, 0], moments[:, 1:4], moments[:, 4:].reshape(-1, 3, 3)
    means = sums / np.maximum(counts, 1.0)[:, None]
    return counts, raw - sums[:, :, None] * means[:, None, :], raw[:, 1, 1] + raw[:, 2, 2]


def _beside_line(scatter: Floats) -> Floats:
    """Sums of squared chroma about the least-squares line in luma, band by band."""
    spread = scatter[:, 0, 0]
    explained = scatter[:, 0, 1] ** 2 + scatter[:, 0, 2] ** 2
    drawn = np.divide(explained, spread, out=np.zeros_like(spread), where=spread > _FLAT)
    return np.asarray(scatter[:, 1, 1] + scatter[:, 2, 2] - drawn)


def _beside_axis(scatter: Floats) -> Floats:
    """Sums of squared distances from the main axis of (luma, Cb, Cr), band by band."""
    return np.asarray(np.linalg.eigvalsh(scatter)[:, :2].sum(axis=1))
