"""Memorisation: whether samples lie nearer to training pictures than other real pictures do.

For each sample the nearest training picture is looked for twice, by an extractor's features and by pixels. What is near
follows from the reals themselves: pictures that were held out of the training or, where there are none, each training
picture among the others. A generator that learned the distribution comes as near as those do; one that repeats its
training pictures comes nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 16  # pixels a side that pictures are compared at: layout and colours count, grain does not
PERCENT = 1.0  # of the real pictures lie nearer to a training picture than the threshold
_ROWS = 256  # queries compared at once: with 50,000 references 50 MB
_SURE = 3.0  # standard errors over what is expected, from which on a share is no chance
_MANY = 0.1  # share of samples that are too near from which on the generator repeats its pictures


class Nearest(NamedTuple):
    """For each query its nearest reference."""

    distances: np.ndarray  # float32 (N,)
    references: np.ndarray  # int64 (N,)
    mirrored: np.ndarray  # bool (N,): the mirror image of the reference is meant

    def take(self, rows: np.ndarray) -> Nearest:
        """Those of some queries."""
        return Nearest(self.distances[rows], self.references[rows], self.mirrored[rows])


@dataclass(frozen=True)
class Scale:
    """Makes distances of features comparable: each feature varies by 1 over the training pictures."""

    mean: np.ndarray  # float32 (D,)
    deviation: np.ndarray  # float32 (D,), 1 where a feature never varies

    @classmethod
    def of(cls, features: np.ndarray) -> Scale:
        """The scale of the training pictures' features, float (N, D)."""
        deviation = features.std(axis=0, dtype=np.float64)
        flat = deviation <= 1e-6 * max(float(deviation.max()), 1e-30)
        return cls(
            features.mean(axis=0, dtype=np.float64).astype(np.float32),
            np.where(flat, 1.0, deviation).astype(np.float32),
        )

    def apply(self, features: np.ndarray) -> np.ndarray:
        """float (N, D) to float32 (N, D): at a distance of 1, features differ by one deviation (root mean square)."""
        return (features - self.mean) / (self.deviation * np.float32(sqrt(features.shape[1])))


def reduce_picture(picture: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) to the pixels that are compared: uint8 (SIDE * SIDE * 3,), averaged over areas, never enlarged
    by anything but repetition."""
    height, width = picture.shape[:2]
    grown = picture.repeat(-(-SIDE // height), axis=0).repeat(-(-SIDE // width), axis=1)
    return np.asarray(cv2.resize(grown, (SIDE, SIDE), interpolation=cv2.INTER_AREA)).reshape(-1)


def scale_pixels(pixels: np.ndarray) -> np.ndarray:
    """uint8 (N, SIDE * SIDE * 3) to float32: distances are root mean square differences in levels of 0..255."""
    return pixels.astype(np.float32) / np.float32(sqrt(pixels.shape[1]))


def find_nearest(
    queries: np.ndarray,  # float32 (N, D)
    references: np.ndarray,  # float32 (M, D)
    mirrored: np.ndarray | None = None,  # float32 (N, D), of the queries' mirror images where those count, too
    own: np.ndarray | None = None,  # (N,) identities of the queries' pictures: never their own nearest
    identities: np.ndarray | None = None,  # (M,) of the references; equal for exact copies
) -> Nearest:
    """The nearest reference of each query by Euclidean distance, in float32; the first one of several.

    A mirrored training is searched with the mirror images of the queries: as far from a picture as the query is from
    the picture's mirror image. own, identities: a picture is not compared with itself, nor with its exact copies.
    Raises ValueError where nothing is left to compare a query with.
    """
    if len(references) == 0:
        raise ValueError("there is no picture to compare with")
    squares = np.einsum("ij,ij->i", references, references)
    distances = np.empty(len(queries), np.float32)
    found = np.empty(len(queries), np.int64)
    flipped = np.zeros(len(queries), np.bool_)
    for start in range(0, len(queries), _ROWS):
        rows = slice(start, start + _ROWS)
        excluded = None
        if own is not None and identities is not None:
            excluded = own[rows, None] == identities[None]
        distances[rows], found[rows] = _search(queries[rows], references, squares, excluded)
        if mirrored is not None:
            others, there = _search(mirrored[rows], references, squares, excluded)
            nearer = others < distances[rows]
            distances[rows] = np.where(nearer, others, distances[rows])
            found[rows] = np.where(nearer, there, found[rows])
            flipped[rows] = nearer
    if not np.isfinite(distances).all():
        raise ValueError("all pictures are exact copies of one: there is nothing to compare it with")
    return Nearest(distances, found, flipped)


def _search(
    queries: np.ndarray, references: np.ndarray, squares: np.ndarray, excluded: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to, and numbers of, the nearest references."""
    table = squares - 2 * (queries @ references.T)  # but for the query's own square, the same for all references
    if excluded is not None:
        table[excluded] = np.inf
    nearest = table.argmin(axis=1)
    apart = queries - references[nearest]  # anew: the difference of large squares would not be 0 between equals
    exact = np.sqrt(np.einsum("ij,ij->i", apart, apart))
    lost = np.isinf(table[np.arange(len(table)), nearest])
    return np.where(lost, np.inf, exact), nearest


@dataclass(frozen=True)
class Memorisation:
    """How many samples lie nearer to a training picture than real pictures do, by one kind of distance."""

    share: float  # of the samples that lie nearer than the threshold
    threshold: float  # the PERCENT-th percentile of the distances of real pictures
    samples: int
    reals: int  # pictures that the threshold was taken from

    @property
    def error(self) -> float:
        """Standard error of the share of a generator that memorised nothing: of the samples, and of the threshold."""
        expected = PERCENT / 100
        return sqrt(expected * (1 - expected) * (1 / self.samples + 1 / self.reals))

    @property
    def limit(self) -> float:
        """The share that chance does not exceed."""
        return PERCENT / 100 + _SURE * self.error

    def verdict(self) -> str:
        """What it means, in a sentence."""
        said = f"{self.share:.1%} of {self.samples} samples are nearer to a training picture than {PERCENT:g} % of "
        said += f"{self.reals} real pictures are ({PERCENT:g} % expected, up to {self.limit:.1%} by chance): "
        if self.share <= self.limit:
            return said + "no sign of memorisation."
        if self.share < _MANY:
            return said + "some training pictures may have been learned by heart; look at the nearest ones."
        return said + "the generator repeats training pictures."


def judge_memorisation(samples: np.ndarray, reals: np.ndarray) -> Memorisation:
    """Compare the distances of samples with those of real pictures, each to its nearest training picture; float (N,).

    Raises ValueError where there are none of either.
    """
    if len(samples) == 0 or len(reals) == 0:
        raise ValueError(f"distances of samples and reals are needed, got {len(samples)} and {len(reals)}")
    threshold = float(np.percentile(reals, PERCENT))
    return Memorisation(float((samples < threshold).mean()), threshold, len(samples), len(reals))


def most_suspicious(distances: Sequence[tuple[np.ndarray, Memorisation]], count: int) -> np.ndarray:
    """The samples that lie nearest to a training picture as measured by the thresholds, by whichever distance says so.

    distances: of the samples, (N,), with what was judged of them. Returns at most `count` numbers, nearest first.
    """
    ratios = [values / max(judged.threshold, 1e-12) for values, judged in distances]
    return np.argsort(np.minimum.reduce(ratios), kind="stable")[:count]
