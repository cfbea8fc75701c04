"""Blobs as an export reads them: checked against their digests, decoded once, in threads, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from datasets.digests import digest_bytes
from datasets.errors import StoreError
from datasets.exports.plan import ExportError, ExportPlan
from datasets.pictures import UnreadablePictureError, decode_picture

Item = TypeVar("Item")
Result = TypeVar("Result")
WORKERS = min(8, os.cpu_count() or 1)


def read_blob(plan: ExportPlan, row: int) -> bytes:
    """The bytes of a row's picture. Raises ExportError, naming crop and blob, when they are gone or damaged."""
    crop_id, blob = plan.crop_ids[row], plan.blobs[row]
    try:
        data = plan.store.blobs.path(blob).read_bytes()
    except (OSError, StoreError) as error:
        raise ExportError(f"the picture of {crop_id}, blob {blob}, cannot be read: {error}") from error
    if (found := digest_bytes(data)) != blob:
        raise ExportError(
            f"the picture of {crop_id}, blob {blob}, is damaged: its bytes are {found}. The same command with "
            "--dry-run --verify lists all damaged ones: delete those blobs, build again, and run the export again."
        )
    return data


def read_pixels(plan: ExportPlan, row: int, side: int, channels: int) -> np.ndarray:
    """A row's pixels: uint8 (side, side, channels), channels 3 (RGB) or 1 (grey).

    Raises ExportError when the blob is damaged, does not decode, or is not what its header promised.
    """
    data = read_blob(plan, row)
    try:
        picture = decode_picture(data)
    except UnreadablePictureError as error:
        raise ExportError(f"the picture of {plan.crop_ids[row]}, blob {plan.blobs[row]}, is {error}") from error
    expected = {1: "L", 3: "RGB"}[channels]
    if picture.rgb.shape[:2] != (side, side) or picture.facts.mode != expected:
        height, width = picture.rgb.shape[:2]
        raise ExportError(
            f"the picture of {plan.crop_ids[row]}, blob {plan.blobs[row]}, decodes to {width}x{height} "
            f"{picture.facts.mode}, not to {side}x{side} {expected}"
        )
    return picture.rgb[:, :, :channels]


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int = WORKERS) -> Iterator[Result]:
    """function(item) in threads, results in the order of the items; at most two per thread are in memory.

    Raises what the function raises at its turn; nothing that comes after is yielded.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="export") as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
