"""Digests: SHA-256 of bytes, files, pixels, settings and tables."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.schema import IDENTITY_COLUMNS


def digest_bytes(data: bytes) -> str:
    """SHA-256 of `data`, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form: sorted keys, no white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return digest_bytes(text.encode())


def digest_pixels(rgb: np.ndarray) -> str:
    """SHA-256 of a picture's size and decoded pixels.

    rgb: uint8 (H, W, 3). Files re-encoded without loss have equal digests; a picture and its transpose do not.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"expected uint8 pixels of shape (H, W, 3), got {rgb.dtype} {rgb.shape}")
    height, width = rgb.shape[:2]
    hasher = hashlib.sha256(f"rgb8 {width}x{height}\n".encode())
    hasher.update(np.ascontiguousarray(rgb).data)
    return hasher.hexdigest()


def digest_rows(table: pa.Table, columns: tuple[str, ...], order_by: str) -> str:
    """SHA-256 over the named columns, row by row in the order of one of them.

    Rows are canonical JSON, so that the digest depends on values alone, not on Arrow's chunks or encodings.
    Streams in batches: memory does not grow with the table.
    """
    hasher = hashlib.sha256(json.dumps(columns).encode())
    chosen = table.select(list(columns)).sort_by(order_by)
    for batch in chosen.to_batches(max_chunksize=20_000):
        values = [batch.column(name).to_pylist() for name in columns]
        for row in zip(*values, strict=True):
            hasher.update(b"\n")
            hasher.update(json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode())
    return hasher.hexdigest()


def content_digest(manifest: pa.Table) -> str:
    """The digest that names a version's content: its identity columns in crop_id order (DESIGN section 5)."""
    return digest_rows(manifest, IDENTITY_COLUMNS, order_by="crop_id")
