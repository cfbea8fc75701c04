"""The training reader: a sample depends on the seed and its number, on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pytest

from datasets.errors import StoreError
from datasets.loader import VersionReader
from datasets.store import Store
from datasets.version import Version

COUNT = 7
Publish = Callable[..., Version]


def shrink(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA))


@pytest.fixture
def reader(store: Store, publish: Publish) -> Callable[..., VersionReader]:
    """reader(**options) -> a VersionReader of seven noise pictures of 16 px, not mirrored unless asked for."""
    version = publish(COUNT)

    def make(**options: Any) -> VersionReader:
        return VersionReader(store, version, **{"resolution": 16, "resize": shrink, "mirror": False, **options})

    return make


def samples(batches: Iterator[np.ndarray], count: int) -> np.ndarray:
    taken: list[np.ndarray] = []
    while len(taken) < count:
        taken.extend(next(batches))
    return np.stack(taken[:count])


def originals(draw_noise: Callable[..., np.ndarray]) -> np.ndarray:
    return np.stack([draw_noise(k).transpose(2, 0, 1) for k in range(COUNT)])


def name_pictures(found: np.ndarray, known: np.ndarray) -> list[int]:
    """Which known picture each found one is; fails for one that is none of them."""
    return [int(np.flatnonzero((known == one).all(axis=(1, 2, 3)))[0]) for one in found]


def test_batches_are_what_training_takes(reader: Callable[..., VersionReader]) -> None:
    batch = next(reader().batches(5, seed=0))
    assert batch.shape == (5, 3, 16, 16)
    assert batch.dtype == np.uint8
    assert batch.flags["C_CONTIGUOUS"]


def test_every_picture_comes_once_per_epoch_and_epochs_differ(
    reader: Callable[..., VersionReader], draw_noise: Callable[..., np.ndarray]
) -> None:
    order = name_pictures(samples(reader().batches(4, seed=0), 4 * COUNT), originals(draw_noise))
    epochs = [tuple(order[start : start + COUNT]) for start in range(0, 4 * COUNT, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len(set(epochs)) > 1


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("start", [0, 1, 6, 7, 20, 23])
def test_a_resumed_reader_goes_on_as_if_undisturbed(
    reader: Callable[..., VersionReader], start: int, mirror: bool
) -> None:
    whole = samples(reader(mirror=mirror).batches(4, seed=3), 40)
    resumed = samples(reader(mirror=mirror).batches(4, seed=3, start_index=start), 40 - start)
    assert np.array_equal(resumed, whole[start:])


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 2), (20, 4)])
def test_batch_size_and_workers_do_not_change_the_samples(
    reader: Callable[..., VersionReader], batch: int, workers: int
) -> None:
    expected = samples(reader(mirror=True).batches(4, seed=1), 30)
    assert np.array_equal(samples(reader(mirror=True, workers=workers).batches(batch, seed=1), 30), expected)


def test_another_seed_is_another_order(reader: Callable[..., VersionReader]) -> None:
    first, second = (samples(reader().batches(4, seed), 3 * COUNT) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_the_cache_does_not_change_the_samples(
    reader: Callable[..., VersionReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = samples(reader(mirror=True).batches(4, seed=1), 30)
    monkeypatch.setattr("datasets.loader._CACHE_BYTES", 2 * 3 * 16 * 16)
    small = reader(mirror=True)
    assert np.array_equal(samples(small.batches(4, seed=1), 30), expected)
    assert np.array_equal(samples(small.batches(4, seed=1), 30), expected)


def test_about_half_of_the_samples_are_mirrored(
    reader: Callable[..., VersionReader], draw_noise: Callable[..., np.ndarray]
) -> None:
    known = originals(draw_noise)
    found = samples(reader(mirror=True).batches(7, seed=0), 40 * COUNT)
    plain = np.array([bool((known == one).all(axis=(1, 2, 3)).any()) for one in found])
    name_pictures(np.where(plain[:, None, None, None], found, found[..., ::-1]), known)
    assert 0.4 < plain.mean() < 0.6


def test_larger_pictures_are_reduced(store: Store, publish: Publish, draw_noise: Callable[..., np.ndarray]) -> None:
    version = publish(1, side=32)
    batch = next(VersionReader(store, version, 16, shrink, mirror=False).batches(1, seed=0))
    assert np.array_equal(batch[0].transpose(1, 2, 0), shrink(draw_noise(0, 32), 16, 16))


def test_sizes_that_cannot_be_trained_on_are_named_before_training(store: Store, publish: Publish) -> None:
    with pytest.raises(StoreError, match=r"4 of 4 pictures of faces@v1 .*upscale.size=32"):
        VersionReader(store, publish(), 32, shrink)
    with pytest.raises(StoreError, match="not squares"):
        VersionReader(store, publish(height=20), 16, shrink)
    with pytest.raises(StoreError, match="is empty"):
        VersionReader(store, publish(0), 16, shrink)


def test_a_damaged_blob_stops_the_training_with_advice(store: Store, publish: Publish) -> None:
    version = publish()
    for digest in version.manifest()["blob"].to_pylist():
        store.blobs.path(digest).write_bytes(store.blobs.path(digest).read_bytes()[:-30])
    with pytest.raises(StoreError, match="versions verify"):
        next(VersionReader(store, version, 16, shrink).batches(2, seed=0))


def test_two_iterators_of_one_reader_do_not_disturb_each_other(reader: Callable[..., VersionReader]) -> None:
    shared = reader(mirror=True)
    expected = samples(reader(mirror=True).batches(2, seed=5), 12)
    left, right = shared.batches(2, seed=5), shared.batches(2, seed=9)
    mixed = [pair[0] for pair in islice(zip(left, right, strict=False), 6)]
    assert np.array_equal(np.concatenate(mixed), expected)
