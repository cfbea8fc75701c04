"""The search for animeface's faces: every window of every size, as a few matrix products.

The networks look at a window of 32 x 32 units through 12 x 12 cells, one every 2 units. A cell is a square of 8 x 8
units with four differences of mean grey (above - below, left - right, and across the two diagonals); each is two
features, its positive and its negative part. Windows lie 4 units apart, so neighbouring windows share their cells, and
at one window size all cells are computed once, by filters over a copy of the picture in which a unit is a pixel.
The first layer of the quick network is then a convolution, done as matrix products over rows of cells. What it lets
through (about 0.3 % of the windows) is judged by the other networks.

nvxs computes the same features for each window anew, through integral images at the picture's own size. That costs
more than twice the time, and the rounding differs: the likelihoods agree to about .01. Two more differences are meant.
nvxs reports the best of the overlapping windows whose likelihood is above .5, and skips windows with few or many edges;
here the likelihoods of all windows around a place are summed, because a face is found several times at neighbouring
places and sizes, a false alarm seldom is. And the windows go on up to the size of the picture and a little over its
border, where those of nvxs end at three quarters of it.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from models.faces.animeface_networks import FEATURES, Floats, Networks, logistic, multiply

Grey = npt.NDArray[np.uint8]

WINDOW = 42.592  # pixels: smallest search window
SCALE_STEP = 1.095  # from one window size to the next
UNITS = 32  # side of a window, in units
OVERHANG = 4  # units that a window may reach over the border, where the border's pixels are repeated
QUICK = 0.1  # likelihood of the quick network from which a window is looked at closer
LIKELY = 0.5  # likelihood by the verifiers from which a window counts: nvxs's own bar
SAME_PLACE = 0.3  # IoU from which windows are about the same face
APART = 0.3  # of the smaller one's area: two faces do not share more
_CELLS = 12  # per side of a window
_BAND = 2048  # windows that are judged in one go: bounds the memory
_DIRECTIONS = np.arange(1, 6)


class Window(NamedTuple):
    """A place where the networks see a face."""

    x: float
    y: float
    size: float  # pixels
    likelihood: float
    features: Floats  # (FEATURES,), not yet normalised


class Cluster(NamedTuple):
    """Windows around one place, as one box."""

    x: float
    y: float
    size: float
    evidence: float  # sum of the windows' likelihoods
    best: Window


def search_windows(grey: Grey, networks: Networks, smallest: float = WINDOW) -> list[Window]:
    """All windows of a grey picture (H, W) uint8 that look like a face, from ``smallest`` pixels up to its size."""
    found: list[Window] = []
    height, width = grey.shape
    octave, reduced = 1, grey
    largest = min(height, width) * (1 + 2 * OVERHANG / UNITS)
    for size in _window_sizes(smallest, largest):
        while size >= 4 * UNITS * octave and min(reduced.shape) > 1:  # halve in steps: shrinking costs by the source
            octave *= 2
            half = (max(1, round(width / octave)), max(1, round(height / octave)))
            reduced = np.asarray(cv2.resize(reduced, half, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        columns, rows = (max(1, round(length * UNITS / size)) for length in (width, height))
        unit = cv2.resize(reduced, (columns, rows), interpolation=cv2.INTER_AREA)
        unit = cv2.copyMakeBorder(unit, OVERHANG, OVERHANG, OVERHANG, OVERHANG, borderType=cv2.BORDER_REPLICATE)
        for column, row, likelihood, features in _search_level(np.asarray(unit, dtype=np.uint8), networks):
            x, y = (column - OVERHANG) * width / columns, (row - OVERHANG) * height / rows
            found.append(Window(x, y, size, likelihood, features))
    return found


def _window_sizes(smallest: float, largest: float) -> Iterator[float]:
    """Sizes of the one sequence from `WINDOW` on, so that a bar leaves the larger faces as they are."""
    steps = max(0, math.ceil(math.log(max(smallest, 1) / WINDOW, SCALE_STEP) - 1e-9))
    while (size := WINDOW * SCALE_STEP**steps) <= largest:
        yield size
        steps += 1


def measure_cells(unit: Grey) -> Floats:
    """The cells of a picture whose pixels are units: (rows, columns, 4), one every 2 pixels, as differences -1 to 1."""
    grey = unit[: unit.shape[0] // 2 * 2, : unit.shape[1] // 2 * 2].astype(np.float32)
    a, b, c, d = grey[::2, ::2], grey[::2, 1::2], grey[1::2, ::2], grey[1::2, 1::2]
    block = a + b + c + d  # 2 x 2 pixels: the cells are made of 4 x 4 of these, but for the diagonals that cut them
    cells = np.empty((block.shape[0] - 3, block.shape[1] - 3, 4), np.float32)
    cells[..., 0] = _correlate(block, _ABOVE)
    cells[..., 1] = _correlate(block, _ABOVE.T)
    cells[..., 2] = _correlate(block, _DIAGONAL) + _correlate(b - c, _ON_DIAGONAL)
    cells[..., 3] = _correlate(block, _DIAGONAL[:, ::-1]) + _correlate(a - d, _ON_DIAGONAL[:, ::-1])
    return cells


_ABOVE = np.repeat(np.array([[1], [1], [-1], [-1]], np.float32), 4, axis=1) / np.float32(32 * 255)
_DIAGONAL = (np.triu(np.ones((4, 4), np.float32), 1) - np.tril(np.ones((4, 4), np.float32), -1)) / np.float32(28 * 255)
_ON_DIAGONAL = np.eye(4, dtype=np.float32) / np.float32(28 * 255)


def _correlate(plane: Floats, kernel: Floats) -> Floats:
    """Weighted sums of every 4 x 4 neighbourhood that lies within the plane."""
    whole = cv2.filter2D(plane, cv2.CV_32F, np.ascontiguousarray(kernel), anchor=(0, 0))
    return np.asarray(whole[:-3, :-3])


def _search_level(unit: Grey, networks: Networks) -> Iterator[tuple[int, int, float, Floats]]:
    """Column and row in units, likelihood and features of the windows of one size that look like a face."""
    if min(unit.shape) < UNITS:
        return
    cells = measure_cells(unit)
    rows, columns = ((length - _CELLS) // 2 + 1 for length in cells.shape[:2])
    if rows < 1 or columns < 1:
        return
    signed = np.empty((*cells.shape[:2], 8), np.float32)
    np.maximum(cells, 0, out=signed[..., 0::2])
    np.maximum(-cells, 0, out=signed[..., 1::2])
    sizes = np.abs(cells)
    sizes = np.maximum(np.maximum(sizes[..., 0], sizes[..., 1]), np.maximum(sizes[..., 2], sizes[..., 3]))
    peaks = cv2.dilate(sizes, np.ones((_CELLS, _CELLS), np.uint8), anchor=(0, 0))
    peak = np.asarray(peaks, dtype=np.float32)[: 2 * rows : 2, : 2 * columns : 2]
    step = max(1, _BAND // columns)
    for top in range(0, rows, step):
        count = min(step, rows - top)
        band = signed[2 * top : 2 * (top + count - 1) + _CELLS]
        for row, column, likelihood, features in _judge(band, peak[top : top + count], networks):
            yield 4 * column, 4 * (top + row), likelihood, features


def _judge(band: Floats, peak: Floats, networks: Networks) -> list[tuple[int, int, float, Floats]]:
    """The windows of a band of cells (rows, columns, 8) that look like a face; ``peak`` is each window's maximum."""
    count, columns = peak.shape
    quick = networks.detector
    sums = _convolve(band, quick.weights, count, columns)
    # The features' smallest value is left out of the normalisation here: it hardly matters, and what passes is redone.
    scale = np.maximum(peak, np.float32(1e-6))[..., np.newaxis]
    hidden = quick.activate(np.asarray(sums / scale, dtype=np.float32))
    rough = logistic((hidden * quick.out_weights[0]).sum(axis=2) + quick.out_bias[0])
    rows, places = np.nonzero((rough > QUICK / 2) & (peak > 0))
    if not len(rows):
        return []
    down, right = band.strides[:2]
    windows = np.lib.stride_tricks.as_strided(
        band, (count, columns, _CELLS, 8 * _CELLS), (2 * down, 2 * right, down, 4)
    )
    features = windows[rows, places].reshape(-1, FEATURES)
    scaled = normalise(features)
    faces = (logistic(quick(scaled)[:, 0]) > QUICK) & _is_upright(networks.direction(scaled))
    rows, places, features, scaled = rows[faces], places[faces], features[faces], scaled[faces]
    if not len(rows):
        return []
    first, second = networks.verifiers
    likelihood = (logistic(first(scaled)[:, 0]) + logistic(second(scaled)[:, 0])) / 2
    return [
        (int(rows[k]), int(places[k]), float(likelihood[k]), features[k]) for k in np.flatnonzero(likelihood > LIKELY)
    ]


