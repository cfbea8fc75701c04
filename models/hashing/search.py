"""The exact search for near hashes: hashes that share some of their bits are compared, all others cannot be near.

Pigeonhole: cut 64 bits into radius + k parts. Two hashes within the radius agree in at least k of them, so for each way
to choose k parts the hashes are sorted into buckets by those parts, and only bucket mates are compared. A hash of
several words is near another one only if some word is (`_share_radius`), so one word is searched after the other.

Nothing of it is kept: sorting 300,000 hashes into buckets takes some hundredths of a second.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]  # (N,) for 64 bits, (N, W) for W words of 64 bits
Positions = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint16]
Keys = npt.NDArray[np.uint32]
Visit = Callable[[Positions, Positions, Bits], None]  # i, j, differing bits: (P,) each

MAX_RADIUS = 15  # bits per word
_MAX_SHARED = 3  # parts; beyond, there are too many ways to choose them
_KEY_BITS = 32  # of the shared bits, as many are sorted by
_SLOT_BITS = 22  # of the bit table that says which keys the other side has
_TILE = 1 << 18  # hashes that are compared in one go: large enough for threads to work side by side
_MAX_THREADS = 4  # each holds some copies of the hashes
_SAMPLE = 512  # hashes that say how even the bits are
# What things cost, in comparisons of two hashes (.6 ns on the machine that this was tuned on): a key, sorting it by 16
# bits, how much larger than the average the largest bucket is (in roots of the average), a bucket compared on its own.
_KEY_COST, _SORT_COST, _SPREAD_COST, _BUCKET_COST = 20.0, 35.0, 4.0, 20_000.0

Part = tuple[int, int]  # lowest bit, number of bits


@dataclass(frozen=True)
class _Mask:
    """One way to bucket hashes: by these parts of this word."""

    word: int
    parts: tuple[Part, ...]
    skipped: tuple[Part, ...]  # parts before the last one: a pair that shares one of them was found by an earlier mask

    @property
    def bits(self) -> int:
        return sum(width for _, width in self.parts)


def hamming(a: Hashes, b: Hashes) -> Bits:
    """Differing bits of two arrays of hashes, (N,) or (N, W), row by row: uint16 (N,)."""
    counts = np.bitwise_count(a ^ b)
    return counts.astype(np.uint16) if counts.ndim == 1 else counts.sum(axis=1, dtype=np.uint16)


def find_near_pairs(left: Hashes, right: Hashes, radius: int) -> tuple[Positions, Positions]:
    """All (i, j) with hamming(left[i], right[j]) <= radius: exact, without comparing all pairs.

    Returns sorted index arrays (i by i, then j). Memory grows with the pairs found; `visit_near_pairs` holds none.
    Raises ValueError for a radius below 0 or above 15 for each word.
    """
    found = _PairList()
    visit_near_pairs(left, right, radius, found.add)
    return found.in_order(len(right))


def find_near_pairs_within(hashes: Hashes, radius: int) -> tuple[Positions, Positions]:
    """All (i, j), i < j, with hamming(hashes[i], hashes[j]) <= radius, as find_near_pairs finds them."""
    found = _PairList()
    visit_near_pairs_within(hashes, radius, found.add)
    return found.in_order(len(hashes))


def visit_near_pairs(left: Hashes, right: Hashes, radius: int, visit: Visit) -> None:
    """Calls visit(i, j, bits apart) with portions of the pairs of find_near_pairs, each pair once, in no order.

    Calls come from several threads, but never two at once. An exception in `visit` ends the search.
    """
    border = len(left)
    _Search(np.concatenate([left, right]), border, radius, lambda i, j, apart: visit(i, j - border, apart)).run()


def visit_near_pairs_within(hashes: Hashes, radius: int, visit: Visit) -> None:
    """As visit_near_pairs, with the pairs (i < j) of find_near_pairs_within."""
    _Search(hashes, None, radius, visit).run()


class _PairList:
    """Collects pairs."""

    def __init__(self) -> None:
        self._first = [np.empty(0, np.int64)]
        self._second = [np.empty(0, np.int64)]

    def add(self, i: Positions, j: Positions, apart: Bits) -> None:
        self._first.append(i)
        self._second.append(j)

    def in_order(self, width: int) -> tuple[Positions, Positions]:
        keys = np.concatenate(self._first) * width + np.concatenate(self._second)
        keys.sort()
        return keys // max(1, width), keys % max(1, width)


class _Search:
    """One search: its hashes word by word, and who wants to know the pairs.

    border: pairs have one hash before this position and one from it on; None: any two hashes are a pair.
    """

    def __init__(self, hashes: Hashes, border: int | None, radius: int, visit: Visit) -> None:
        self.words = [np.ascontiguousarray(word) for word in np.atleast_2d(hashes.T)]
        if not 0 <= radius <= MAX_RADIUS * len(self.words):
            raise ValueError(f"radius must be 0 to {MAX_RADIUS * len(self.words)} bits, not {radius}")
        self.border = border
        self.radius = radius
        self.radii = _share_radius(radius, len(self.words))
        self.visit = visit
        self.lock = threading.Lock()
        self.stopped = threading.Event()

    def run(self) -> None:
        size = len(self.words[0])
        left = size if self.border is None else self.border
        right = size if self.border is None else size - left
        if min(left, right) == 0:
            return
        masks: list[_Mask] = []
        for number, radius in enumerate(self.radii):
            if radius >= 0:
                masks += _plan_masks(number, radius, left, right, _estimate_entropy(self.words[number]))
        threads = min(_MAX_THREADS, os.cpu_count() or 1, len(masks))
        if threads == 1:
            for mask in masks:
                self.search(mask)
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="near") as pool:
            for _ in pool.map(self.search, masks):
                pass

    def search(self, mask: _Mask) -> None:
        """Report the pairs that share the parts of a mask, and that no earlier mask has found."""
        if self.stopped.is_set():
            return
        try:
            buckets = _Buckets(self.words[mask.word], mask, self.border)
            for i, j in buckets.compare(self.radii[mask.word]):
                self.report(mask, i, j)
                if self.stopped.is_set():
                    return
        except BaseException:
            self.stopped.set()
            raise

    def report(self, mask: _Mask, i: Positions, j: Positions) -> None:
        """Hand on those of the pairs, near in this mask's word, that are pairs, near in all, and new."""
        pairs = i < j if self.border is None else (i < self.border) & (j >= self.border)
        i, j = i[pairs], j[pairs]
        apart = self.words[mask.word][i] ^ self.words[mask.word][j]
        new = np.ones(len(i), dtype=bool)
        for part in mask.parts:
            new &= (apart & _bits_of(part)) == 0
        for part in mask.skipped:
            new &= (apart & _bits_of(part)) != 0
        i, j, total = i[new], j[new], np.bitwise_count(apart[new]).astype(np.uint16)
        for number, word in enumerate(self.words):
            if number != mask.word and len(i):
                here = np.bitwise_count(word[i] ^ word[j])
                total = total + here
                new = total <= self.radius
                if number < mask.word:
                    new &= here > self.radii[number]
                i, j, total = i[new], j[new], total[new]
        if len(i):
            with self.lock:
                if not self.stopped.is_set():
                    self.visit(i, j, total)


