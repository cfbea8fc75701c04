"""Was a picture enlarged before it came here? How much of its size is filled by detail."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_LINES = 32  # rows, and columns, that are looked at
_WINDOW = 64  # pixels: the spectrum of this many differences
_SMALLEST = 33  # pixels of side: below, nothing can be told
_DROP = 0.05  # -13 dB: detail ends where the spectrum of differences is so far below its peak
_FIRST_PLACES = (0, 3, 7)  # of each period among all places
_SMOOTH = 5  # frequencies that are averaged: one line's noise is not detail
_PERIODS = (3, 4, 5)  # of enlargements by 1.25, 1.33, 1.5, 1.67, 2, 2.5, 3, 4, 5 and their multiples
_DEAD = 0.35  # a column of repeated pixels has less than this share of the energy of an average one
_CLIP = 2.0  # of the mean: one strong edge must not speak for a whole picture
_MIN_LIVE = 24  # columns that differ; of fewer, any may fall into step by chance


def measure_native_scale(grey: Grey) -> float:
    """The side of the picture that its detail fills, 0 to 1; .5 looks enlarged twofold, 1 not at all.

    The smaller of two answers: where the spectrum ends (bilinear, bicubic, Lanczos and other smooth enlargements leave
    the highest frequencies empty), and how many columns or rows differ from their neighbour (nearest-neighbour
    enlargement repeats them). A blurred picture looks enlarged too: for what can be learned from it, it is.

    grey: uint8 (H, W), not reduced: a reduced picture has forgotten. 1.0 for pictures that are too small or too empty
    to tell.
    """
    height, width = grey.shape
    if min(height, width) < _SMALLEST:
        return 1.0
    columns = np.ascontiguousarray(grey[:, :: max(1, width // _LINES)])
    both = _differences(grey[:: max(1, height // _LINES)]), _differences(cv2.transpose(columns))
    energies = [np.einsum("ij,ij->j", lines, lines) for lines in both]
    if max(float(energy.max()) for energy in energies) < 1.0:
        return 1.0
    return min(_end_of_spectrum(*both), max(_share_of_live(energy) for energy in energies))


def _differences(lines: npt.NDArray[Any]) -> Floats:
    """Differences of neighbours along each line: float32 (lines, length - 1)."""
    levels = lines.astype(np.float32)
    return np.asarray(levels[:, 1:] - levels[:, :-1])


def _end_of_spectrum(across: Floats, down: Floats) -> float:
    """The frequency, as a share of the highest, at which the spectrum of differences falls off.

    Differences make edges flat in the spectrum: a sharp picture holds its level to the end.
    """
    window = min(_WINDOW, *(lines.shape[1] // 2 * 2 for lines in (across, down)))
    pieces = np.concatenate([_cut(lines, window) for lines in (across, down)])
    packed = cv2.dft(pieces * _taper(window), flags=cv2.DFT_ROWS)  # real, then (real, imaginary) pairs, then real
    power = np.einsum("ij,ij->j", packed, packed)
    spectrum = power[1::2].copy()  # from the first frequency to the highest, which has no partner
    spectrum[:-1] += power[2::2]
    spectrum[-1] *= 2
    spectrum = cv2.blur(spectrum[None], (_SMOOTH, 1), borderType=cv2.BORDER_REPLICATE)[0]
    floor = _DROP * float(spectrum.max())
    peak = int(np.argmax(spectrum))
    below_floor = np.flatnonzero(spectrum[peak:] < floor)
    if len(below_floor) == 0:
        return 1.0
    last = peak + int(below_floor[0]) - 1  # what comes behind is an echo of enlarging, or noise
    above, below = math.log(spectrum[last]), math.log(max(float(spectrum[last + 1]), 1e-12))
    return (last + 1 + (above - math.log(floor)) / (above - below)) / len(spectrum)


def _cut(lines: Floats, window: int) -> Floats:
    """Each line in pieces of `window`: float32 (pieces, window)."""
    whole = lines.shape[1] // window * window
    return lines[:, :whole].reshape(-1, window)


@cache
def _taper(window: int) -> Floats:
    """A Hann window without its zeros."""
    return np.hanning(window + 2)[1:-1].astype(np.float32)


def _share_of_live(energy: Floats) -> float:
    """The share of columns that differ from their neighbour, where the others recur with a period; else 1.

    energy: float32 (N,), of the differences between each column and the next. Energy, not strength: JPEG fills repeated
    columns with weak differences.
    """
    energy = np.minimum(energy, _CLIP * energy.mean())
    limit = _DEAD * energy.mean()
    if np.count_nonzero(energy > limit) < _MIN_LIVE:
        return 1.0
    live = energy @ _means_by_place(len(energy)) > limit
    return float((np.add.reduceat(live, _FIRST_PLACES, dtype=np.int64) / _PERIODS).min())


@lru_cache(maxsize=64)
def _means_by_place(length: int) -> Floats:
    """What takes the mean of a profile at each place of each period: float32 (length, sum of the periods)."""
    at = np.arange(length)[:, None]
    places = np.concatenate([at % period == np.arange(period) for period in _PERIODS], axis=1)
    return (places / np.maximum(places.sum(axis=0), 1)).astype(np.float32)
