"""Perceptual hashes as ImageHash defines them: copies are near, strangers far, flat pictures have none."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image

from models.hashing import PictureHashes, hash_picture, mirrored, perceptual_hash


def discs(seed: int, side: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    picture = np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        centre, radius = rng.integers(0, side, 2).tolist(), int(rng.integers(5, side // 4))
        cv2.circle(picture, centre, radius, rng.integers(0, 256, 3).tolist(), -1)
    return picture


def hashes(picture: np.ndarray) -> PictureHashes:
    found = hash_picture(picture)
    assert found is not None
    return found


def bits_apart(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def jpeg(picture: np.ndarray, quality: int = 60) -> np.ndarray:
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def smaller(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.resize(picture, (80, 80), interpolation=cv2.INTER_AREA), np.uint8)


@pytest.mark.parametrize("seed", range(8))
def test_nearly_the_bits_of_imagehash(seed: int) -> None:
    """They reduce with Lanczos."""
    picture = discs(seed)
    found, image = hashes(picture), Image.fromarray(picture)
    assert (found.bits ^ int(str(imagehash.phash(image)), 16)).bit_count() <= 4
    theirs = bytes.fromhex(str(imagehash.phash(image, hash_size=16, highfreq_factor=4)))
    assert bits_apart(found.bits256, theirs) <= 20


@pytest.mark.parametrize(("side", "size", "factor"), [(32, 8, 4), (64, 16, 4)])
def test_exactly_the_bits_of_imagehash_where_nothing_is_reduced(side: int, size: int, factor: int) -> None:
    grey = cv2.resize(cv2.cvtColor(discs(0), cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA)
    found = hashes(np.asarray(np.repeat(grey[:, :, None], 3, axis=2), np.uint8))
    ours = {8: f"{found.bits:016x}", 16: found.bits256.hex()}[size]
    assert ours == str(imagehash.phash(Image.fromarray(grey), hash_size=size, highfreq_factor=factor))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("copy", [jpeg, smaller])
def test_copies_are_near_and_strangers_far(seed: int, copy: Callable[[np.ndarray], np.ndarray]) -> None:
    picture, stranger = discs(seed), discs(seed + 100)
    one, other, far = hashes(picture), hashes(copy(picture)), hashes(stranger)
    assert (one.bits ^ other.bits).bit_count() <= 4
    assert bits_apart(one.bits256, other.bits256) <= 30
    assert (one.bits ^ far.bits).bit_count() > 10
    assert bits_apart(one.bits256, far.bits256) > 60


@pytest.mark.parametrize("seed", range(6))
def test_the_mirrored_hashes_are_those_of_the_mirrored_picture(seed: int) -> None:
    picture = discs(seed)
    here, there = hashes(picture), hashes(mirrored(picture))
    assert (here.mirrored, here.mirrored256) == (there.bits, there.bits256)
    assert (there.mirrored, there.mirrored256) == (here.bits, here.bits256)
    assert (here.bits ^ here.mirrored).bit_count() > 10


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (8, 8), (33, 31)])
def test_any_size_has_hashes_of_64_and_256_bits(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = hash_picture(cv2.GaussianBlur(noise, (0, 0), 1.5) if min(shape) > 20 else noise)
    assert found is None or (0 <= found.bits < 2**64 and len(found.bits256) == len(found.mirrored256) == 32)
    assert (found is None) == (min(shape) == 1)  # a line is the same all the way across


GRADIENT = np.repeat(np.repeat(np.linspace(20, 230, 200).astype(np.uint8)[:, None, None], 200, 1), 3, 2)


@pytest.mark.parametrize(
    "picture",
    [
        np.full((200, 200, 3), 120, np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        GRADIENT,
        jpeg(GRADIENT),
        jpeg(np.random.default_rng(1).integers(100, 120, (200, 200, 3), dtype=np.uint8)),
    ],
    ids=["flat", "pixel", "gradient", "gradient as JPEG", "noise as JPEG"],
)
def test_a_nearly_uniform_picture_has_no_hash(picture: np.ndarray) -> None:
    assert hash_picture(picture) is None
    assert perceptual_hash(picture) is None


def test_a_drawing_on_a_flat_ground_has_one() -> None:
    picture = np.full((256, 256, 3), 250, np.uint8)
    cv2.line(picture, (20, 30), (200, 220), (0, 0, 0), 2)
    assert (hashes(picture).bits ^ hashes(jpeg(picture)).bits).bit_count() <= 4
    assert perceptual_hash(picture) == hashes(picture).bits


def test_mirroring_twice_is_the_picture() -> None:
    picture = discs(1)
    assert np.array_equal(mirrored(mirrored(picture)), picture)
    assert np.array_equal(mirrored(picture)[:, 0], picture[:, -1])
    assert mirrored(picture).flags["C_CONTIGUOUS"]
