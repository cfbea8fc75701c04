"""Letterbox and pillarbox bars: uniform bands at the border of a picture that end in a straight, sharp edge."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

_UNIFORM = 20  # levels between the darkest and the brightest pixel of a row that belongs to a bar: JPEG's ringing
_EDGE_ROWS = 3  # reduced pixels within which the bar must give way to the picture
_EDGE_STEP = 24  # levels by which the picture differs from the bar behind the edge
_EDGE_SHARE = 0.7  # of the width that must differ so: a head before a plain background does not


def measure_bars(grey: Grey) -> float:
    """The part of the height or of the width, whichever is more, that bars at the border take up: 0 to 1.

    A plain background is no bar: where the subject begins, only some pixels of a row change; where a bar ends, nearly
    all do, at once. A picture that is uniform all over has no bars.

    grey: uint8 (H, W), reduced: an edge is then a row or two wide.
    """
    return max(_measure_direction(grey), _measure_direction(np.asarray(cv2.transpose(grey), dtype=np.uint8)))


def _measure_direction(grey: Grey) -> float:
    """Bars at the top and at the bottom, as a share of the height."""
    low = np.asarray(cv2.reduce(grey, 1, cv2.REDUCE_MIN), dtype=np.uint8).ravel()
    high = np.asarray(cv2.reduce(grey, 1, cv2.REDUCE_MAX), dtype=np.uint8).ravel()
    rows = _find_edge(grey, low, high) + _find_edge(grey[::-1], low[::-1], high[::-1])
    return min(1.0, rows / len(grey))


def _find_edge(grey: Grey, low: Grey, high: Grey) -> int:
    """How many rows the bar at the top has; 0 when there is none.

    low, high: uint8 (H,), the darkest and the brightest pixel of each row.
    """
    if int(high[0]) - int(low[0]) > _UNIFORM:
        return 0
    level = (int(low[0]) + int(high[0])) // 2
    half = _UNIFORM  # the rows may drift a little from the first
    outside = (low.astype(np.int16) < level - half) | (high.astype(np.int16) > level + half)
    if not outside.any():
        return 0
    end = int(np.argmax(outside))
    if end + 1 >= len(grey):
        return 0
    behind = grey[end : end + _EDGE_ROWS].astype(np.int16)
    differs = (np.abs(behind - level) >= _EDGE_STEP).mean(axis=1)
    return end if float(differs.max()) >= _EDGE_SHARE else 0
