"""Who of the near stays, against the definition: one by one from the best, each compared with all that stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing import Keepers, Likeness, find_keepers, hamming, search, walk

Found = list[tuple[int, int, int]]


def define(order: np.ndarray, kept: int, likenesses: list[Likeness]) -> Found:
    """The definition: (keeper, bits, likeness) of each item, -1 for one that stays."""
    found = [(-1, -1, -1)] * len(likenesses[0].known)
    stayers: list[tuple[int, int]] = []
    for rank, item in enumerate(order.tolist()):
        ways = []
        for place, stayer in stayers if rank >= kept else ():
            for number, way in enumerate(likenesses):
                apart = int(hamming(way.better[[stayer]], way.worse[[item]])[0])
                near = way.known[stayer] and way.known[item] and apart <= way.radius
                if near and all(look(np.array([stayer]), np.array([item]))[0] for look in way.confirm):
                    ways.append((way.level, apart, number, place, stayer))
        if ways:
            _, apart, number, _, stayer = min(ways)
            found[item] = (stayer, apart, number)
        else:
            stayers.append((rank, item))
    return found


def rows(keepers: Keepers) -> Found:
    return list(zip(*(column.tolist() for column in (keepers.keeper, keepers.apart, keepers.likeness)), strict=True))


def scatter(rng: np.random.Generator, count: int, flips: int) -> np.ndarray:
    """Hashes near a few centres: uint64 (count,)."""
    hashes = rng.integers(0, 2**64, 3, dtype=np.uint64)[rng.integers(0, 3, count)]
    for _ in range(flips):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64))
    return hashes


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 40),
    flips=st.integers(0, 6),
    radius=st.integers(0, 9),
    kept=st.integers(0, 5),
    many=st.sampled_from([0, 4, 1 << 16]),
)
def test_the_walk_is_the_definition(seed: int, count: int, flips: int, radius: int, kept: int, many: int) -> None:
    """However soon it stops listing pairs and splits the items."""
    rng = np.random.default_rng(seed)
    plain, turned, posts = (scatter(rng, count, flips) for _ in range(3))
    groups, known = rng.integers(0, 3, count), rng.random(count) < 0.9
    one_place = (lambda i, j: groups[i] == groups[j], lambda i, j: i + j > 3)
    ways = [
        Likeness(plain, plain, known, radius),
        Likeness(plain, turned, known, max(0, radius - 2)),
        Likeness(posts, posts, np.ones(count, dtype=bool), radius, one_place, level=1),
    ]
    order = rng.permutation(count)[: int(rng.integers(1, count + 1))]
    kept = min(kept, len(order))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "_MANY_PAIRS", many)
        patch.setattr(search, "_BUCKET_COST", float(rng.choice([0.0, 2e4])))
        assert rows(find_keepers(order, kept, ways)) == define(order, kept, ways)


def test_a_dense_cluster_is_never_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 copies of one picture have 200 million pairs; the walk sees a few for each copy."""
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, 40_000, dtype=np.uint64)
    cluster = rng.permutation(40_000)[:20_000]
    hashes[cluster] = hashes[cluster[0]] ^ (np.uint64(1) << rng.integers(0, 64, 20_000).astype(np.uint64))
    seen = 0
    real = walk._prefer

    def count(level: int, apart: np.ndarray, likeness: int, rank: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += len(rank)
        return real(level, apart, likeness, rank)

    monkeypatch.setattr(walk, "_prefer", count)
    found = find_keepers(np.arange(40_000), 0, [Likeness(hashes, hashes, np.ones(40_000, dtype=bool), 4)])
    best = int(cluster.min())
    assert np.array_equal(np.flatnonzero(found.keeper >= 0), np.sort(cluster[cluster != best]))
    assert set(found.keeper[cluster].tolist()) == {best, -1}
    assert seen < 1_000_000


def test_what_is_kept_stays_and_still_stands_for_its_copies() -> None:
    same = np.full(5, 7, np.uint64)
    way = Likeness(same, same, np.ones(5, dtype=bool), 0)
    found = find_keepers(np.array([3, 1, 0, 2, 4]), 2, [way])
    assert found.keeper.tolist() == [3, -1, 3, -1, 3]
    unknown = replace(way, known=np.array([True, True, True, False, True]))
    assert find_keepers(np.array([3, 1, 0, 2, 4]), 0, [unknown]).keeper.tolist() == [1, -1, 1, -1, 1]


def test_without_items_or_likenesses_nothing_falls() -> None:
    assert rows(find_keepers(np.arange(3), 0, [])) == [(-1, -1, -1)] * 3
    empty = np.empty(0, np.uint64)
    way = Likeness(empty, empty, np.empty(0, dtype=bool), 4)
    assert rows(find_keepers(np.empty(0, np.int64), 0, [way])) == []
    with pytest.raises(ValueError, match="at most 16"):
        find_keepers(np.arange(3), 0, [way] * 17)
