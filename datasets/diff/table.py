"""The table of differences between two versions: its columns, its words, and how a row reads as a sentence."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from datasets.atomic import write_atomically, write_parquet
from datasets.errors import StoreError


class Change(StrEnum):
    """What became of an item, in the order that tables are read."""

    ADDED = "added"  # was not published, is now
    REMOVED = "removed"  # was published, is not now
    PIXELS = "pixels"  # published in both, with another picture
    METADATA = "metadata"  # published in both with the same picture; what is said of it differs
    VERDICT = "verdict"  # published in neither; another stage, another reason, or absent from one of them


class Cause(StrEnum):
    """Why an item changed. Where several causes hold, the first of this list is named (docs/diff-and-why.md)."""

    DECISION = "decision"  # a person has decided, or decided otherwise
    NEW_POST = "new_post"  # the source has the post now
    SOURCE_GONE = "source_gone"  # the source has lost the post, or its file
    SOURCE_FILE_CHANGED = "source_file_changed"  # the same post, other bytes
    SOURCE_METADATA_CHANGED = "source_metadata_changed"  # rating, score, tags, flags, path
    SETTING = "setting"  # something that a stage measures with, or a stage switched on or off
    STAGE_VERSION = "stage_version"  # the stage measures differently since
    WEIGHTS = "weights"  # a network or detector has other weights
    THRESHOLD = "threshold"  # the recipe asks for more or less of what was measured
    DUPLICATE_OF_NEW = "duplicate_of_new"  # a copy of something that came in
    KEEPER_GONE = "keeper_gone"  # what it was a copy of is out
    SET_CHANGED = "set_changed"  # a percentile moved because others came or went
    LIBRARIES = "libraries"  # another library, Python or device, and nothing else explains it
    UPSTREAM = "upstream"  # another item changed, and moved this one
    UNKNOWN = "unknown"  # the two versions do not say


PUBLISHED = "published"
ABSENT = "absent"

# One row per item whose state differs. An item is a crop, or a post that gave no crop.
DIFF = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),  # the later version's crop_id (else post_id) if it has one
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("change", pa.string(), nullable=False),  # a Change
        pa.field("before", pa.string(), nullable=False),  # `published`, `<stage>: <reason>` or `absent`
        pa.field("after", pa.string(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),  # a Cause
        pa.field("stage", pa.string()),  # where the cause acts; null when it is no stage's
        pa.field("parameter", pa.string()),  # the recipe's key, e.g. clean.min_blur
        pa.field("value", pa.float64()),  # what was measured of the item
        pa.field("threshold_before", pa.float64()),  # null when the parameter is no number, or switched off
        pa.field("threshold_after", pa.float64()),
        pa.field("who", pa.string()),  # the person who decided
        pa.field("detail", pa.string(), nullable=False),  # the cause in words, figures included
        pa.field("pixel_digest_before", pa.string()),  # of the crop before upscaling; null where there is none
        pa.field("pixel_digest_after", pa.string()),
        pa.field("blob_before", pa.string()),  # the published picture, else the crop as it was cut
        pa.field("blob_after", pa.string()),
    ]
)

SUMMARY = pa.schema(
    [
        pa.field("change", pa.string(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("parameter", pa.string()),
        pa.field("count", pa.int64(), nullable=False),
    ]
)

_CHANGES = list(Change)
_CAUSES = list(Cause)


def summarise_diff(table: pa.Table) -> pa.Table:
    """How many rows of a DIFF table have each change, cause and parameter: schema SUMMARY.

    In order of the changes (`Change`), then the largest count first, then in order of the causes (`Cause`).
    """
    names = SUMMARY.names[:3]
    groups = table.select(names).group_by(names).aggregate([([], "count_all")])
    counts = {tuple(row[name] for name in names): row["count_all"] for row in groups.to_pylist()}

    def order(key: tuple[str, str, str | None]) -> tuple[int, int, int, str]:
        return (_CHANGES.index(Change(key[0])), -counts[key], _CAUSES.index(Cause(key[1])), key[2] or "")

    rows = [dict(zip(SUMMARY.names, (*key, counts[key]), strict=True)) for key in sorted(counts, key=order)]
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def explain_change(row: dict[str, Any]) -> str:
    """A row of a DIFF table as a sentence: `1234#0 removed: blur 52 against clean.min_blur 40 -> 60`.

    A verdict says both, because neither is `published`.
    """
    what = f"{row['before']} -> {row['after']}" if row["change"] == Change.VERDICT else row["change"]
    return f"{row['item_id']} {what}: {row['detail']}"


def write_diff(path: Path, table: pa.Table) -> None:
    """Write a DIFF table to a .parquet or .csv file, in one step. Raises StoreError for another kind of file."""
    if path.suffix == ".parquet":
        write_parquet(path, table)
    elif path.suffix == ".csv":
        write_atomically(path, lambda temporary: pa_csv.write_csv(table, temporary))
    else:
        raise StoreError(f"{path.name} must end in .parquet or .csv")
