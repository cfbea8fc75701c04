"""Opening the pictures of a shard: blobs made by an earlier stage, decoded once each, and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.cache import INPUT
from datasets.errors import StoreError
from datasets.pictures import UnreadablePictureError, decode_picture
from tasks.stage import Facts, Shard


def open_blobs(shard: Shard, column: str) -> Iterator[tuple[str, np.ndarray]]:
    """(input digest, uint8 (H, W, 3)) for each item, by the blob that `column` names. Errors as `open_blob`."""
    for row in shard.rows():
        yield row[INPUT], open_blob(shard, row[column])


def open_blob(shard: Shard, blob: str) -> np.ndarray:
    """The pixels of a blob, uint8 (H, W, 3).

    Raises StoreError for one that is gone or damaged: ours, so never a ledger row.
    """
    path = shard.store.blobs.path(blob)
    try:
        return decode_picture(path.read_bytes()).rgb
    except UnreadablePictureError as error:
        raise StoreError(
            f"the blob {path} is damaged ({error}). Delete it and run the build again: it is made anew."
        ) from error


def measure_blobs(
    crops: Shard, params: Any, measure_pixels: Callable[[np.ndarray, Any], dict[str, Any]], facts: pa.Schema
) -> Facts:
    """What `measure_pixels` finds in each crop: one row of `facts` per distinct pixel digest."""
    rows = []
    for digest, rgb in open_blobs(crops, "crop_blob"):
        rows.append({INPUT: digest, **measure_pixels(rgb, params)})
        crops.measure_along(digest, rgb)
    return Facts(pa.Table.from_pylist(rows, schema=facts), opened=len(rows))
