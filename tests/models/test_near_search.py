"""The search for near hashes against comparing all with all: every radius, any number of words, crowded buckets."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing import (
    find_near_pairs,
    find_near_pairs_within,
    hamming,
    search,
    visit_near_pairs,
    visit_near_pairs_within,
)


def brute_force(left: np.ndarray, right: np.ndarray, radius: int) -> list[tuple[int, int]]:
    left, right = np.atleast_2d(left.T).T, np.atleast_2d(right.T).T
    near = np.bitwise_count(left[:, None] ^ right[None, :]).sum(axis=2) <= radius
    return [(int(i), int(j)) for i, j in np.argwhere(near)]


def pairs(found: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, int]]:
    return list(zip(found[0].tolist(), found[1].tolist(), strict=True))


def above(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(i, j) for i, j in found if i < j]


@st.composite
def clustered_hashes(draw: st.DrawFn, words: int) -> np.ndarray:
    """Few centres with some bits flipped, so that there are pairs at every distance: uint64 (N,) or (N, words)."""
    centres = draw(st.lists(st.integers(0, 2 ** (64 * words) - 1), min_size=1, max_size=3))
    hashes = []
    for _ in range(draw(st.integers(0, 12))):
        value = draw(st.sampled_from(centres))
        for bit in draw(st.lists(st.integers(0, 64 * words - 1), max_size=16 * words)):
            value ^= 1 << bit
        hashes.append(value.to_bytes(8 * words, "big"))
    made = np.frombuffer(b"".join(hashes), np.uint64).reshape(len(hashes), words)
    return made[:, 0] if words == 1 else made


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    words = draw(st.sampled_from([1, 2, 4]))
    radius = draw(st.integers(0, 15 * words))
    return draw(clustered_hashes(words)), draw(clustered_hashes(words)), radius


@settings(max_examples=200, deadline=None, derandomize=True)
@given(searches())
def test_the_search_finds_what_comparing_all_finds(drawn: tuple[np.ndarray, np.ndarray, int]) -> None:
    left, right, radius = drawn
    both = np.concatenate([left, right])
    for one, other in ((left, right), (both, both)):
        assert pairs(find_near_pairs(one, other, radius)) == brute_force(one, other, radius)
    assert pairs(find_near_pairs_within(both, radius)) == above(brute_force(both, both, radius))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    hashes=clustered_hashes(1),
    radius=st.integers(0, 9),
    shared=st.integers(0, 3),
    tile=st.sampled_from([1, 3, 1 << 18]),
    bucket_cost=st.sampled_from([0.0, 5.0, 1e9]),
)
def test_each_pair_is_found_once_however_it_is_looked_for(
    hashes: np.ndarray, radius: int, shared: int, tile: int, bucket_cost: float
) -> None:
    """However many parts must be shared, and whether buckets are compared along the order or on their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_MAX_SHARED", shared)
        patch.setattr(search, "_KEY_COST", 0.0)
        patch.setattr(search, "_SORT_COST", -1e9)  # the more masks the better: takes the most parts allowed
        patch.setattr(search, "_TILE", tile)
        patch.setattr(search, "_BUCKET_COST", bucket_cost)
        assert pairs(find_near_pairs_within(hashes, radius)) == above(brute_force(hashes, hashes, radius))
        assert pairs(find_near_pairs(hashes, hashes[::-1], radius)) == brute_force(hashes, hashes[::-1], radius)


@pytest.mark.parametrize("radius", range(16))
def test_planted_copies_among_strangers(radius: int) -> None:
    """Large enough that the planner takes several parts and the radix sort its second pass."""
    rng = np.random.default_rng(radius)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    for k in range(300):
        flipped = rng.choice(64, int(rng.integers(0, radius + 2)), replace=False)
        hashes[k] = hashes[1000 + k] ^ np.bitwise_or.reduce(np.uint64(1) << flipped.astype(np.uint64), initial=0)
    assert pairs(find_near_pairs_within(hashes, radius)) == above(brute_force(hashes, hashes, radius))
    found = brute_force(hashes[:200], hashes[200:], radius)
    assert pairs(find_near_pairs(hashes[:200], hashes[200:], radius)) == found
    assert found


