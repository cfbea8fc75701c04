"""Memorisation: whether samples lie nearer to training pictures than other real pictures do.

For each sample the nearest training picture is looked for twice, by an extractor's features and by pixels. What is near
follows from the reals themselves: pictures that were held out of the training or, where there are none, each training
picture among those that it is no copy of. A generator that learned the distribution comes as near as those do; one that
repeats its training pictures comes nearer. `models.metrics.memorisation` says by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 16  # pixels a side that pictures are compared at: layout and colours count, grain does not
TWIN = 0.1  # of the usual distance of two pictures, up to which they are copies of one; see `twin_limit`
_CHUNK = 4096  # references compared at once: with 960 features 16 MB of them, and 33 MB for the table of 2000 queries
_PAIRS = 2000  # random pairs whose distances say what is usual

Scaling = Callable[[np.ndarray], np.ndarray]
"""Rows of some pictures, (N, D), to the float32 (N, D) whose Euclidean distances are compared."""


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
        mean = features.mean(axis=0, dtype=np.float64)
        squares = np.zeros_like(mean)
        for _, chunk in _chunks(features):
            squares += np.square(chunk - mean).sum(axis=0)
        deviation = np.sqrt(squares / len(features))
        flat = deviation <= 1e-6 * max(float(deviation.max()), 1e-30)
        return cls(mean.astype(np.float32), np.where(flat, 1.0, deviation).astype(np.float32))

    def apply(self, features: np.ndarray) -> np.ndarray:
        """float (N, D) to float32 (N, D): at a distance of 1, features differ by one deviation (root mean square)."""
        return (features - self.mean) / (self.deviation * np.float32(sqrt(features.shape[1])))


def reduce_picture(picture: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) to the pixels that are compared: uint8 (SIDE * SIDE * 3,), averaged over areas, never enlarged
    by anything but repetition."""
    height, width = picture.shape[:2]
    grown = picture.repeat(-(-SIDE // height), axis=0).repeat(-(-SIDE // width), axis=1)
    return np.asarray(cv2.resize(grown, (SIDE, SIDE), interpolation=cv2.INTER_AREA)).reshape(-1)


def mirror_pixels(pixels: np.ndarray) -> np.ndarray:
    """Reduced pictures, uint8 (N, SIDE * SIDE * 3), to their mirror images."""
    return pixels.reshape(-1, SIDE, SIDE, 3)[:, :, ::-1].reshape(pixels.shape)


def scale_pixels(pixels: np.ndarray) -> np.ndarray:
    """uint8 (N, SIDE * SIDE * 3) to float32: distances are root mean square differences in levels of 0..255."""
    return pixels.astype(np.float32) / np.float32(sqrt(pixels.shape[1]))


def find_nearest(
    queries: np.ndarray,  # (N, D), a few thousand
    references: np.ndarray,  # (M, D), as many as there are: they are scaled in chunks, and never copied as a whole
    scaling: Scaling,  # of queries and references
    mirrored: np.ndarray | None = None,  # (N, D), of the queries' mirror images where those count, too
    own: np.ndarray | None = None,  # int (N,): groups that the queries belong to, and are not compared with
    groups: np.ndarray | None = None,  # int (M,): of the references; given with `own`
) -> Nearest:
    """The nearest reference of each query by Euclidean distance, in float32; the first one of several.

    A mirrored training is searched with the mirror images of the queries: as far from a picture as the query is from
    the picture's mirror image. Raises ValueError where nothing is left to compare a query with.
    """
    if len(references) == 0:
        raise ValueError("there is no picture to compare with")
    found = _search(queries, references, scaling, own, groups)
    flipped = np.zeros(len(queries), np.bool_)
    if mirrored is not None:
        other = _search(mirrored, references, scaling, own, groups)
        flipped = other[0] < found[0]
        found = (np.where(flipped, other[0], found[0]), np.where(flipped, other[1], found[1]))
    if not np.isfinite(found[0]).all():
        raise ValueError("all pictures are copies of one: there is nothing to compare it with")
    return Nearest(*found, flipped)


def _search(
    queries: np.ndarray, references: np.ndarray, scaling: Scaling, own: np.ndarray | None, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to, and numbers of, the nearest references; a distance is infinite where there is none."""
    scaled = scaling(queries)
    least = np.full(len(queries), np.inf, np.float32)
    nearest = np.zeros(len(queries), np.int64)
    for start, chunk in _chunks(references):
        table = _compare(scaled, scaling(chunk))
        if own is not None and groups is not None:
            table[own[:, None] == groups[None, start : start + len(chunk)]] = np.inf
        best = table.argmin(axis=1)
        value = np.take_along_axis(table, best[:, None], axis=1)[:, 0]
        nearer = value < least
        least[nearer], nearest[nearer] = value[nearer], start + best[nearer]
    apart = scaled - scaling(references[nearest])  # anew: a difference of large squares would not be 0 between equals
    exact = np.sqrt(np.einsum("ij,ij->i", apart, apart))
    return np.where(np.isinf(least), np.float32(np.inf), exact), nearest


def _compare(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Squared distances but for the query's own square, which is the same for all references: float32 (N, M)."""
    table = queries @ references.T
    table *= -2
    table += np.einsum("ij,ij->i", references, references)
    return table


def _chunks(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), _CHUNK):
        yield start, rows[start : start + _CHUNK]


def twin_limit(pixels: np.ndarray) -> float:
    """The distance by `scale_pixels` up to which two pictures of a set are copies of one: TWIN of what two random
    pictures have. pixels: uint8 (N, SIDE * SIDE * 3), reduced.

    On 900 portraits of 256 px it is 9 levels. Copies of them by JPEG of quality 10, halved, blurred by 2 px or moved by
    1 px are at most 5.5 levels off; the two different ones that are most alike 29. At 64 px, JPEG of quality 30 is at
    most 9 off.
    """
    rng = np.random.default_rng(0)
    left, right = (scale_pixels(pixels[rng.integers(0, len(pixels), _PAIRS)]) for _ in range(2))
    return TWIN * float(np.median(np.linalg.norm(left - right, axis=1)))


def group_twins(
    origins: np.ndarray,  # (M,): equal for pictures that were made of one
    pixels: np.ndarray,  # uint8 (M, SIDE * SIDE * 3), reduced
    rows: np.ndarray,  # int (N,): whose copies are looked for, a few thousand
    limit: float,  # `twin_limit`
) -> np.ndarray:
    """Which pictures are copies of one, as a number of the group for each: int64 (M,).

    Pictures of one origin are; and so are those whose pixels, or those of the mirror image, come as near as the limit
    to one of `rows`. Of pictures that are not in `rows`, and not near one that is, only the origin counts.
    """
    groups = np.unique(origins, return_inverse=True)[1].reshape(-1)
    for queries in (pixels[rows], mirror_pixels(pixels[rows])):
        scaled = scale_pixels(queries)
        for start, chunk in _chunks(pixels):
            near = _compare(scaled, scale_pixels(chunk)) <= (limit**2 - np.einsum("ij,ij->i", scaled, scaled))[:, None]
            for query in np.flatnonzero(near.any(axis=1)):
                _join(groups, int(rows[query]), start + np.flatnonzero(near[query]))
    return groups


def _join(groups: np.ndarray, picture: int, twins: np.ndarray) -> None:
    """Make one group of those of a picture and of its twins."""
    found = np.unique(groups[twins])
    if (found != groups[picture]).any():
        groups[np.isin(groups, found)] = groups[picture]
