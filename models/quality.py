"""What is wrong with a picture, as figures: blur, contrast, colours, tone, bars, enlargement.

Every function takes decoded pixels, uint8 sRGB; none opens a file or judges. The picture is reduced once, and all
measures but the count of colours and the native scale look at that reduction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from models.quality_bars import measure_bars
from models.quality_scale import measure_native_scale
from models.quality_size import reduce_picture
from models.quality_tint import measure_saturation, measure_tint, reduce_for_tint

RGB = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.uint8]

MEASURE_SIDE = 256  # pixels: sharpness is compared at one size, or large pictures would all seem sharp
COLOUR_LIMIT = 1024
BLACK = 16  # luma up to which a pixel is near black
WHITE = 239  # luma from which on it is near white
_COLOUR_ROWS = (32, 8)  # every so manyth row first: most pictures pass the limit there
_REBLUR = 5  # pixels: the box by which the picture is blurred once more
_EDGE_ENERGY = 2.0  # of the mean: where the blurred-again picture has its edges


@dataclass(frozen=True)
class Quality:
    """The measures of one picture."""

    blur: float  # 0..1, the strength that edges lose when blurred once more; lower is blurrier; see measure_blur
    contrast: float  # standard deviation of luma, 0..127.5
    colours: int  # distinct RGB values, at most COLOUR_LIMIT + 1
    saturation: float  # mean of max(R,G,B) - min(R,G,B) of the reduced picture, 0..255
    tint_residual: float  # 0..1, share of the colour that luma does not explain; see measure_tint
    black_share: float  # 0..1, pixels of luma up to BLACK
    white_share: float  # 0..1, pixels of luma from WHITE on
    bars: float  # 0..1, part of the height or width that bars take up; see measure_bars
    aspect: float  # long side / short side
    native_scale: float  # 0..1, side that the detail fills; see measure_native_scale


def measure_quality(rgb: RGB) -> Quality:
    """All measures of a picture, uint8 (H, W, 3), rounded to 4 digits so that they can be stored and compared."""
    full = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    grey = reduce_picture(full, MEASURE_SIDE)
    small = reduce_for_tint(rgb)
    _, deviation = cv2.meanStdDev(grey)
    return Quality(
        blur=round(measure_blur(grey), 4),
        contrast=round(float(deviation[0, 0]), 4),
        colours=count_colours(rgb),
        saturation=round(measure_saturation(small), 4),
        tint_residual=round(measure_tint(small), 4),
        black_share=round(float(np.count_nonzero(grey <= BLACK) / grey.size), 4),
        white_share=round(float(np.count_nonzero(grey >= WHITE) / grey.size), 4),
        bars=round(measure_bars(grey), 4),
        aspect=round(max(rgb.shape[:2]) / min(rgb.shape[:2]), 4),
        native_scale=round(measure_native_scale(full), 4),
    )


def measure_blur(grey: Grey) -> float:
    """The share of their strength that a picture's edges lose when it is blurred once more: 0 to 1, lower is blurrier.

    A sharp edge loses much, a soft one has little left to lose (Crete et al. 2007; Zhuo and Sim 2011 take such a ratio
    for the width of an edge). Being a ratio it does not depend on contrast: soft pastel art is not blurred, and a
    blurred picture of strong contrast is. Only the places count where the blurred-again picture has its edges, so that
    neither noise nor plain ground has a say.

    grey: uint8 (H, W), at MEASURE_SIDE. 0.0 where there is no edge at all.
    """
    if min(grey.shape) < 2:
        return 0.0
    again = _measure_steps(np.asarray(cv2.blur(grey, (_REBLUR, _REBLUR)), dtype=np.uint8))
    energy = cv2.norm(again, cv2.NORM_L2SQR) / again.size
    faintest = max(1, math.ceil(math.sqrt(_EDGE_ENERGY * energy)))
    edges = np.asarray(cv2.threshold(again, faintest - 1, 255, cv2.THRESH_BINARY)[1], dtype=np.uint8)
    before = cv2.norm(cv2.bitwise_and(_measure_steps(grey), edges), cv2.NORM_L2SQR)
    if before == 0:
        return 0.0
    after = cv2.norm(cv2.bitwise_and(again, edges), cv2.NORM_L2SQR)
    return max(0.0, 1.0 - math.sqrt(after / before))


def _measure_steps(grey: Grey) -> Grey:
    """|dx| + |dy| to the next pixels, ending at 255: uint8 (H - 1, W - 1)."""
    here = grey[:-1, :-1]
    return np.asarray(cv2.add(cv2.absdiff(grey[:-1, 1:], here), cv2.absdiff(grey[1:, :-1], here)), dtype=np.uint8)


def count_colours(rgb: RGB, limit: int = COLOUR_LIMIT) -> int:
    """Distinct RGB values, counted up to `limit`; `limit + 1` means more. Stops early on coloured pictures."""
    found = 0
    for step in (*_COLOUR_ROWS, 1):
        colours = Image.fromarray(np.ascontiguousarray(rgb[::step])).getcolors(limit)
        if colours is None:
            return limit + 1
        found = len(colours)
    return found
