"""Who of the near stays: the items are walked from the best to the worst, and one falls when it is near one that stays.

No chaining: an item is near the very item that it falls for. The walk does not list all near pairs where they are too
many, as among thousands of copies of one picture: it settles the best items first, an eighth of them and an eighth of
those, until the pairs are few. What is near one of these that stays is out before it is compared with its own kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.hashing.search import Bits, Hashes, Positions, visit_near_pairs, visit_near_pairs_within

Mask = npt.NDArray[np.bool_]
Confirm = Callable[[Positions, Positions], Mask]

_MANY_PAIRS = 1 << 16  # near pairs that are listed without more ado; more are allowed of more items
_SPLIT = 8  # the part of the items that is settled first where there are too many pairs
# the parts of a preference: which of two keepers an item falls for (the smaller one), level first
_RANK_BITS, _LIKENESS_BITS, _APART_BITS = 40, 4, 12
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Likeness:
    """One way in which a worse item can be near a better one.

    It is when hamming(better[i], worse[j]) <= radius, and all of `confirm` say so too.

    Attributes:
        better, worse: hashes by which an item is looked at as the better one and as the worse one, (N,) or (N, W); one
            and the same array where the likeness has no direction.
        known: (N,) bool: which items have these hashes at all; the others are near none.
        confirm: further looks at pairs of positions (better, worse), each asked of what is left: bool per pair.
        level: an item falls for a keeper of a lower level rather than for a nearer one of a higher level.
    """

    better: Hashes
    worse: Hashes
    known: Mask
    radius: int
    confirm: tuple[Confirm, ...] = ()
    level: int = 0


@dataclass(frozen=True)
class Keepers:
    """What each item falls for. All arrays are (N,)."""

    keeper: Positions  # position of the item that stays for it, -1 for one that stays
    apart: Positions  # bits, -1 for one that stays
    likeness: Positions  # the number of the likeness, -1 for one that stays


def find_keepers(order: Positions, kept: int, likenesses: Sequence[Likeness]) -> Keepers:
    """Walk items from the best to the worst; one that is near an item that stays falls for the nearest of those.

    Of stayers equally near the earlier likeness counts, then the better item.

    Args:
        order: positions of the items from the best to the worst, each at most once; items left out stay, for nothing.
        kept: that many of the best stay, whatever they are near.
        likenesses: the ways to be near, 16 at most.
    """
    walk = _Walk(order, kept, likenesses)
    preference = walk.choose_keepers()
    found = Keepers(*(np.full(_count_items(likenesses, order), -1, np.int64) for _ in range(3)))
    copies, preference = order[preference < _NONE], preference[preference < _NONE]
    found.keeper[copies] = order[preference & ((1 << _RANK_BITS) - 1)]
    found.likeness[copies] = (preference >> _RANK_BITS) & ((1 << _LIKENESS_BITS) - 1)
    found.apart[copies] = (preference >> (_RANK_BITS + _LIKENESS_BITS)) & ((1 << _APART_BITS) - 1)
    return found


def _count_items(likenesses: Sequence[Likeness], order: Positions) -> int:
    return max([len(one.known) for one in likenesses] + [int(order.max(initial=-1)) + 1])


class _TooManyError(Exception):
    """More near pairs than are worth listing."""


class _Walk:
    """Items by rank: 0 is the best. A smaller rank is a better item."""

    def __init__(self, order: Positions, kept: int, likenesses: Sequence[Likeness]) -> None:
        if len(likenesses) > 1 << _LIKENESS_BITS:
            raise ValueError(f"at most {1 << _LIKENESS_BITS} likenesses, not {len(likenesses)}")
        self.order = order
        self.kept = kept
        self.likenesses = likenesses

    def choose_keepers(self) -> Positions:
        """For each rank the stayer that it falls for, as a preference, or _NONE: int64 (N,)."""
        ranks = np.arange(len(self.order))
        best = np.full(len(ranks), _NONE)
        try:
            better, worse, preference = self.list_pairs(ranks)
        except _TooManyError:
            stays = np.isin(ranks, self.settle(ranks))
            self.visit(ranks[stays], ranks[~stays], lambda _, worse, prefer: np.minimum.at(best, worse, prefer))
            return best
        stays = np.isin(ranks, _settle_pairs(ranks, better, worse))
        by_stayer = stays[better]
        np.minimum.at(best, worse[by_stayer], preference[by_stayer])
        return best

    def settle(self, ranks: Positions) -> Positions:
        """Those of the ranks (rising) that stay, among themselves."""
        try:
            better, worse, _ = self.list_pairs(ranks)
        except _TooManyError:
            first, rest = np.split(ranks, [-(-len(ranks) // _SPLIT)])
            first = self.settle(first)
            return np.concatenate([first, self.settle(rest[~self.find_near(first, rest)])])
        return _settle_pairs(ranks, better, worse)

    def list_pairs(self, ranks: Positions) -> tuple[Positions, Positions, Positions]:
        """The near pairs among the ranks: better, worse, preference. Raises _TooManyError when they are too many."""
        found = [np.empty((3, 0), np.int64)]
        left = max(_MANY_PAIRS, len(ranks))

        def add(better: Positions, worse: Positions, preference: Positions) -> None:
            nonlocal left
            left -= len(better)
            if left < 0:
                raise _TooManyError
            found.append(np.stack([better, worse, preference]))

        self.visit(ranks, ranks, add)
        better, worse, preference = np.concatenate(found, axis=1)
        return better, worse, preference

    def find_near(self, better: Positions, worse: Positions) -> Mask:
        """Which of the worse ranks are near any of the better ones: bool, as `worse`."""
        near = np.zeros(len(self.order), dtype=bool)
        self.visit(better, worse, lambda _, copies, __: near.__setitem__(copies, True))
        return near[worse]

    def visit(
        self, better: Positions, worse: Positions, add: Callable[[Positions, Positions, Positions], None]
    ) -> None:
        """Calls add(better, worse, preference) with portions of the near pairs in which the worse one may fall.

        better, worse: rising ranks; one and the same array for the pairs among them.
        """
        for number, likeness in enumerate(self.likenesses):
            self.visit_likeness(number, likeness, better, worse, add)

    def visit_likeness(
        self,
        number: int,
        likeness: Likeness,
        better: Positions,
        worse: Positions,
        add: Callable[[Positions, Positions, Positions], None],
    ) -> None:
        """As visit, for one of the likenesses."""
        within = better is worse and likeness.better is likeness.worse
        better, worse = (ranks[likeness.known[self.order[ranks]]] for ranks in (better, worse))

        def look(i: Positions, j: Positions, apart: Bits) -> None:
            keepers, copies = better[i], worse[j]
            near = (keepers < copies) & (copies >= self.kept)
            for confirm in likeness.confirm:
                near[near] = confirm(self.order[keepers[near]], self.order[copies[near]])
            if near.any():
                keepers, copies, apart = keepers[near], copies[near], apart[near]
                add(keepers, copies, _prefer(likeness.level, apart, number, keepers))

        if within:
            visit_near_pairs_within(likeness.better[self.order[better]], likeness.radius, look)
        else:
            left, right = likeness.better[self.order[better]], likeness.worse[self.order[worse]]
            visit_near_pairs(left, right, likeness.radius, look)


def _prefer(level: int, apart: Bits, likeness: int, rank: Positions) -> Positions:
    """One number for a way to fall, the smaller the better: by level, then bits, then likeness, then rank."""
    preference = np.int64(level) << _APART_BITS | apart.astype(np.int64)
    return (preference << _LIKENESS_BITS | likeness) << _RANK_BITS | rank


def _settle_pairs(ranks: Positions, better: Positions, worse: Positions) -> Positions:
    """Those of the ranks that stay: one falls when it is near a better one that stays."""
    falls = set[int]()
    by_worse = np.argsort(worse, kind="stable")
    for one, other in zip(better[by_worse].tolist(), worse[by_worse].tolist(), strict=True):
        if one not in falls:
            falls.add(other)
    return ranks[~np.isin(ranks, np.fromiter(falls, np.int64, len(falls)))]
