"""How far apart two sets of features are: FID, KID, precision and recall, in float64 with numpy alone.

All of them compare a set of real pictures' features with one of generated ones, float (N, D) each. What the features
are decides what the figures mean, so a figure is named with its extractor (`models.metrics.extractors`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]

ROWS = 1024  # of a matrix of pairs that are held at a time: 1024 x 50,000 are 0.4 GB


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error: how much it would vary over other samples of the same size."""

    value: float
    error: float | None = None  # None: not known


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1: of the fakes among the reals, and of the reals among the fakes."""

    precision: float
    recall: float


class Moments:
    """Mean and covariance of features that arrive in parts, whatever the parts' sizes."""

    def __init__(self, features: int) -> None:
        """`features`: numbers per picture (D)."""
        self.count = 0
        self.mean: Doubles = np.zeros(features)
        self._scatter: Doubles = np.zeros((features, features))  # sum of outer products of deviations from the mean

    def add(self, features: Floats) -> None:
        """Take in (N, D) more. Two sets' moments are merged as by Chan, Golub and LeVeque (1979)."""
        checked = _check(features, 0, "features", self.mean.size)
        for start in range(0, len(checked), ROWS):  # in float64 only part by part: a large set has gigabytes
            self._merge(checked[start : start + ROWS].astype(np.float64))

    def _merge(self, rows: Doubles) -> None:
        mean = rows.mean(axis=0)
        centred, shift = rows - mean, mean - self.mean
        total = self.count + len(rows)
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (self.count * len(rows) / total)
        self.mean = self.mean + shift * (len(rows) / total)
        self.count = total

    @property
    def covariance(self) -> Doubles:
        """float64 (D, D), divided by N - 1. Raises ValueError for fewer than two pictures."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 pictures, there are {self.count}")
        return self._scatter / (self.count - 1)


def frechet_distance(reals: Floats, fakes: Floats) -> float:
    """FID between (N, D) and (M, D) features; see `frechet_from_moments`. ValueError for fewer than two of either."""
    real = _check(reals, 2, "reals")
    fake = _check(fakes, 2, "fakes", real.shape[1])
    a, b = Moments(real.shape[1]), Moments(real.shape[1])
    a.add(real)
    b.add(fake)
    return frechet_from_moments(a, b)


def frechet_from_moments(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians (FID; Heusel et al. 2017, arXiv:1706.08500, equation 6); 0 or more.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). It is biased: two samples of one distribution have a distance that
    falls only as their sizes grow, so compare figures of equal counts only.
    """
    first, second = a.covariance, b.covariance
    # With S = F F^T the trace of the product's root is the sum of the singular values of F1^T F2. No matrix root is
    # taken, so covariances of fewer pictures than features, whose root is ill-conditioned, are as exact as others.
    shared = np.linalg.svd(_factor(first).T @ _factor(second), compute_uv=False).sum()
    shift = a.mean - b.mean
    return max(0.0, float(shift @ shift + np.trace(first) + np.trace(second) - 2 * shared))


