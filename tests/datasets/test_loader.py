"""The training reader: a sample depends on the seed and its number, on nothing else."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from datasets.errors import KaobakoError, StoreError
from datasets.labels import tag_labels
from datasets.loader import SampleOrder, VersionReader, decode_blob
from datasets.loader import version as loader
from datasets.pictures import UnreadablePictureError, decode_picture, encode_png
from datasets.store import Store
from datasets.version import Version

COUNT = 7
PICTURE_BYTES = 3 * 16 * 16
QUARTER = np.full((16, 16, 3), (200, 30, 40), np.uint8)
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


@given(
    seed=st.integers(0, 2**64 - 1),
    count=st.integers(1, 9),
    batch=st.integers(1, 20),
    skipped=st.integers(0, 6),
    start=st.integers(0, 10**6),
)
def test_an_order_can_be_entered_anywhere(seed: int, count: int, batch: int, skipped: int, start: int) -> None:
    whole = [SampleOrder(count, seed).draw(start, batch * (skipped + 1))[part] for part in (0, 1)]
    tail = SampleOrder(count, seed).draw(start + batch * skipped, batch)
    assert all(np.array_equal(one[batch * skipped :], other) for one, other in zip(whole, tail, strict=True))


@pytest.mark.parametrize("start", [0, 3, 1009])
def test_an_order_does_not_depend_on_what_was_drawn_before(start: int) -> None:
    order = SampleOrder(5, seed=8)
    order.draw(2000, 7)
    fresh = SampleOrder(5, seed=8).draw(start, 30)
    assert all(np.array_equal(one, other) for one, other in zip(order.draw(start, 30), fresh, strict=True))


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        (1, {"workers": 1, "prefetch": 0, "cache_bytes": 0}),
        (3, {"workers": 2, "prefetch": 1, "cache_bytes": 2 * PICTURE_BYTES}),  # two pictures fit
        (20, {"workers": 4, "prefetch": 7, "cache_bytes": 3 * PICTURE_BYTES - 1}),
        (5, {"workers": 9, "prefetch": 2, "cache_bytes": COUNT * PICTURE_BYTES}),
    ],
)
def test_batch_size_workers_prefetch_and_cache_do_not_change_the_samples(
    reader: Callable[..., VersionReader], batch: int, options: dict[str, int]
) -> None:
    expected = samples(reader(mirror=True).batches(4, seed=1), 30)
    other = reader(mirror=True, **options)
    assert np.array_equal(samples(other.batches(batch, seed=1), 30), expected)
    assert np.array_equal(
        samples(other.batches(batch, seed=1), 30), expected
    )  # now out of the cache, where there is one


def test_another_seed_is_another_order(reader: Callable[..., VersionReader]) -> None:
    first, second = (samples(reader().batches(4, seed), 3 * COUNT) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("pictures", "decoded"), [(0, 3 * COUNT), (2, 3 * (COUNT - 2) + 2), (COUNT, COUNT)])
def test_a_cached_picture_is_decoded_once(
    reader: Callable[..., VersionReader], monkeypatch: pytest.MonkeyPatch, pictures: int, decoded: int
) -> None:
    calls: list[int] = []  # appending is safe among threads
    decode = loader.decode_blob
    monkeypatch.setattr(loader, "decode_blob", lambda data, side: calls.append(1) or decode(data, side))
    one_worker = reader(workers=1, prefetch=0, cache_bytes=pictures * PICTURE_BYTES)
    samples(one_worker.batches(COUNT, seed=1), 3 * COUNT)
    assert len(calls) == decoded


def test_a_caller_may_overwrite_its_batch(reader: Callable[..., VersionReader]) -> None:
    shared = reader(mirror=True)
    expected = samples(reader(mirror=True).batches(4, seed=1), 40)
    for k, batch in enumerate(islice(shared.batches(4, seed=1), 10)):
        assert np.array_equal(batch, expected[4 * k : 4 * k + 4])
        batch[...] = 0


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


def test_pictures_of_a_wrong_size_are_listed(store: Store, publish: Publish) -> None:
    with pytest.raises(StoreError, match=r"\(p0#0: 16x20, p1#0: 16x20, p2#0: 16x20, …\)"):
        VersionReader(store, publish(height=20), 16, shrink)
    with pytest.raises(StoreError, match=r"2 of 2 .*\(p0#0: Nonex16, p1#0: Nonex16\)"):
        VersionReader(store, publish(2, name="unsized", width=None), 16, shrink)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_a_smaller_picture(path: Path) -> None:
    path.write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_short, r"p2#0 of faces@v1: the blob .*{blob}.png is damaged .*Delete it .*versions verify faces@v1`"),
        (
            flip_a_bit,
            r"p2#0 of faces@v1: the blob .*{blob}.png is damaged \(its bytes are [0-9a-f]{64} now\).*Delete it",
        ),
        (replace_by_a_smaller_picture, r"p2#0 of faces@v1: .*{blob}.png is damaged .*Delete it"),
        (Path.unlink, r"p2#0 of faces@v1: blob {blob} is missing .*Run the build again"),
    ],
)
def test_a_blob_that_cannot_be_used_stops_the_training_with_advice(
    store: Store, publish: Publish, harm: Callable[[Path], None], message: str
) -> None:
    version = publish(4)
    blob = version.manifest()["blob"][2].as_py()
    harm(store.blobs.path(blob))
    before = threading.active_count()
    batches = VersionReader(store, version, 16, shrink, workers=3).batches(1, seed=0)
    with pytest.raises(StoreError, match=message.replace("{blob}", blob)):
        samples(batches, 4)
    assert threading.active_count() == before
    assert next(batches, None) is None


def test_a_blob_of_another_size_than_the_manifest_says_is_named(store: Store, publish: Publish) -> None:
    made = VersionReader(store, publish(2, width=32, height=32), 16, shrink)
    with pytest.raises(
        StoreError, match=r"p\d#0 of faces@v1: the blob .* is 16x16, the manifest says 32x32. Delete it"
    ):
        next(made.batches(1, seed=0))


def test_later_damage_is_noticed_when_it_cannot_be_decoded(store: Store, publish: Publish) -> None:
    version = publish(1)
    with closing(VersionReader(store, version, 16, shrink, prefetch=0, cache_bytes=0).batches(1, seed=0)) as batches:
        next(batches)
        cut_short(store.blobs.path(version.manifest()["blob"][0].as_py()))
        with pytest.raises(StoreError, match=r"is damaged \(truncated"):
            next(batches)


@pytest.mark.parametrize(
    ("file_format", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "RGB", {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()}),
        ("PNG", "RGB", {"transparency": (200, 30, 40)}),
        ("PNG", "RGBA", {}),
        ("PNG", "L", {}),
        ("PNG", "P", {}),
        ("JPEG", "RGB", {"quality": 80}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"}),
    ],
)
@pytest.mark.parametrize("side", [32, 16])
def test_a_blob_gives_the_pixels_that_strict_decoding_gives(
    quarters: np.ndarray, encode: Callable[..., bytes], file_format: str, mode: str, options: dict[str, Any], side: int
) -> None:
    data = encode(Image.fromarray(quarters[:, :32]).convert(mode), file_format, **options)
    assert np.array_equal(decode_blob(data, (side, side)), decode_picture(data).rgb)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(40), encode_png(QUARTER)[:-40]])
def test_a_blob_that_cannot_be_decoded_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadablePictureError):
        decode_blob(data, (16, 16))


def test_batches_before_a_damaged_one_are_still_given(
    store: Store, publish: Publish, draw_noise: Callable[..., np.ndarray]
) -> None:
    version = publish(COUNT)
    last = int(SampleOrder(COUNT, seed=0).draw(0, COUNT)[0][-1])
    cut_short(store.blobs.path(version.manifest()["blob"][last].as_py()))
    batches = VersionReader(store, version, 16, shrink, mirror=False, prefetch=10).batches(1, seed=0)
    order = name_pictures(samples(batches, COUNT - 1), originals(draw_noise))
    assert sorted([*order, last]) == list(range(COUNT))
    with pytest.raises(StoreError, match=f"p{last}#0"):
        next(batches)


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closing_leaves_no_thread(reader: Callable[..., VersionReader], taken: int) -> None:
    before = set(threading.enumerate())
    batches = reader(workers=3, prefetch=5).batches(4, seed=0)
    for _ in range(taken):
        next(batches)
    assert taken == 0 or any(thread.name.startswith("reader") for thread in threading.enumerate())
    batches.close()
    assert set(threading.enumerate()) <= before


def test_an_abandoned_iterator_leaves_no_thread(reader: Callable[..., VersionReader]) -> None:
    before = set(threading.enumerate())
    batches = reader(workers=3).batches(4, seed=0)
    next(batches)
    del batches
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_closing_does_not_wait_for_what_was_begun_ahead(
    reader: Callable[..., VersionReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Semaphore(0)
    gate = threading.Event()
    calls: list[int] = []
    decode = loader.decode_blob

    def wait_after_the_first_batch(data: bytes, side: int) -> np.ndarray:
        calls.append(1)
        if len(calls) > 4:
            started.release()
            assert gate.wait(20)
        return decode(data, side)

    monkeypatch.setattr(loader, "decode_blob", wait_after_the_first_batch)
    batches = reader(workers=1, prefetch=20, cache_bytes=0).batches(4, seed=0)
    next(batches)
    assert started.acquire(timeout=20)  # the worker is ahead of us, in the second batch
    closer = threading.Thread(target=batches.close)
    closer.start()
    gate.set()
    closer.join(20)
    assert not closer.is_alive()
    assert len(calls) < 4 + 20 * 4


def test_decoding_goes_on_while_the_caller_works(
    reader: Callable[..., VersionReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = threading.Semaphore(0)
    decode = loader.decode_blob

    def count(data: bytes, side: int) -> np.ndarray:
        ahead.release()
        return decode(data, side)

    monkeypatch.setattr(loader, "decode_blob", count)
    with closing(reader(workers=2, prefetch=3, cache_bytes=0).batches(2, seed=0)) as batches:
        next(batches)
        # nothing is asked for now, and still one batch and three more are decoded, but no fifth
        assert all(ahead.acquire(timeout=20) for _ in range(8))
        assert not ahead.acquire(timeout=0.05)


def test_memory_holds_the_cache_and_no_more(reader: Callable[..., VersionReader]) -> None:
    def arrays(reader: VersionReader) -> int:
        return sum(value.nbytes for value in vars(reader).values() if isinstance(value, np.ndarray))

    def held(cache_bytes: int) -> int:
        made = reader(cache_bytes=cache_bytes)
        with closing(made.batches(4, seed=0)) as batches:
            samples(batches, 30)
        return arrays(made)

    assert held(0) <= COUNT * 8
    assert held(3 * PICTURE_BYTES) - held(0) == 3 * PICTURE_BYTES + 3
    assert held(10**9) - held(0) == COUNT * (PICTURE_BYTES + 1)  # no more than the version needs


def test_labels_follow_the_pictures(store: Store, publish: Publish, draw_noise: Callable[..., np.ndarray]) -> None:
    labels = np.arange(2 * COUNT, dtype=np.float32).reshape(COUNT, 2)
    made = VersionReader(store, publish(COUNT), 16, shrink, labels=labels)
    known = originals(draw_noise)
    for pair, images in islice(zip(made.labelled_batches(4, seed=2), made.batches(4, seed=2), strict=True), 6):
        assert np.array_equal(pair.images, images)
        plain = np.array([bool((known == one).all(axis=(1, 2, 3)).any()) for one in images])
        shown = name_pictures(np.where(plain[:, None, None, None], images, images[..., ::-1]), known)
        assert pair.labels.dtype == np.float32
        assert np.array_equal(pair.labels, labels[shown])


def test_tags_become_labels_of_a_batch(store: Store, publish: Publish) -> None:
    version = publish(3, tags=["smile"])
    made = VersionReader(store, version, 16, shrink, labels=tag_labels(version.manifest(), ["red_hair", "smile"]))
    assert next(made.labelled_batches(2, seed=0)).labels.tolist() == [[0, 1], [0, 1]]


def test_pictures_without_one_class_are_named(reader: Callable[..., VersionReader]) -> None:
    with pytest.raises(KaobakoError, match=r"2 of 7 pictures .*\(p1#0, p5#0\): -1 is no class, -2 is several"):
        reader(labels=np.array([0, -1, 2, 0, 1, -2, 0]))
    assert reader(labels=np.arange(COUNT)) is not None
    assert reader(labels=-np.ones((COUNT, 2), np.float32)) is not None  # a number, not a class


def test_a_changed_manifest_is_not_trained_on(store: Store, publish: Publish) -> None:
    version = publish(3)
    pq.write_table(version.manifest().slice(1), version.folder / "manifest.parquet")
    with pytest.raises(StoreError, match=r"not the one that was published.*versions verify faces@v1"):
        VersionReader(store, version, 16, shrink)


def test_without_labels_every_label_is_empty(reader: Callable[..., VersionReader]) -> None:
    assert next(reader().labelled_batches(3, seed=0)).labels.shape == (3, 0)


def test_settings_that_make_no_sense_are_refused(reader: Callable[..., VersionReader]) -> None:
    with pytest.raises(ValueError, match="3 labels for the 7 pictures"):
        reader(labels=np.zeros((3, 1)))
    for workers in (0, -1):
        with pytest.raises(ValueError, match=f"workers must be at least 1, got {workers}"):
            reader(workers=workers)
    with pytest.raises(ValueError, match="at least 0, got -1 and"):
        reader(prefetch=-1)
    for batch, start in ((0, 0), (4, -1)):
        with pytest.raises(ValueError, match=f"got {batch} and {start}"):
            next(reader().batches(batch, seed=0, start_index=start))


def test_two_iterators_of_one_reader_do_not_disturb_each_other(reader: Callable[..., VersionReader]) -> None:
    shared = reader(mirror=True)
    expected = samples(reader(mirror=True).batches(2, seed=5), 12)
    left, right = shared.batches(2, seed=5), shared.batches(2, seed=9)
    mixed = [pair[0] for pair in islice(zip(left, right, strict=False), 6)]
    assert np.array_equal(np.concatenate(mixed), expected)
