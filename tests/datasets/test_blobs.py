"""Blobs: named by their bytes, written once."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datasets.blobs import BlobFolder
from datasets.errors import StoreError


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "blobs")


def test_a_blob_lies_under_its_digest(blobs: BlobFolder) -> None:
    digest = blobs.put(b"picture")
    assert digest == hashlib.sha256(b"picture").hexdigest()
    assert blobs.path(digest) == blobs.folder / digest[:2] / f"{digest}.png"
    assert blobs.path(digest).read_bytes() == b"picture"


def test_putting_again_writes_nothing(blobs: BlobFolder) -> None:
    path = blobs.path(blobs.put(b"picture"))
    os.utime(path, ns=(1, 1))
    blobs.put(b"picture")
    assert path.stat().st_mtime_ns == 1


@pytest.mark.parametrize("damage", [b"", b"pict", b"pidture"], ids=["empty", "cut", "flipped"])
def test_putting_again_mends_a_damaged_blob(blobs: BlobFolder, damage: bytes) -> None:
    """A power cut leaves a file shorter than it was meant to be, if it was not synced."""
    path = blobs.path(blobs.put(b"picture"))
    path.write_bytes(damage)
    blobs.put(b"picture")
    assert path.read_bytes() == b"picture"


def test_blobs_put_together_are_synced_before_the_body_is_left(
    blobs: BlobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = blobs.path(blobs.put(b"old"))
    synced: list[str] = []
    really_sync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        really_sync(descriptor)

    monkeypatch.setattr("datasets.atomic.os.fsync", watch)
    with blobs.syncing_together():
        paths = {old, *(blobs.path(blobs.put(data)) for data in (b"old", b"new", b"newer"))}
        assert not {str(path) for path in paths} & set(synced)
    assert {str(path) for path in (*paths, *(path.parent for path in paths))} <= set(synced)
    synced.clear()
    assert str(blobs.path(blobs.put(b"alone")).parent) in synced


def test_a_missing_blob_is_an_error_that_says_what_to_do(blobs: BlobFolder) -> None:
    with pytest.raises(StoreError, match="Run the build again"):
        blobs.path("0" * 64)


def test_a_flipped_byte_is_found(blobs: BlobFolder) -> None:
    digest = blobs.put(b"picture")
    assert blobs.is_sound(digest)
    blobs.path(digest).write_bytes(b"pidture")
    assert not blobs.is_sound(digest)
    blobs.path(digest).unlink()
    assert not blobs.is_sound(digest)


def test_other_suffixes_are_refused(blobs: BlobFolder) -> None:
    with pytest.raises(ValueError, match="suffix"):
        blobs.put(b"code", suffix=".py")
    assert blobs.path(blobs.put(b"photo", suffix=".jpg")).suffix == ".jpg"


def test_listing_leaves_out_what_is_no_blob(blobs: BlobFolder) -> None:
    assert blobs.digests() == set()
    digests = {blobs.put(b"a"), blobs.put(b"b", suffix=".jpg")}
    one = blobs.path(min(digests))
    one.with_name(f".{one.name}.1234.tmp").write_bytes(b"half")
    one.with_name("notes.txt").write_bytes(b"")
    (blobs.folder / "stray").write_bytes(b"")
    assert blobs.digests() == digests


def test_many_threads_put_the_same_bytes(blobs: BlobFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda k: blobs.put(bytes([k % 3]) * 10_000), range(60)))
    assert blobs.digests() == digests
    assert all(blobs.is_sound(digest) for digest in digests)
    assert [p.name for p in blobs.folder.rglob("*.tmp")] == []
