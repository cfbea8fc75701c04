"""Listing a folder of pictures: once, without following links out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file: its size in bytes, and a stamp (device, inode, size, mtime, ctime) that its content changes."""

    size: int
    stamp: str


def list_files(folder: Path, recursive: bool = True) -> dict[str, FoundFile]:
    """Regular files below `folder` by relative path ("/" as separator), sorted; hidden names are left out.

    Links to files are taken when they end inside the folder; links to folders are not followed.
    """
    if not folder.is_dir():
        return {}
    root = folder.resolve()
    return dict(sorted(_walk(root, root, recursive)))


def readable_name(name: str) -> str:
    """A file's name as text that a table can hold: bytes that are not UTF-8 are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk(root: Path, folder: Path, recursive: bool) -> Iterator[tuple[str, FoundFile]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if recursive:
                    yield from _walk(root, Path(entry.path), recursive)
                continue
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                continue
            if entry.is_file():
                status = entry.stat()
                stamp = f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
                yield Path(entry.path).relative_to(root).as_posix(), FoundFile(status.st_size, stamp)
