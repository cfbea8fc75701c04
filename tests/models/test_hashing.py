"""Perceptual hashes as ImageHash defines them, and the pair search against comparing all with all."""

from __future__ import annotations

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.hashing import find_near_pairs, find_near_pairs_within, hamming, mirrored, perceptual_hash


def discs(seed: int, side: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picture = np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        centre, radius = rng.integers(0, side, 2).tolist(), int(rng.integers(5, side // 4))
        cv2.circle(picture, centre, radius, rng.integers(0, 256, 3).tolist(), -1)
    return picture


def bits_apart(a: np.ndarray, b: np.ndarray) -> int:
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


@pytest.mark.parametrize("seed", range(8))
def test_nearly_the_bits_of_imagehash(seed: int) -> None:
    picture = discs(seed)
    theirs = int(str(imagehash.phash(Image.fromarray(picture))), 16)
    assert (perceptual_hash(picture) ^ theirs).bit_count() <= 4  # they reduce with Lanczos


def test_exactly_the_bits_of_imagehash_where_nothing_is_reduced() -> None:
    grey = cv2.resize(cv2.cvtColor(discs(0), cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    picture = np.asarray(np.repeat(grey[:, :, None], 3, axis=2), np.uint8)
    assert f"{perceptual_hash(picture):016x}" == str(imagehash.phash(Image.fromarray(grey)))


@pytest.mark.parametrize("seed", range(6))
def test_copies_are_near_and_strangers_far(seed: int) -> None:
    picture = discs(seed)
    smaller = np.asarray(cv2.resize(picture, (80, 80), interpolation=cv2.INTER_AREA), np.uint8)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    assert bits_apart(picture, smaller) <= 4
    assert bits_apart(picture, np.asarray(jpeg, np.uint8)) <= 4
    assert bits_apart(picture, discs(seed + 100)) > 10
    assert bits_apart(picture, mirrored(picture)) > 10


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (8, 8), (33, 31)])
def test_any_size_has_a_hash_of_64_bits(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert 0 <= perceptual_hash(picture) < 2**64


def test_mirroring_twice_is_the_picture() -> None:
    picture = discs(1)
    assert np.array_equal(mirrored(mirrored(picture)), picture)
    assert np.array_equal(mirrored(picture)[:, 0], picture[:, -1])
    assert mirrored(picture).flags["C_CONTIGUOUS"]


def test_hamming_counts_bits() -> None:
    a = np.array([0, 2**64 - 1, 0b1011], np.uint64)
    assert hamming(a, np.array([0, 0, 0b0001], np.uint64)).tolist() == [0, 64, 2]


def brute_force(left: np.ndarray, right: np.ndarray, radius: int) -> list[tuple[int, int]]:
    near = np.bitwise_count(left[:, None] ^ right[None, :]) <= radius
    return [(int(i), int(j)) for i, j in np.argwhere(near)]


@st.composite
def clustered_hashes(draw: st.DrawFn) -> np.ndarray:
    """Few centres with some bits flipped, so that there are pairs at every distance."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    hashes = []
    for _ in range(draw(st.integers(0, 12))):
        bits = draw(st.lists(st.integers(0, 63), max_size=16))
        value = draw(st.sampled_from(centres))
        for bit in bits:
            value ^= 1 << bit
        hashes.append(value)
    return np.array(hashes, np.uint64)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(left=clustered_hashes(), right=clustered_hashes(), radius=st.integers(0, 15))
def test_the_pair_search_finds_what_comparing_all_finds(left: np.ndarray, right: np.ndarray, radius: int) -> None:
    both = np.concatenate([left, right])
    for one, other in ((left, right), (both, both)):
        i, j = find_near_pairs(one, other, radius)
        assert list(zip(i.tolist(), j.tolist(), strict=True)) == brute_force(one, other, radius)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(hashes=clustered_hashes(), radius=st.integers(0, 15), shared=st.integers(1, 4))
def test_the_search_within_one_set_finds_each_pair_once(hashes: np.ndarray, radius: int, shared: int) -> None:
    """However many parts two hashes must share to be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.hashing._parts_to_share", lambda count, radius: shared)
        i, j = find_near_pairs_within(hashes, radius)
        expected = [(a, b) for a, b in brute_force(hashes, hashes, radius) if a < b]
        assert list(zip(i.tolist(), j.tolist(), strict=True)) == expected
        i, j = find_near_pairs(hashes, hashes[::-1], radius)
        assert list(zip(i.tolist(), j.tolist(), strict=True)) == brute_force(hashes, hashes[::-1], radius)


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_the_pair_search_in_small_portions(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    hashes = (rng.integers(0, 4, 60).astype(np.uint64) << np.uint64(40)) ^ rng.integers(0, 16, 60).astype(np.uint64)
    monkeypatch.setattr("models.hashing._MAX_BUCKET_PAIRS", limit)
    i, j = find_near_pairs(hashes, hashes, 3)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == brute_force(hashes, hashes, 3)


def test_radius_has_limits() -> None:
    nothing = np.empty(0, np.uint64)
    for radius in (-1, 16):
        with pytest.raises(ValueError, match="0 to 15"):
            find_near_pairs(nothing, nothing, radius)