def _is_upright(directions: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(directions[:, 0] > directions[:, _DIRECTIONS].max(axis=1, initial=-np.inf))


def _convolve(band: Floats, weights: Floats, count: int, columns: int) -> Floats:
    """Weighted sums (count, columns, units) of windows two cells apart: one product for even rows, one for odd."""
    units = len(weights)
    by_row = weights.reshape(units, _CELLS, 8 * _CELLS)
    sums = np.zeros((count, columns, units), np.float32)
    for parity in (0, 1):
        rows = band[parity::2]
        down, right = rows.strides[:2]
        runs = np.lib.stride_tricks.as_strided(rows, (len(rows), columns, 8 * _CELLS), (down, 2 * right, 4))
        kernel = by_row[:, parity::2].transpose(2, 1, 0).reshape(8 * _CELLS, -1)
        product = multiply(runs.reshape(-1, 8 * _CELLS), kernel).reshape(len(rows), columns, _CELLS // 2, units)
        for row in range(_CELLS // 2):
            sums += product[row : row + count, :, row]
    return sums


def normalise(features: Floats) -> Floats:
    """Stretch each row's features from their smallest (but for 0, which stays 0) to their largest onto 0 to 1."""
    low = np.where(features > 0, features, np.inf).min(axis=1, keepdims=True)
    span = features.max(axis=1, keepdims=True) - low
    scaled = (features - low) / np.where(span > 0, span, 1)
    return np.asarray(np.where(features > 0, scaled, 0), dtype=np.float32)


def cluster_windows(windows: list[Window]) -> list[Cluster]:
    """Windows around the likeliest one at each place, as the mean of their boxes weighted by likelihood.

    The likeliest cluster comes first. Each window belongs to the first cluster whose best window it overlaps.
    """
    groups: list[list[Window]] = []
    for window in sorted(windows, key=lambda w: (-w.likelihood, -w.size, w.y, w.x)):
        for group in groups:
            if _overlap(window, group[0]) > SAME_PLACE:
                group.append(window)
                break
        else:
            groups.append([window])
    return [_merge(group) for group in groups]


def keep_apart(clusters: list[Cluster]) -> list[Cluster]:
    """Without those that overlap one with more evidence: an eye or a fringe taken for a face. Most evidence first."""
    kept: list[Cluster] = []
    for cluster in sorted(clusters, key=lambda c: (-c.evidence, c.y, c.x, c.size)):
        if all(_shared(cluster, other) <= APART * min(cluster.size, other.size) ** 2 for other in kept):
            kept.append(cluster)
    return kept


def _merge(group: list[Window]) -> Cluster:
    evidence = sum(window.likelihood for window in group)
    x = sum(window.x * window.likelihood for window in group) / evidence
    y = sum(window.y * window.likelihood for window in group) / evidence
    size = sum(window.size * window.likelihood for window in group) / evidence
    return Cluster(x, y, size, evidence, group[0])


def _overlap(a: Window, b: Window) -> float:
    """Intersection over union."""
    shared = _shared(a, b)
    return shared / (a.size**2 + b.size**2 - shared)


def _shared(a: Window | Cluster, b: Window | Cluster) -> float:
    """Area of the intersection."""
    width = min(a.x + a.size, b.x + b.size) - max(a.x, b.x)
    height = min(a.y + a.size, b.y + b.size) - max(a.y, b.y)
    return max(0.0, width) * max(0.0, height)
