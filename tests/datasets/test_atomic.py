"""Writes that are there completely or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.atomic import make_folder, write_atomically, write_bytes, write_parquet, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_are_made_and_old_content_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_bytes(path, b"old and longer")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "顔箱")
    assert (tmp_path / "file").read_bytes() == "顔箱".encode()


@pytest.mark.parametrize("error", [RuntimeError("half way"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_an_exception_leaves_the_old_content_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"a part of the ne")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_any_step_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr({"fsync": os, "replace": Path}[call], call, fail)
    with pytest.raises(OSError, match=r"No space.*file"):  # says of which file
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_the_file_is_synced_before_it_gets_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    seen: list[tuple[bool, bool]] = []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        seen.append((Path(f"/proc/self/fd/{descriptor}").resolve().is_dir(), path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_bytes(path, b"new")
    assert seen == [(False, False), (True, True)]


def test_parquet_pages_carry_checksums(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    table = pa.table({"a": list(range(5000))})
    write_parquet(path, table)
    assert pq.read_table(path, page_checksum_verification=True) == table
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises((OSError, pa.ArrowException)):
        pq.read_table(path, page_checksum_verification=True)


def test_the_first_error_is_told_when_cleaning_up_fails_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, "cannot remove")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(OSError, match="full"):
        write_atomically(tmp_path / "file", write)
    monkeypatch.undo()
    assert not (tmp_path / "file").exists()


def test_new_folders_are_synced_into_those_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path.name, "a"]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_a_table_is_written_in_few_calls(tmp_path: Path) -> None:
    """Arrow's own file would make a call for every page header: hundreds for a small table of many columns."""
    before = int(Path("/proc/self/io").read_text().split("syscw: ")[1].split()[0])
    write_parquet(tmp_path / "table.parquet", pa.table({f"c{k}": list(range(50)) for k in range(60)}))
    after = int(Path("/proc/self/io").read_text().split("syscw: ")[1].split()[0])
    assert after - before < 30
