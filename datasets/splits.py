"""Splits: which picture is for training and which for testing, so that nothing is on both sides.

A picture's side hangs on its post alone: all crops of a post, and whatever was derived from them, stay together. It is
a function of post and seed, so a post keeps its side when others come and go, and in every version.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import KaobakoError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_EXACT = 1e-6  # by how much fractions may miss 1


class SplitError(KaobakoError):
    """Fractions that cannot be used, or groups that do not fit the pictures."""


def read_fractions(text: str) -> dict[str, float]:
    """Fractions from text such as `train=.95,test=.05`. Raises SplitError that says what is wrong."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            raise SplitError(f"a split is NAME=FRACTION, such as train=.95,test=.05; {part.strip()!r} is not") from None
        if name in found:
            raise SplitError(f"the split {name!r} is named twice")
        found[name] = value
    check_fractions(found)
    return found


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises SplitError unless every name is plain, every fraction above 0, and their sum 1."""
    for name, value in fractions.items():
        if not _NAME.fullmatch(name):
            raise SplitError(f"a split's name is 1 to 32 of a-z, 0-9, - and _, and {name!r} is not")
        if not (math.isfinite(value) and value > 0):
            raise SplitError(f"the fraction of {name!r} must be above 0, not {value}")
    total = math.fsum(fractions.values())
    if abs(total - 1.0) > _EXACT:
        raise SplitError(f"the fractions of {', '.join(fractions) or 'no split'} must add up to 1, not {total:g}")


def assign_splits(
    manifest: pa.Table, fractions: Mapping[str, float], seed: int = 0, groups: Iterable[str | None] | None = None
) -> pa.Array:
    """The split of each row: string (N,).

    manifest: rows with `post_id`. fractions: of each split, by name; of posts, and so only about of pictures.
    seed: of the draw. groups: what else must stay together, one name per row, such as a cluster of near copies; null:
    nothing. All posts that have a group in common are on one side, and so are those that they share another one with.

    Without groups a post's side depends on seed, fractions and post_id alone. With them it is the side of whichever
    post of its group comes first by its hash: a post that joins the group may move all of it.
    Splits divide the range of hashes in the order of their names: of two, the one that is made larger keeps its posts.
    Raises SplitError.
    """
    check_fractions(fractions)
    posts = manifest["post_id"].combine_chunks()
    names = pc.unique(posts)
    numbers = np.array([hash_post(post, seed) for post in names.to_pylist()], np.uint64)
    rows = pc.index_in(posts, value_set=names).to_numpy(zero_copy_only=False).astype(np.int64)
    if groups is not None:
        numbers = _share_hashes(numbers, rows, pa.array(groups, pa.string()))
    ordered = sorted(fractions)
    ends = np.cumsum([fractions[name] for name in ordered])[:-1] * 2.0**64  # the last one takes what is left
    # the comparison is of float64: the 11 bits that are lost decide about one post in 10^15
    sides = np.searchsorted(ends, numbers.astype(np.float64), side="right")
    return pa.array(ordered, pa.string()).take(pa.array(sides[rows]))


def hash_post(post_id: str, seed: int) -> int:
    """A whole number in 0 .. 2**64 - 1 that seed and post alone decide."""
    return int.from_bytes(hashlib.sha256(f"split {seed}\n{post_id}".encode()).digest()[:8], "big")


def _share_hashes(numbers: np.ndarray, rows: np.ndarray, groups: pa.Array) -> np.ndarray:
    """The lowest hash of all posts that hang together, for each post. rows: the post of each row of the manifest."""
    if len(groups) != len(rows):
        raise SplitError(f"{len(groups)} groups for {len(rows)} pictures: there must be one (or null) for each")
    named = np.flatnonzero(groups.is_valid().to_numpy(zero_copy_only=False))
    encoded = groups.take(pa.array(named)).dictionary_encode()
    owners, members = rows[named], encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    roots = _join(owners.tolist(), members.tolist(), len(numbers))
    lowest = numbers.copy()
    np.minimum.at(lowest, roots, numbers)
    return lowest[roots]


def _join(posts: list[int], groups: list[int], count: int) -> np.ndarray:
    """One post of each set that hangs together, for every post: int64 (count,). posts, groups: who is in what."""
    parent = list(range(count))

    def find(post: int) -> int:
        while parent[post] != post:
            parent[post] = post = parent[parent[post]]
        return post

    first: dict[int, int] = {}
    for post, group in zip(posts, groups, strict=True):
        parent[find(post)] = find(first.setdefault(group, post))
    return np.array([find(post) for post in range(count)], np.int64)