def test_new_hashes_against_old_ones_and_among_themselves_are_all_the_new_pairs() -> None:
    rng = np.random.default_rng(5)
    centres = rng.integers(0, 2**64, 40, dtype=np.uint64)
    hashes = centres[rng.integers(0, 40, 500)] ^ (np.uint64(1) << rng.integers(0, 64, 500).astype(np.uint64))
    old, new = hashes[:450], hashes[450:]
    i, j = find_near_pairs(old, new, 3)
    k, m = find_near_pairs_within(new, 3)
    added = sorted([*pairs((i, j + 450)), *pairs((k + 450, m + 450))])
    everything = set(pairs(find_near_pairs_within(hashes, 3)))
    assert added == sorted(everything - set(pairs(find_near_pairs_within(old, 3))))
    assert added


def test_hashes_with_equal_halves_crowd_their_buckets_and_are_found() -> None:
    """Half of the bits say nothing, as in pictures of one kind: each bucket by them holds everything."""
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**32, 2500).astype(np.uint64) | np.uint64(0xABCD1234 << 32)
    hashes[:100] = hashes[100:200] ^ np.uint64(0b101)
    for radius in (2, 6):
        assert pairs(find_near_pairs_within(hashes, radius)) == above(brute_force(hashes, hashes, radius))


def test_distances_are_handed_out_with_the_pairs() -> None:
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**64, (60, 4), dtype=np.uint64)
    hashes[30:] = hashes[:30] ^ (np.uint64(1) << rng.integers(0, 64, (30, 4)).astype(np.uint64))
    seen: list[int] = []

    def check(i: np.ndarray, j: np.ndarray, apart: np.ndarray) -> None:
        assert np.array_equal(apart, hamming(hashes[i], hashes[j]))
        seen.extend(apart.tolist())

    visit_near_pairs_within(hashes, 25, check)
    assert seen == [4] * 30
    visit_near_pairs(hashes[:30], hashes[30:], 25, lambda i, j, apart: seen.extend(apart.tolist()))
    assert seen == [4] * 60


def test_an_error_of_the_visitor_ends_the_search() -> None:
    calls: list[int] = []

    def refuse(i: np.ndarray, j: np.ndarray, apart: np.ndarray) -> None:
        calls.append(len(i))
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        visit_near_pairs_within(np.zeros(5000, np.uint64), 8, refuse)
    assert len(calls) == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("near")]


def test_portraits_have_worse_bits_than_chance() -> None:
    rng = np.random.default_rng(0)
    even = rng.integers(0, 2**64, 4000, dtype=np.uint64)
    skewed = even & rng.integers(0, 2**64, 4000, dtype=np.uint64) & rng.integers(0, 2**64, 4000, dtype=np.uint64)
    assert search._estimate_entropy(even) > 0.95
    assert 0.4 < search._estimate_entropy(skewed) < 0.75  # a bit that is set by one eighth: .61 by equal bytes
    copies = np.concatenate([even, np.full(2000, even[0])])
    assert search._estimate_entropy(copies) > 0.95


def test_hamming_counts_bits() -> None:
    a = np.array([0, 2**64 - 1, 0b1011], np.uint64)
    b = np.array([0, 0, 0b0001], np.uint64)
    assert hamming(a, b).tolist() == [0, 64, 2]
    assert hamming(np.stack([a] * 8, axis=1), np.stack([b] * 8, axis=1)).tolist() == [0, 512, 16]


def test_radius_has_limits_and_nothing_has_no_pairs() -> None:
    nothing = np.empty(0, np.uint64)
    for radius in (-1, 16):
        with pytest.raises(ValueError, match="0 to 15"):
            find_near_pairs(nothing, nothing, radius)
    with pytest.raises(ValueError, match="0 to 60"):
        find_near_pairs_within(np.empty((0, 4), np.uint64), 61)
    some = np.arange(3, dtype=np.uint64)
    assert pairs(find_near_pairs(nothing, some, 15)) == pairs(find_near_pairs(some, nothing, 15)) == []
    assert pairs(find_near_pairs_within(some[:1], 15)) == []
