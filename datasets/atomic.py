"""Writes that are there completely or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_BUFFER = 1 << 20  # bytes


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that it survives a power cut with what is put into it."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_file(path: Path) -> None:
    """Make a file's content survive a power cut. Raises OSError."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def write_atomically(path: Path, write: Callable[[Path], None], sync: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there in one step.

    Whatever goes wrong (an exception, a kill, a full disk), `path` holds the old content or the new, never a part.
    sync: make it survive a power cut, too; else the caller does so later, or can bear the loss.
    Raises what `write` raises, or OSError, after the temporary file is gone. A kill leaves the temporary file behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        make_folder(path.parent)
        write(temporary)
        if sync:
            sync_file(temporary)
        temporary.replace(path)
        if sync:
            sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):  # a failing disk may refuse this too; the first error is the one that tells
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a failing write or fsync does not say of which file
        raise


def write_bytes(path: Path, data: bytes, sync: bool = True) -> None:
    """Write `data` to `path` in one step. sync: as in write_atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write, sync)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` in one step."""
    write_bytes(path, text.encode())


def write_parquet(path: Path, table: pa.Table, rows_per_group: int | None = None) -> None:
    """Write a table as Parquet (zstd, with a checksum for each page) to `path` in one step.

    rows_per_group: smaller groups let a reader of few rows of a sorted table skip the others.
    """
    write_atomically(path, lambda temporary: write_table(temporary, table, rows_per_group))


def write_table(path: Path, table: pa.Table, rows_per_group: int | None = None) -> None:
    """Write a table as Parquet into a file, as part of a write that is made atomic around it."""
    # Arrow itself would write every page header with a call of its own, and lose the cause of a failing close
    with path.open("wb", buffering=_BUFFER) as stream:
        pq.write_table(table, stream, rows_per_group, compression="zstd", write_page_checksum=True)