class _Buckets:
    """Hashes in order of their masked bits."""

    def __init__(self, word: Hashes, mask: _Mask, border: int | None) -> None:
        keys = _pack(word, mask.parts)
        some = _with_mates(keys, mask.bits, border)
        keys = keys[some]
        order = _sort_keys(keys, mask.bits)
        keys = keys[order]
        self.positions = some[order]
        self.hashes = word[self.positions]
        edges = np.flatnonzero(keys[1:] != keys[:-1]) + 1
        self.starts = np.concatenate([[0], edges]).astype(np.int64)
        self.sizes = np.diff(np.append(self.starts, len(keys)))
        self.one_sided = border is None
        self.lefts = self.rights = self.sizes
        if border is not None and len(keys):  # within a bucket positions rise: those of the left come first
            self.lefts = np.add.reduceat((self.positions < border).astype(np.int64), self.starts)
            self.rights = self.sizes - self.lefts

    def compare(self, radius: int) -> Iterator[tuple[Positions, Positions]]:
        """Positions of hashes within the radius that share a bucket. Within one set i < j, and perhaps the reverse."""
        rounds = self.count_rounds()
        for first, second in self.compare_shifted(rounds, radius):
            yield self.positions[first], self.positions[second]
        for bucket in np.flatnonzero(self.sizes > rounds + 1).tolist():
            start, stop = int(self.starts[bucket]), int(self.starts[bucket] + self.sizes[bucket])
            end, begin = (stop, start) if self.one_sided else (start + int(self.lefts[bucket]),) * 2
            for first, second in _compare_all(self.hashes[start:end], self.hashes[begin:stop], radius):
                yield self.positions[start + first], self.positions[begin + second]

    def count_rounds(self) -> int:
        """How far apart in the order two hashes may be for `compare_shifted`; larger buckets are compared one by one.

        Chosen for the least work: each round costs a comparison per hash, each bucket on its own some more.
        """
        by_size = np.argsort(self.sizes)[::-1]
        sizes, pairs = self.sizes[by_size].astype(np.float64), (self.lefts * self.rights)[by_size].astype(np.float64)
        alone = np.concatenate([[0.0], np.cumsum(_BUCKET_COST + pairs)])  # the largest 0, 1, ... buckets
        rounds = np.append(sizes, 1.0) - 1.0
        return int(rounds[np.argmin(alone + rounds * len(self.hashes))])

    def compare_shifted(self, rounds: int, radius: int) -> Iterator[tuple[Positions, Positions]]:
        """Places (i, j) of hashes within the radius, in the buckets that are not compared on their own.

        Neighbours in the order are compared whether or not they share a bucket: asking first would take longer.
        """
        apart, count, near = np.empty(_TILE, np.uint64), np.empty(_TILE, np.uint8), np.empty(_TILE, dtype=bool)
        ends = np.repeat(np.where(self.sizes <= rounds + 1, self.starts + self.sizes, 0), self.sizes)
        for start in range(0, len(self.hashes), _TILE):
            tile = self.hashes[start : start + _TILE]
            mates = int((ends[start : start + _TILE] - np.arange(start, start + len(tile))).max()) - 1
            for step in range(1, mates + 1):
                other = self.hashes[start + step : start + step + len(tile)]
                size = len(other)
                np.bitwise_xor(tile[:size], other, out=apart[:size])
                np.bitwise_count(apart[:size], out=count[:size])
                np.less_equal(count[:size], radius, out=near[:size])
                if near[:size].any():
                    first = start + np.flatnonzero(near[:size])
                    first = first[first + step < ends[first]]
                    yield first, first + step


