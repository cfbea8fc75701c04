"""The reader of a plain folder, readers of other shapes, and batches that several processes share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.errors import SourceError, StoreError
from datasets.labels import LabelError
from datasets.loader import FolderReader, SampleOrder, VersionReader
from datasets.loader.reader import to_grey
from datasets.picture_folder import list_folder
from datasets.pictures import encode_png
from datasets.pictures.alpha import encode_png_with_alpha
from datasets.store import Store

COUNT = 6
Draw = Callable[..., np.ndarray]
PICTURES_OF_SEED_3 = [2, 4, 6, 5, 4, 1, 0, 3, 2, 4]
COINS_OF_SEED_3 = [1, 0, 1, 0, 0, 0, 1, 0, 1, 0]
PICTURES_OF_THE_LARGEST_SEED = [1, 3, 1, 6, 4, 5, 3, 0, 2, 1]


def shrink(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized if resized.ndim == 3 else resized[:, :, None])


@pytest.fixture
def folder(tmp_path: Path, draw_noise: Draw) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    for k in range(COUNT):
        (root / f"{k}.png").write_bytes(encode_png(draw_noise(k)))
    return root


def read_one(path: Path, resolution: int | tuple[int, int] = 16, **options: Any) -> np.ndarray:
    """The only picture of a folder: uint8 (channels, height, width)."""
    reader = FolderReader(list_folder(path), resolution, shrink, mirror=False, **options)
    picture: np.ndarray = next(reader.batches(1, seed=0))[0]
    return picture


def test_a_folder_gives_the_samples_that_a_version_gives(
    folder: Path, store: Store, publish: Callable[..., Any], draw_noise: Draw
) -> None:
    """Both list the same pictures in the same order, so every batch must agree, mirrored ones, too."""
    ours = FolderReader(list_folder(folder), 16, shrink, workers=2)
    theirs = VersionReader(store, publish(COUNT), 16, shrink, workers=3, cache_bytes=0)
    assert ours.count == COUNT
    for a, b in islice(zip(ours.batches(4, seed=5), theirs.batches(4, seed=5), strict=True), 8):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("start", [0, 5])
def test_the_parts_of_all_processes_are_the_batch(folder: Path, world: int, start: int) -> None:
    labels = np.arange(COUNT)
    reader = FolderReader(list_folder(folder), 16, shrink, labels=labels)
    whole = reader.labelled_batches(8, seed=2, start_index=start)
    parts = [reader.labelled_batches(8, seed=2, start_index=start, rank=rank, world=world) for rank in range(world)]
    for expected, *found in islice(zip(whole, *parts, strict=True), 5):
        assert all(len(part.images) == 8 // world for part in found)
        assert np.array_equal(np.concatenate([part.images for part in found]), expected.images)
        assert np.array_equal(np.concatenate([part.labels for part in found]), expected.labels)


def test_shares_that_make_no_sense_are_refused(folder: Path) -> None:
    reader = FolderReader(list_folder(folder), 16, shrink)
    with pytest.raises(ValueError, match="batch of 8 cannot be shared by 3 processes"):
        next(reader.batches(8, seed=0, rank=0, world=3))
    for rank, world in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"got {rank} of {world}"):
            next(reader.batches(8, seed=0, rank=rank, world=world))


def test_grey_is_luma_as_scoring_sees_it(tmp_path: Path, draw_noise: Draw) -> None:
    noise = draw_noise(3)
    (tmp_path / "one.png").write_bytes(encode_png(noise))
    found = read_one(tmp_path, channels=1)
    luma = 0.299 * noise[..., 0] + 0.587 * noise[..., 1] + 0.114 * noise[..., 2]
    assert found.shape == (1, 16, 16)
    assert np.abs(found[0] - luma).max() <= 0.5 + 1e-9
    assert np.array_equal(found, to_grey(noise.transpose(2, 0, 1)))


def test_grey_pictures_become_three_equal_channels(tmp_path: Path, draw_noise: Draw) -> None:
    grey = draw_noise(0)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_one(tmp_path), np.stack([grey] * 3))
    assert np.array_equal(read_one(tmp_path, channels=1)[0], grey)
    assert np.array_equal(read_one(tmp_path, channels=4), np.stack([grey, grey, grey, np.full_like(grey, 255)]))


def test_transparency_is_kept_for_four_channels_alone(tmp_path: Path) -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:, 8:] = (250, 100, 50)
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = 255
    (tmp_path / "one.png").write_bytes(encode_png_with_alpha(rgb, alpha))
    whole = read_one(tmp_path, channels=4)
    assert np.array_equal(whole[3], alpha)
    assert (whole[:3] == np.array([250, 100, 50])[:, None, None]).all()  # clear pixels: of the nearest that is seen
    over_white = read_one(tmp_path)
    assert (over_white[:, :, :8] == 255).all()
    assert np.array_equal(over_white[:, :, 8:], whole[:3, :, 8:])
    half = read_one(tmp_path, 8, channels=4)
    assert (half[:3] == np.array([250, 100, 50])[:, None, None]).all()  # no dark fringe
    assert np.array_equal(half[3], alpha[::2, ::2])


def test_larger_pictures_are_reduced_by_the_given_way(tmp_path: Path, draw_noise: Draw) -> None:
    (tmp_path / "one.png").write_bytes(encode_png(draw_noise(0, 48)))
    assert np.array_equal(read_one(tmp_path).transpose(1, 2, 0), shrink(draw_noise(0, 48), 16, 16))


def test_folders_and_versions_need_not_be_square(
    tmp_path: Path, store: Store, publish: Callable[..., Any], draw_noise: Draw
) -> None:
    noise = draw_noise(0, 32)[:24]
    (tmp_path / "one.png").write_bytes(encode_png(noise))
    assert np.array_equal(read_one(tmp_path, (24, 32)).transpose(1, 2, 0), noise)
    assert read_one(tmp_path, (12, 16)).shape == (3, 12, 16)
    with pytest.raises(SourceError, match="32x24: not square"):
        read_one(tmp_path, 16)

    blob = store.blobs.put(encode_png(noise))
    version = publish(2, blob=blob, width=32, height=24)
    reader = VersionReader(store, version, (12, 16), shrink, mirror=False)
    assert (reader.height, reader.width) == (12, 16)
    assert np.array_equal(next(reader.batches(1, 0))[0].transpose(1, 2, 0), shrink(noise, 16, 12))
    grey = VersionReader(store, version, (24, 32), shrink, mirror=False, channels=1)
    assert np.array_equal(next(grey.batches(1, 0))[0], to_grey(noise.transpose(2, 0, 1)))
    with pytest.raises(StoreError, match="are not of the aspect of 24x32"):
        VersionReader(store, version, (32, 24), shrink)
    with pytest.raises(StoreError, match="are not squares"):
        VersionReader(store, version, 16, shrink)


def test_unfit_pictures_are_found_before_the_first_batch(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(SourceError, match="1 of 6 pictures"):
        FolderReader(list_folder(folder), 16, shrink)


def test_a_picture_that_changes_meanwhile_stops_the_training(folder: Path, draw_noise: Draw) -> None:
    reader = FolderReader(list_folder(folder), 16, shrink, cache_bytes=0)
    (folder / "4.png").write_bytes(encode_png(draw_noise(50)))
    with pytest.raises(SourceError, match=r"4\.png of .* was changed while"):
        next(reader.batches(COUNT, seed=0))
    (folder / "4.png").unlink()
    with pytest.raises(SourceError, match=r"4\.png of .* cannot be read: No such file"):
        next(reader.batches(COUNT, seed=0))


def test_pictures_without_a_class_are_named(folder: Path) -> None:
    with pytest.raises(LabelError, match=r"1 of 6 pictures .*\(2\.png\): -1 is no class"):
        FolderReader(list_folder(folder), 16, shrink, labels=np.array([0, 1, -1, 0, 1, 0]))
    with pytest.raises(ValueError, match="2 labels for the 6 pictures"):
        FolderReader(list_folder(folder), 16, shrink, labels=np.zeros((2, 1)))


def test_orders_are_those_of_ever_and_without_a_warning() -> None:
    """Kept from before, so that old runs go on with the pictures that they would have seen."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures, coins = SampleOrder(7, seed=3).draw(12, 10)
        SampleOrder(7, seed=2**64 - 1).draw(0, 3)
    assert pictures.tolist() == PICTURES_OF_SEED_3
    assert coins.astype(int).tolist() == COINS_OF_SEED_3
    assert SampleOrder(7, seed=2**63 - 1).draw(12, 10)[0].tolist() == PICTURES_OF_THE_LARGEST_SEED
    assert not np.array_equal(SampleOrder(9, 2**64 - 1).draw(0, 9)[0], SampleOrder(9, 2**64 - 2).draw(0, 9)[0])
