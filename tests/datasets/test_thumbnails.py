"""Thumbnails: small, the same for the same pixels, and nobody's truth."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.digests import digest_pixels
from datasets.store import Store
from datasets.thumbnails import SIDE, ThumbnailFolder, encode_thumbnail

DIGEST = "3f" + "0" * 62


@pytest.fixture
def folder(tmp_path: Path) -> ThumbnailFolder:
    return ThumbnailFolder(tmp_path / "thumbnails")


def read(folder: ThumbnailFolder, digest: str = DIGEST) -> np.ndarray:
    path = folder.path(digest)
    assert path is not None
    with Image.open(path) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_it_lies_below_the_store_under_the_first_two_digits(store: Store, quarters: np.ndarray) -> None:
    digest = digest_pixels(quarters)
    store.thumbnails.put(digest, quarters)
    assert store.thumbnails.path(digest) == store.root / "thumbnails" / digest[:2] / f"{digest}.jpg"
    assert [path.name for path in (store.root / "thumbnails" / digest[:2]).iterdir()] == [f"{digest}.jpg"]


def test_it_shows_the_picture_the_right_way_round(folder: ThumbnailFolder, quarters: np.ndarray) -> None:
    folder.put(DIGEST, quarters.repeat(20, axis=0).repeat(20, axis=1))
    small = read(folder)
    height, width = small.shape[:2]
    assert (height, width) == (75, 112)
    for y, row in ((height // 4, 4), (3 * height // 4, 28)):
        for x, column in ((width // 4, 4), (3 * width // 4, 44)):
            assert np.abs(small[y, x] - quarters[row, column]).max() < 12


@pytest.mark.parametrize(
    ("shape", "small"),
    [
        ((96, 96), (96, 96)),
        ((112, 20), (112, 20)),
        ((1, 1), (1, 1)),
        ((113, 113), (112, 112)),
        ((256, 256), (112, 112)),
        ((3000, 1), (112, 1)),
        ((600, 900), (75, 112)),
    ],
)
def test_the_long_side_is_bounded_and_nothing_is_enlarged(
    folder: ThumbnailFolder, shape: tuple[int, int], small: tuple[int, int]
) -> None:
    folder.put(DIGEST, np.full((*shape, 3), 90, np.uint8))
    assert read(folder).shape[:2] == small
    assert max(small) <= SIDE


def test_fine_stripes_become_grey_and_no_pattern(folder: ThumbnailFolder) -> None:
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    folder.put(DIGEST, stripes)
    inner = read(folder)[4:-4, 4:-4]
    assert (inner.min() > 115, inner.max() < 140) == (True, True)


def test_equal_pixels_give_equal_bytes_however_they_lie_in_memory(draw_noise: Callable[..., np.ndarray]) -> None:
    picture = draw_noise(3, 300)
    turned = np.asfortranarray(picture)
    window = np.zeros((400, 400, 3), np.uint8)
    window[50:350, 20:320] = picture
    assert encode_thumbnail(picture) == encode_thumbnail(turned) == encode_thumbnail(window[50:350, 20:320])
    assert len(encode_thumbnail(picture)) < 20_000


def test_putting_again_mends_a_damaged_one(folder: ThumbnailFolder, quarters: np.ndarray) -> None:
    folder.put(DIGEST, quarters)
    path = folder.path(DIGEST)
    assert path is not None
    sound = path.read_bytes()
    path.write_bytes(sound[:50])
    folder.put(DIGEST, quarters)
    assert path.read_bytes() == sound


@pytest.mark.parametrize("digest", ["", None, "../../../etc/passwd", "AB" * 32, "3f" * 31, DIGEST + "\n", "ab" * 32])
def test_what_is_not_there_or_not_a_digest_has_no_path(folder: ThumbnailFolder, digest: str | None) -> None:
    assert folder.path(digest) is None


@pytest.mark.parametrize("digest", ["", "../../escape", "3f"])
def test_only_digests_name_thumbnails(folder: ThumbnailFolder, quarters: np.ndarray, digest: str) -> None:
    with pytest.raises(ValueError, match="not a SHA-256"):
        folder.put(digest, quarters)
    assert not folder.folder.exists()


def test_an_empty_file_counts_as_absent(folder: ThumbnailFolder, quarters: np.ndarray) -> None:
    folder.put(DIGEST, quarters)
    path = folder.path(DIGEST)
    assert path is not None
    path.write_bytes(b"")
    assert folder.path(DIGEST) is None


def test_a_full_disk_is_told_and_leaves_the_old_one(
    folder: ThumbnailFolder, quarters: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put(DIGEST, quarters)
    path = folder.path(DIGEST)
    assert path is not None
    sound = path.read_bytes()

    def fill(self: Path, data: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(OSError, match="No space left"):
        folder.put(DIGEST, quarters[::-1].copy())
    assert path.read_bytes() == sound
    assert list(path.parent.iterdir()) == [path]


def test_many_writers_of_one_thumbnail_leave_a_whole_one(folder: ThumbnailFolder, quarters: np.ndarray) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: folder.put(DIGEST, quarters), range(64)))
    path = folder.path(DIGEST)
    assert path is not None
    assert path.read_bytes() == encode_thumbnail(quarters)
    assert list(path.parent.iterdir()) == [path]
