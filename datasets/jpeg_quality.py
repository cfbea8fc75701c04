"""How hard a JPEG was compressed, read off its quantisation tables: no pixel is decoded for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.int64]

_CELLS = 64
_LARGEST = 65_535  # of a table of 16 bits; those of 8 bits end at 255
_BASELINE = 255
# The example tables of ITU-T T.81, annex K, in natural order (row by row), which the IJG library scales by the quality.
_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)


def estimate_quality(quantization: Mapping[int, Sequence[int]]) -> float | None:
    """The quality, 1 to 100 on the scale of the IJG library, at which a JPEG's tables would have been written.

    quantization: table number -> 64 whole numbers in natural order, as Pillow (8.3 and later) gives them in
    `image.quantization`. The table of the smallest number counts as that of brightness, the next one as that of
    colour; further ones do not count.

    Exact for files of IJG encoders (libjpeg, libjpeg-turbo: Pillow, OpenCV, most programs). Programs with tables of
    their own (Photoshop, cameras) get the quality whose tables are nearest, by least squares of the logarithms: steps
    twice as coarse are as far away as steps twice as fine. None where the tables are missing or cannot be true: not 64
    numbers, or numbers outside 1 to 65535. Raises nothing.
    """
    chosen = sorted(quantization)[:2]
    tables = [_check_table(quantization[number]) for number in chosen]
    if not tables or any(table is None for table in tables):
        return None
    given = np.concatenate([table for table in tables if table is not None])
    away = ((_logarithms()[:, : len(given)] - np.log2(given)) ** 2).sum(axis=1)
    return float(np.argmin(away) + 1)


def _check_table(values: Sequence[int]) -> Table | None:
    """A table with its steps ended at 255, as baseline files have them; None when it cannot be one."""
    try:
        table = np.asarray(values)
    except ValueError:  # rows of unequal length
        return None
    if table.shape != (_CELLS,) or table.dtype.kind not in "iu":
        return None
    if table.min() < 1 or table.max() > _LARGEST:
        return None
    return np.minimum(table.astype(np.int64), _BASELINE)


@cache
def _logarithms() -> npt.NDArray[np.float64]:
    """log2 of the steps for brightness and colour at quality 1 to 100: float64 (100, 128)."""
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    steps = (np.outer(percent, np.array(_LUMA + _CHROMA)) + 50) // 100
    return np.asarray(np.log2(np.clip(steps, 1, _BASELINE)))
