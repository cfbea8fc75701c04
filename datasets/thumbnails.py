"""Thumbnails: a small JPEG of every crop, drawn while its pixels are in hand, so that looking later opens no picture.

They are a convenience, not the truth: any of them may be deleted at any time. So they are not synced to the disk, and
whoever reads one must bear that it is absent or damaged.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.atomic import write_bytes

SIDE = 112  # pixels of the long side: a cell of a contact sheet
_QUALITY = 80
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ThumbnailFolder:
    """`<store>/thumbnails/3f/3f9a….jpg`, named by the pixel digest of a crop or by the digest of a source file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, digest: str, rgb: np.ndarray) -> None:
        """Draw and keep the thumbnail of a picture, in place of one that is there.

        digest: 64 hexadecimal digits, else ValueError. rgb: uint8 (H, W, 3), of any size. Readers see the old file or
        the new, never a part; a power cut may lose it. Raises OSError when it cannot be written.
        """
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a SHA-256 digest: thumbnails are named by nothing else")
        write_bytes(self._path(digest), encode_thumbnail(rgb), sync=False)

    def path(self, digest: str | None) -> Path | None:
        """The file of a thumbnail; None when there is none, or an empty one, as a power cut leaves it."""
        if not digest or not _DIGEST.fullmatch(digest):
            return None
        path = self._path(digest)
        try:
            return path if path.stat().st_size else None
        except OSError:
            return None

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / f"{digest}.jpg"


def encode_thumbnail(rgb: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as JPEG bytes, reduced to a long side of SIDE pixels; smaller pictures keep their size."""
    image = Image.fromarray(rgb)
    # whole blocks are averaged first, to less than twice the size: on large crops that is most of the time saved
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=1.0)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()
