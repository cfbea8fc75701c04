"""Listing a folder of pictures: once, without following links out of it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

LINK_OUTSIDE = "a link that leaves the source folder: put the file itself there"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file: its size in bytes, and a stamp (device, inode, size, mtime, ctime) that its content changes."""

    size: int
    stamp: str
    outside: bool = False  # a link that leaves the folder: named, never read


@dataclass(frozen=True, slots=True)
class FileList:
    """Files as columns: position k of each list speaks of one file. Their order is always the same.

    A list of hundreds of thousands of files is made at every build, so there is no object per file.
    """

    names: list[str] = field(default_factory=list)  # relative to the folder, "/" as separator
    sizes: list[int] = field(default_factory=list)  # in bytes
    stamps: list[str] = field(default_factory=list)  # see FoundFile; "" for links that leave the folder
    outside: set[str] = field(default_factory=set)  # names of links that leave the folder

    def by_name(self) -> dict[str, FoundFile]:
        """The same files by name."""
        rows = zip(self.names, self.sizes, self.stamps, strict=True)
        return {name: FoundFile(size, stamp, name in self.outside) for name, size, stamp in rows}


def list_files(folder: Path, recursive: bool = True, suffixes: Collection[str] | None = None) -> FileList:
    """Regular files below `folder`; hidden names are left out.

    suffixes: lower-case endings without the dot; files with others are left out. Links to files are taken when they end
    inside the folder, and named in `outside`, whatever their ending, when they leave it; links to folders are not
    followed. A file that vanishes meanwhile is left out. A folder that is not there holds nothing.
    """
    found = FileList()
    if folder.is_dir():
        root = folder.resolve()
        _walk(os.fspath(root), "", root, recursive, suffixes, found)
    return found


def stamp_file(path: Path) -> str:
    """The stamp of one file, as FoundFile has it. Raises OSError."""
    return _stamp(path.stat())


def readable_name(name: str) -> str:
    """A file's name as text that a table can hold: bytes that are not UTF-8 are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def readable_names(names: list[str]) -> list[str]:
    """The same of many: the list itself, where all of them are text already."""
    try:
        "\0".join(names).encode()
    except UnicodeEncodeError:
        return [readable_name(name) for name in names]
    return names


def _walk(
    folder: str, prefix: str, root: Path, recursive: bool, suffixes: Collection[str] | None, found: FileList
) -> None:
    """Add the files of `folder` to `found`. prefix: its path relative to the root, "/" at the end."""
    names, sizes, stamps = found.names, found.sizes, found.stamps
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=attrgetter("name"))  # the file system's order is no order
    for entry in entries:
        name = entry.name
        if name[0] == ".":
            continue
        if not entry.is_file(follow_symlinks=False):
            if entry.is_dir(follow_symlinks=False):
                if recursive:
                    _walk(entry.path, f"{prefix}{name}/", root, recursive, suffixes, found)
                continue
            if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root):
                found.outside.add(prefix + name)
                names.append(prefix + name)
                sizes.append(0)
                stamps.append("")
                continue
            if not Path(entry.path).is_file():  # a pipe, a device; a link to nothing, to itself, to a folder
                continue
        if suffixes is not None and _suffix(name) not in suffixes:
            continue
        try:
            status = entry.stat()
        except FileNotFoundError:  # it vanished meanwhile
            continue
        names.append(prefix + name)
        sizes.append(status.st_size)
        stamps.append(_stamp(status))


def _suffix(name: str) -> str:
    """The ending in lower case, without its dot; "" for none."""
    stem, _, suffix = name.rpartition(".")
    return suffix.lower() if stem else ""


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
