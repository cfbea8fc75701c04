"""Listing a folder of pictures: once, without following links out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LINK_OUTSIDE = "a link that leaves the source folder: put the file itself there"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file: its size in bytes, and a stamp (device, inode, size, mtime, ctime) that its content changes."""

    size: int
    stamp: str
    outside: bool = False  # a link that leaves the folder: named, never read


def list_files(folder: Path, recursive: bool = True) -> dict[str, FoundFile]:
    """Regular files below `folder` by relative path ("/" as separator), sorted; hidden names are left out.

    Links to files are taken when they end inside the folder, and marked when they leave it; links to folders are not
    followed. A file that vanishes meanwhile is left out.
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
            name = Path(entry.path).relative_to(root).as_posix()
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                yield name, FoundFile(0, "", outside=True)
            elif entry.is_file() and (found := _look_at(entry)) is not None:
                yield name, found


def _look_at(entry: os.DirEntry[str]) -> FoundFile | None:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    stamp = f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
    return FoundFile(status.st_size, stamp)
