"""Blobs: image files named by the SHA-256 of their bytes, written once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets.atomic import sync_file, sync_folder, write_bytes
from datasets.digests import digest_bytes, digest_file
from datasets.errors import StoreError

SUFFIXES = (".png", ".jpg")  # of one length
_DIGEST_LENGTH = 64  # hexadecimal digits


class BlobFolder:
    """`<store>/blobs/3f/3f9a….png`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unsynced: list[Path] | None = None

    def put(self, data: bytes, suffix: str = ".png") -> str:
        """Store bytes and return their digest. Bytes that are there already are read and compared, not written again.

        A blob that was damaged or cut short is replaced. Raises OSError.
        """
        if suffix not in SUFFIXES:
            raise ValueError(f"suffix must be one of {SUFFIXES}, not {suffix!r}")
        digest = digest_bytes(data)
        path = self.folder / digest[:2] / f"{digest}{suffix}"
        if not _holds(path, data):
            write_bytes(path, data, sync=self._unsynced is None)
        if self._unsynced is not None:
            self._unsynced.append(path)  # one that was there may be another writer's, not yet synced either
        return digest

    @contextmanager
    def syncing_together(self) -> Iterator[None]:
        """Sync the blobs that are put within the body at its end, all at once: for a shard's, before its facts.

        The first sync of many makes the file system write them all; one by one, each waits for the disk. Whoever
        speaks of a blob must do so after the body. Only for one thread at a time.
        """
        self._unsynced = []
        try:
            yield
            for path in self._unsynced:
                sync_file(path)
            for folder in sorted({path.parent for path in self._unsynced}):
                sync_folder(folder)
        finally:
            self._unsynced = None

    def path(self, digest: str) -> Path:
        """The file of a blob. Raises StoreError when there is none."""
        for suffix in SUFFIXES:
            path = self.folder / digest[:2] / f"{digest}{suffix}"
            if path.exists():
                return path
        raise StoreError(
            f"blob {digest} is missing from {self.folder}. Run the build again: it makes blobs anew from the source."
        )

    def digests(self) -> set[str]:
        """All blobs that are here, by one listing of the folders."""
        found: set[str] = set()
        if not self.folder.exists():
            return found
        length = _DIGEST_LENGTH + len(SUFFIXES[0])
        with os.scandir(self.folder) as folders:
            for folder in folders:
                if folder.is_dir():
                    names = os.listdir(folder.path)  # noqa: PTH208 - names alone: no object for each of a million files
                    found.update(n[:_DIGEST_LENGTH] for n in names if len(n) == length and n.endswith(SUFFIXES))
        return found

    def is_sound(self, digest: str) -> bool:
        """Whether the blob exists and its bytes still have its name. Reads the whole file."""
        try:
            return digest_file(self.path(digest)) == digest
        except (StoreError, OSError):
            return False


def _holds(path: Path, data: bytes) -> bool:
    """Whether a file holds exactly these bytes. A power cut may have left it shorter than it was meant to be."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False
