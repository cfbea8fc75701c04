"""Perceptual hashes, and the exact search for pairs of near hashes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from itertools import combinations, pairwise
from operator import or_

import cv2
import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

_HASH_SIDE = 8
_DCT_SIDE = 32
_MAX_BUCKET_PAIRS = 4_000_000  # candidate pairs verified at once: bounds memory
_SORT_COST = 4.0  # sorting a hash into its bucket costs as much as comparing this many pairs
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
_MAX_SHARED = 3  # beyond, there are too many ways to choose the parts


def perceptual_hash(rgb: RGB) -> int:
    """The 64-bit DCT hash of a picture, uint8 (H, W, 3), as an unsigned whole number.

    As ImageHash's `phash` defines it: luma at 32 x 32, two-dimensional DCT, the lowest 8 x 8 coefficients against their
    median, first coefficient in the highest bit. Reduced by area averaging, which does not alias.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_DCT_SIDE, _DCT_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_HASH_SIDE, :_HASH_SIDE]
    bits = (low > np.median(low)).ravel()
    return int(np.packbits(bits).view(">u8")[0])


def mirrored(rgb: RGB) -> RGB:
    """The picture with left and right exchanged, contiguous."""
    return np.ascontiguousarray(rgb[:, ::-1])


def hamming(a: Hashes, b: Hashes) -> npt.NDArray[np.uint8]:
    """Differing bits of two arrays of 64-bit hashes, elementwise."""
    return np.bitwise_count(a ^ b)


def find_near_pairs(left: Hashes, right: Hashes, radius: int) -> tuple[Positions, Positions]:
    """All (i, j) with hamming(left[i], right[j]) <= radius: exact, without comparing all pairs.

    Pigeonhole: cut 64 bits into radius + k parts; two hashes within the radius agree in at least k of them, so only
    hashes that share k parts are compared. Returns sorted index arrays (i by i, then j). 0 <= radius <= 15.
    """
    both = np.concatenate([left, right])
    first, second = _search(both, len(left), radius)
    return _sorted_pairs(first, second - len(left), len(right))


def find_near_pairs_within(hashes: Hashes, radius: int) -> tuple[Positions, Positions]:
    """All (i, j), i < j, with hamming(hashes[i], hashes[j]) <= radius, as find_near_pairs finds them."""
    first, second = _search(hashes, None, radius)
    return _sorted_pairs(np.minimum(first, second), np.maximum(first, second), len(hashes))


def _sorted_pairs(i: Positions, j: Positions, width: int) -> tuple[Positions, Positions]:
    keys = np.sort(i * width + j)
    return keys // max(1, width), keys % max(1, width)


def _search(hashes: Hashes, border: int | None, radius: int) -> tuple[Positions, Positions]:
    """Positions of near pairs, each pair once, in no order.

    border: pairs have one hash before this position and one from it on; None: any two hashes are a pair.
    """
    if not 0 <= radius <= 15:
        raise ValueError(f"radius must be 0 to 15 bits, not {radius}")
    shared = _parts_to_share(len(hashes), radius)
    parts = _cut_bits(radius + shared)
    found = [np.empty((2, 0), np.int64)]
    for chosen in combinations(range(len(parts)), shared):
        mask = reduce(or_, (parts[k] for k in chosen))
        # a pair that shares more parts than needed is found at its first ones only
        skipped = [parts[k] for k in range(chosen[-1]) if k not in chosen]
        order, low, sizes = _bucket(hashes, mask, border)
        for first, second in _expand(order, low, sizes):
            apart = hashes[first] ^ hashes[second]
            near = np.bitwise_count(apart) <= radius
            first, second, apart = first[near], second[near], apart[near]
            new = np.ones(len(apart), dtype=bool)
            for part in skipped:
                new &= (apart & part) != 0
            found.append(np.stack([first[new], second[new]]))
    first, second = np.concatenate(found, axis=1)
    return first, second


def _parts_to_share(count: int, radius: int) -> int:
    """How many parts two hashes must share to be compared: what costs least by sorting and comparing.

    Sharing more parts leaves fewer strangers in a bucket, but there are more ways to choose the parts.
    """

    def cost(shared: int) -> float:
        parts = radius + shared
        return math.comb(parts, shared) * (_SORT_COST * count + count**2 / 2 ** (64 * shared / parts))

    return min(range(1, _MAX_SHARED + 1), key=cost)


def _cut_bits(parts: int) -> list[np.uint64]:
    """Masks that cut 64 bits into nearly equal parts."""
    edges = [round(64 * k / parts) for k in range(parts + 1)]
    return [np.uint64(((1 << high) - 1) ^ ((1 << low) - 1)) for low, high in pairwise(edges)]


def _bucket(hashes: Hashes, mask: np.uint64, border: int | None) -> tuple[Positions, Positions, Positions]:
    """Hashes in order of their masked bits, and who is compared with whom.

    Returns order (L,): positions of hashes that may have mates; and for some places p of that order, as columns of an
    int64 (2, M): p, and the first place of its bucket's mates; sizes (M,): how many mates there are.
    """
    keys = hashes & mask
    order = _find_crowded(keys, border)
    order = order[np.argsort(keys[order])]
    keys = keys[order]
    edges = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    starts = np.concatenate([[0], edges]).astype(np.int64)
    sizes = np.diff(np.concatenate([starts, [len(keys)]]))
    crowded = sizes > 1
    starts, sizes = starts[crowded], sizes[crowded]
    places = np.repeat(starts, sizes) + _count_up(sizes)
    ends = np.repeat(starts + sizes, sizes)
    if border is None:
        return order, np.stack([places, places + 1]), ends - places - 1
    # in each bucket those before the border first: their mates are all behind them
    order[places] = order[places[np.lexsort((order[places] >= border, ends))]]
    behind = order[places] >= border
    mates = np.add.reduceat(behind, np.concatenate([[0], np.cumsum(sizes)[:-1]])) if len(sizes) else sizes
    mates = np.repeat(mates, sizes)
    return order, np.stack([places, ends - mates])[:, ~behind], mates[~behind]


def _find_crowded(keys: Hashes, border: int | None) -> Positions:
    """Positions of keys that another key (from the other side of the border) may be equal to: sorting costs more.

    A key falls into a slot by multiplicative hashing (Knuth 1973); a slot with one key holds no pair.
    """
    bits = len(keys).bit_length() + 2
    slots = (keys * _GOLDEN) >> np.uint64(64 - bits)
    if border is None:
        return np.flatnonzero(np.bincount(slots.view(np.int64), minlength=1 << bits)[slots] > 1)
    left, right = slots[:border], slots[border:]
    taken, shared = np.zeros((2, 1 << bits), dtype=bool)
    taken[left] = True
    right_in = taken[right]
    shared[right[right_in]] = True
    return np.flatnonzero(np.concatenate([shared[left], right_in]))


def _count_up(sizes: Positions) -> Positions:
    """0, 1, ... for each size, one after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _expand(order: Positions, places: Positions, sizes: Positions) -> Iterator[tuple[Positions, Positions]]:
    """The candidate pairs of `_bucket`, some millions at a time."""
    total = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(total, total[start] + _MAX_BUCKET_PAIRS, "right")) - 1)
        some = sizes[start:stop]
        yield (
            order[np.repeat(places[0, start:stop], some)],
            order[np.repeat(places[1, start:stop], some) + _count_up(some)],
        )
        start = stop