def _factor(covariance: Doubles) -> Doubles:
    """F with F F^T = covariance, (D, rank): directions whose variance is rounding noise are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def kernel_distance(
    reals: Floats,  # (N, D)
    fakes: Floats,  # (M, D)
    block: int = 5000,  # most pictures of a kind that are compared with all others at once
    seed: int = 0,  # which pictures form a block; without effect where both sets fit into one
) -> Estimate:
    """KID (Binkowski et al. 2018, arXiv:1801.01401): squared MMD with the kernel (x.y / D + 1)^3, unbiased.

    Every picture of a block is compared with every other, and larger sets are cut into as many disjoint blocks as the
    smaller one fills. The expectation is that of the usual mean over 100 subsets of 1000, but the error is the
    estimate's own standard deviation over new samples of reals and fakes: subsets of one sample overlap, and the spread
    of their mean falls with their number, whatever the sample is worth. Values may be below 0, where there is no
    difference to see. Raises ValueError for fewer than four of either.
    """
    real = _check(reals, 4, "reals")
    fake = _check(fakes, 4, "fakes", real.shape[1])
    blocks = -(-min(len(real), len(fake)) // block)
    rng = np.random.default_rng(seed)
    pairs = zip(_split(real, blocks, block, rng), _split(fake, blocks, block, rng), strict=True)
    compared = np.array([_compare_all(x, y) for x, y in pairs])  # value and variance of every block
    return Estimate(float(compared[:, 0].mean()), float(np.sqrt(compared[:, 1].sum())) / blocks)


def _split(rows: Floats, blocks: int, most: int, rng: np.random.Generator) -> list[Doubles]:
    """Disjoint random parts of equal size as float64, at most `most` rows each; the rows as they are where they fit."""
    if blocks == 1 and len(rows) <= most:
        return [rows.astype(np.float64)]
    chosen = rng.permutation(len(rows))[: blocks * most]
    return [rows[part].astype(np.float64) for part in np.array_split(chosen, blocks)]


class _Sums(NamedTuple):
    """Of the kernel over pairs: by row, by column, of all squares."""

    rows: Doubles
    columns: Doubles
    squares: float


def _compare_all(x: Doubles, y: Doubles) -> tuple[float, float]:
    """Unbiased squared MMD (Gretton et al. 2012, equation 3) and the unbiased estimate of its variance.

    The variance is the sum over the parts of its Hoeffding decomposition: what single pictures contribute, and what
    pairs do. The latter is all there is where both distributions are the same, and a jackknife counts it twice.
    """
    n, m = len(x), len(y)
    xx, yy, xy = _sum_kernel(x, x, True), _sum_kernel(y, y, True), _sum_kernel(x, y, False)
    value = xx.rows.sum() / (n * (n - 1)) + yy.rows.sum() / (m * (m - 1)) - 2 * xy.rows.sum() / (n * m)
    pairs_xx, pairs_yy, pairs_xy = _pair_variance(xx), _pair_variance(yy), _cross_variance(xy)
    # Row sums over n - 2 (not n - 1): so divided, the other rows' own contributions cancel out of the variance.
    single_x = np.var(xx.rows / (n - 2) - xy.rows / m, ddof=1) - pairs_xx / (n - 2) - pairs_xy / m
    single_y = np.var(yy.rows / (m - 2) - xy.columns / n, ddof=1) - pairs_yy / (m - 2) - pairs_xy / n
    single = 4 * single_x / n + 4 * single_y / m
    paired = 2 * pairs_xx / (n * (n - 1)) + 2 * pairs_yy / (m * (m - 1)) + 4 * pairs_xy / (n * m)
    return float(value), max(float(single), 0.0) + max(float(paired), 0.0)


def _sum_kernel(x: Doubles, y: Doubles, same: bool) -> _Sums:
    """`same`: x and y are one set, and a picture is not compared with itself."""
    rows, columns, squares = np.empty(len(x)), np.zeros(len(y)), 0.0
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        kernel = part @ y.T / x.shape[1] + 1
        kernel = kernel * kernel * kernel
        if same:
            kernel[np.arange(len(part)), np.arange(start, start + len(part))] = 0
        rows[start : start + ROWS] = kernel.sum(axis=1)
        columns += kernel.sum(axis=0)
        squares += float(np.vdot(kernel, kernel))
    return _Sums(rows, columns, squares)


def _pair_variance(sums: _Sums) -> float:
    """Variance of the doubly centred kernel over pairs within a set, unbiased (Székely and Rizzo 2014, section 3)."""
    n, total = len(sums.rows), sums.rows.sum()
    spread = sums.squares + total**2 / ((n - 1) * (n - 2)) - 2 * (sums.rows @ sums.rows) / (n - 2)
    return float(spread / (n * (n - 3)))


def _cross_variance(sums: _Sums) -> float:
    """The same over pairs between two sets: the residual of a two-way analysis of variance."""
    n, m, total = len(sums.rows), len(sums.columns), sums.rows.sum()
    spread = sums.squares - sums.rows @ sums.rows / m - sums.columns @ sums.columns / n + total**2 / (n * m)
    return float(spread / ((n - 1) * (m - 1)))


def precision_recall(
    reals: Floats,  # (N, D)
    fakes: Floats,  # (M, D)
    k: int = 3,  # a picture's ball reaches to its k-th nearest neighbour of its own kind
    most: int = 10_000,  # pictures of a kind that are compared; of larger sets, a random part
    seed: int = 0,  # which part
) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    Precision is the share of fakes inside some real's ball, recall that of reals inside some fake's. Both depend on the
    counts: compare figures of equal counts only, and with those of held-out reals. Pictures at the same place count as
    neighbours. Raises ValueError for k or fewer of either.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    rng = np.random.default_rng(seed)
    real = _split(_check(reals, k + 1, "reals"), 1, most, rng)[0]
    fake = _split(_check(fakes, k + 1, "fakes", real.shape[1]), 1, most, rng)[0]
    centre = real.mean(axis=0)  # near the origin the squares below lose less to rounding
    real, fake = real - centre, fake - centre
    real_radii, fake_radii = _ball_radii(real, k), _ball_radii(fake, k)
    covered, inside = np.zeros(len(real), bool), np.zeros(len(fake), bool)
    for start, squared in _squared_distances(fake, real):
        rows = slice(start, start + len(squared))
        inside[rows] = (squared <= real_radii).any(axis=1)
        covered |= (squared <= fake_radii[rows, None]).any(axis=0)
    return PrecisionRecall(float(inside.mean()), float(covered.mean()))


def _ball_radii(rows: Doubles, k: int) -> Doubles:
    """Squared distance of every row to its k-th nearest other."""
    radii = np.empty(len(rows))
    for start, squared in _squared_distances(rows, rows):
        squared[np.arange(len(squared)), np.arange(start, start + len(squared))] = np.inf
        radii[start : start + len(squared)] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radii


def _squared_distances(x: Doubles, y: Doubles) -> Iterator[tuple[int, Doubles]]:
    """Squared distances of all rows of x to all of y, some rows at a time: the first one's number, and (rows, M)."""
    x_squares, y_squares = (x * x).sum(axis=1), (y * y).sum(axis=1)
    for start in range(0, len(x), ROWS):
        scale = x_squares[start : start + ROWS, None] + y_squares
        squared = scale - 2 * (x[start : start + ROWS] @ y.T)
        squared[squared < 1e-13 * scale] = 0  # float64's rounding: equal rows are at distance 0
        yield start, squared


def _check(features: Floats, least: int, name: str, columns: int | None = None) -> Floats:
    """ValueError where they are no (N, D) of finite numbers, too few, or of another extractor."""
    rows = np.asarray(features)
    if rows.ndim != 2 or rows.shape[1] == 0 or not np.issubdtype(rows.dtype, np.floating):
        raise ValueError(f"{name} must be floats (pictures, features), got {rows.dtype} of the shape {rows.shape}")
    if len(rows) < least:
        raise ValueError(f"{name}: at least {least} pictures are needed, there are {len(rows)}")
    if columns is not None and rows.shape[1] != columns:
        raise ValueError(f"{name} have {rows.shape[1]} features, expected {columns}: both need the same extractor")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} hold numbers that are not finite: the extractor failed on a picture")
    return rows
