"""Blobs: image files named by the SHA-256 of their bytes, written once."""

from __future__ import annotations

import os
from pathlib import Path

from datasets.atomic import write_bytes
from datasets.digests import digest_bytes, digest_file
from datasets.errors import StoreError

SUFFIXES = (".png", ".jpg")  # of one length
_DIGEST_LENGTH = 64  # hexadecimal digits


class BlobFolder:
    """`<store>/blobs/3f/3f9a….png`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: bytes, suffix: str = ".png") -> str:
        """Store bytes and return their digest. Writing the same bytes again costs one look at the disk."""
        if suffix not in SUFFIXES:
            raise ValueError(f"suffix must be one of {SUFFIXES}, not {suffix!r}")
        digest = digest_bytes(data)
        path = self.folder / digest[:2] / f"{digest}{suffix}"
        if not path.exists():
            write_bytes(path, data)
        return digest

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