def _compare_all(left: Hashes, right: Hashes, radius: int) -> Iterator[tuple[Positions, Positions]]:
    """Places of hashes within the radius, each of one side with each of the other."""
    rows = max(1, _TILE // max(1, len(right)))
    for top in range(0, len(left), rows):
        for start in range(0, len(right), _TILE):
            apart = left[top : top + rows, None] ^ right[None, start : start + _TILE]
            near = np.bitwise_count(apart) <= radius
            if near.any():
                first, second = np.nonzero(near)
                yield first + top, second + start


def _share_radius(radius: int, words: int) -> list[int]:
    """The radius to search each word with, -1 for not at all, so that a near pair is near in one word at least.

    Hashes that are further apart than these radii in each word are further apart than the radius in all: the radii,
    each plus one, sum up to the radius plus one.
    """
    return [(radius + 1) // words + (k < (radius + 1) % words) - 1 for k in range(words)]


def _estimate_entropy(word: Hashes) -> float:
    """What a bit of these hashes is worth, 0..1: 1 for independent even bits, .8 for portraits in one pose.

    From how often bytes of a sample are equal. Pairs of near hashes are left out: copies share their bytes anyway, and
    would hide what the others do.
    """
    sample = word[:: -(-len(word) // _SAMPLE)]
    apart = sample[:, None] ^ sample[None, :]
    far = apart[np.bitwise_count(apart) > MAX_RADIUS]
    equal = np.count_nonzero(far.view(np.uint8) == 0) / (8 * len(far)) if len(far) else 0.0
    return min(1.0, -math.log2(equal) / 8) if equal else 1.0


def _plan_masks(word: int, radius: int, left: int, right: int, entropy: float) -> list[_Mask]:
    """The masks that find all pairs within the radius in one word, for the least work.

    Sharing more parts leaves fewer strangers in a bucket, but there are more ways to choose the parts.
    """

    def cost(shared: int) -> float:
        bits = 64 * shared / (radius + shared) if shared else 0.0
        load = (left + right) / 2 ** (bits * entropy)
        met = 1.0 if left == right else min(1.0, load)
        sort = _SORT_COST * (2 if bits > 16 else 1)
        rounds = load + _SPREAD_COST * (1 + math.sqrt(load))
        return math.comb(radius + shared, shared) * (left + right) * (_KEY_COST + met * (sort + rounds))

    shared = min(range(_MAX_SHARED + 1), key=cost)
    parts = _cut_bits(radius + shared) if shared else []
    masks = []
    for chosen in combinations(range(len(parts)), shared):
        before = range(chosen[-1]) if chosen else ()
        skipped = tuple(parts[k] for k in before if k not in chosen)
        masks.append(_Mask(word, tuple(parts[k] for k in chosen), skipped))
    return masks


def _cut_bits(parts: int) -> list[Part]:
    """64 bits in nearly equal parts."""
    edges = [round(64 * k / parts) for k in range(parts + 1)]
    return [(low, high - low) for low, high in pairwise(edges)]


def _bits_of(part: Part) -> np.uint64:
    low, width = part
    return np.uint64(((1 << width) - 1) << low)


def _pack(word: Hashes, parts: tuple[Part, ...]) -> Keys:
    """The masked bits side by side, the last 32 of them."""
    packed = np.zeros(len(word), np.uint64)
    for low, width in parts:
        packed <<= np.uint64(width % 64)
        packed |= (word >> np.uint64(low)) & np.uint64((1 << width) - 1)
    return packed.astype(np.uint32)


def _with_mates(keys: Keys, bits: int, border: int | None) -> Positions:
    """Positions of keys that another key (from the other side of the border) may be equal to."""
    slot_bits = min(bits, _SLOT_BITS)
    if border is None and len(keys) > 1 << slot_bits:
        return np.arange(len(keys))
    slots = keys & np.uint32((1 << slot_bits) - 1)
    if border is None:
        return np.flatnonzero(np.bincount(slots, minlength=1 << slot_bits)[slots] > 1)
    left, right = slots[:border], slots[border:]
    taken, shared = np.zeros((2, 1 << slot_bits), dtype=bool)
    taken[left] = True
    right_in = taken[right]
    shared[right[right_in]] = True
    return np.flatnonzero(np.concatenate([shared[left], right_in]))


def _sort_keys(keys: Keys, bits: int) -> Positions:
    """The stable order of uint32 keys: by radix, 16 bits at a time, several times as fast as sorting by comparison."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    if bits > 16:
        order = order[np.argsort((keys >> np.uint32(16)).astype(np.uint16)[order], kind="stable")]
    return order
