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

PAIRS = 2**24  # of pictures, compared at a time: 134 MB, however large the sets are
_PART = 4096  # rows that are centred at a time


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error: how much it would vary over other samples of the same size."""

    value: float
    error: float | None = None  # None: not known


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1: of the fakes among the reals, and of the reals among the fakes."""

    precision: float
    recall: float


def frechet_distance(reals: Floats, fakes: Floats) -> float:
    """FID between (N, D) and (M, D) features (Heusel et al. 2017, arXiv:1706.08500, equation 6); 0 or more.

    It is biased: two samples of one distribution have a distance that falls only as their sizes grow, so compare
    figures of equal counts only. Raises ValueError for fewer than two of either.
    """
    real = _check(reals, 2, "reals")
    fake = _check(fakes, 2, "fakes", real.shape[1])
    return _compare_gaussians(*_mean_and_covariance(real), *_mean_and_covariance(fake))


def _mean_and_covariance(rows: Floats) -> tuple[Doubles, Doubles]:
    """float64 (D,) and (D, D), the latter divided by N - 1."""
    mean: Doubles = rows.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((len(mean), len(mean)))
    for start in range(0, len(rows), _PART):  # in float64 only part by part: a large set has gigabytes
        centred = rows[start : start + _PART] - mean
        scatter += centred.T @ centred
    return mean, scatter / (len(rows) - 1)


def _compare_gaussians(mean: Doubles, covariance: Doubles, other_mean: Doubles, other_covariance: Doubles) -> float:
    """Squared Fréchet distance: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))."""
    # With S = F F^T the trace of the product's root is the sum of the singular values of F1^T F2. No matrix root is
    # taken, so covariances of fewer pictures than features, whose root is ill-conditioned, are as exact as others.
    shared = np.linalg.svd(_factor(covariance).T @ _factor(other_covariance), compute_uv=False).sum()
    shift = mean - other_mean
    return max(0.0, float(shift @ shift + np.trace(covariance) + np.trace(other_covariance) - 2 * shared))


def _factor(covariance: Doubles) -> Doubles:
    """F with F F^T = covariance, (D, rank): directions whose variance is rounding noise are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def kernel_distance(
    reals: Floats,  # (N, D)
    fakes: Floats,  # (M, D)
    block: int = 5000,  # most pictures of the smaller set that are compared with all others at once
    seed: int = 0,  # which pictures form a block; without effect where the smaller set fits into one
) -> Estimate:
    """KID (Binkowski et al. 2018, arXiv:1801.01401): squared MMD with the kernel (x.y / D + 1)^3, unbiased.

    Every picture of a block is compared with every other. Both sets are cut into as many disjoint blocks as the smaller
    one fills, and every picture is in one. The expectation is that of the usual mean over 100 subsets of 1000, but the
    error is the estimate's own standard deviation over new samples of reals and fakes: subsets of one sample overlap,
    and the spread of their mean falls with their number, whatever the sample is worth. Values may be below 0, where
    there is no difference to see. Raises ValueError for fewer than four of either.
    """
    real = _check(reals, 4, "reals")
    fake = _check(fakes, 4, "fakes", real.shape[1])
    blocks = -(-min(len(real), len(fake)) // block)
    rng = np.random.default_rng(seed)
    pairs = zip(_split(real, blocks, rng), _split(fake, blocks, rng), strict=True)
    compared = np.array([_compare_all(x, y) for x, y in pairs])  # value and variance of every block
    return Estimate(float(compared[:, 0].mean()), float(np.sqrt(compared[:, 1].sum())) / blocks)


def _split(rows: Floats, blocks: int, rng: np.random.Generator) -> Iterator[Doubles]:
    """Disjoint random parts of equal size, but for one row, as float64 when they are asked for."""
    if blocks == 1:
        return iter([rows.astype(np.float64)])
    parts = np.array_split(rng.permutation(len(rows)), blocks)
    return (rows[part].astype(np.float64) for part in parts)


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
    held = _rows_held(y)
    for start in range(0, len(x), held):
        part = x[start : start + held]
        kernel = part @ y.T
        kernel /= x.shape[1]
        kernel += 1
        kernel *= kernel * kernel
        if same:
            kernel[np.arange(len(part)), np.arange(start, start + len(part))] = 0
        rows[start : start + held] = kernel.sum(axis=1)
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
) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991).

    Precision is the share of fakes inside some real's ball, recall that of reals inside some fake's. Both depend on the
    counts, more than FID does: with more pictures of a kind its balls shrink, and there are more of them. Compare
    figures of equal counts only. Pictures at the same place count as neighbours. Raises ValueError for k or fewer of
    either.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    real = _check(reals, k + 1, "reals").astype(np.float64)
    fake = _check(fakes, k + 1, "fakes", real.shape[1]).astype(np.float64)
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
    held = _rows_held(y)
    for start in range(0, len(x), held):
        scale = x_squares[start : start + held, None] + y_squares
        squared = scale - 2 * (x[start : start + held] @ y.T)
        squared[squared < 1e-13 * scale] = 0  # float64's rounding: equal rows are at distance 0
        yield start, squared


def _rows_held(others: Doubles) -> int:
    """How many rows are compared with all others at a time."""
    return max(PAIRS // len(others), 1)


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
