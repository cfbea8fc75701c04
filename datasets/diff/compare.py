"""Two versions in, a table of what differs out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.diff.causes import Attribution, Why
from datasets.diff.items import find_changes, match_items, read_items
from datasets.diff.lineage import Making, Makings
from datasets.diff.rows import Pair, Row, Side, Two
from datasets.diff.table import ABSENT, DIFF, PUBLISHED, Change
from datasets.version import LEDGER_FILE, MANIFEST_FILE, Version

_SLICE = 5_000  # changed pairs that are looked at together: rows as Python objects take far more than in tables


def diff_versions(before: Version, after: Version, posts: Collection[str] | None = None) -> pa.Table:
    """What differs between two versions, one row per item whose state differs: schema DIFF, by change, cause and item.

    The versions may be of different datasets, and in any order. posts: compare the items of these posts only; causes
    are the same then. Measurements are no state: a blur that changes and moves nothing gives no row.
    """
    wanted = None if posts is None else set(posts)
    if wanted is not None:
        related = _with_related(before, after, wanted)
        posts = related | _with_moved(before, after, related) | _with_moved(after, before, related)
    tables = read_items(before, posts), read_items(after, posts)
    pairs = match_items(*tables)
    makings = Makings(before, after)
    two = Two(Side(makings.before, tables[0]), Side(makings.after, tables[1]), pairs, *find_changes(*tables, pairs))
    causes = Attribution(makings, two)
    batches = []
    changed = list(two.changed)
    for start in range(0, len(changed), _SLICE):
        members = changed[start : start + _SLICE]
        causes.start(members)
        rows = [_make_row(two, makings, pair, two.changed[pair], causes.explain(pair)) for pair in members]
        if wanted is not None:
            rows = [row for row in rows if row["post_id"] in wanted]
        batches.append(pa.RecordBatch.from_pylist(rows, schema=DIFF))
    return _sort(pa.Table.from_batches(batches, schema=DIFF))


def _sort(table: pa.Table) -> pa.Table:
    """By change in the order of `Change`, then cause, item and earlier state; one chunk."""
    rank = pc.index_in(table["change"], value_set=pa.array(list(Change), pa.string()))
    keys = [(name, "ascending") for name in ("rank", "cause", "item_id", "before")]
    order = pc.sort_indices(table.append_column("rank", rank), sort_keys=keys)
    return table.take(order).combine_chunks()


def _with_moved(here: Version, there: Version, posts: set[str]) -> set[str]:
    """Posts of one version that have the files of these posts of the other: a file may have been moved."""
    digests = {digest for digest in _read_where(here, "file_digest", "post_id", posts) if digest}
    return {post for post in _read_where(there, "post_id", "file_digest", digests) if post}


def _read_where(version: Version, column: str, key: str, values: set[str]) -> set[str | None]:
    """A column's values in those rows of a version that have one of some values in another column."""
    found: set[str | None] = set()
    for name in (MANIFEST_FILE, LEDGER_FILE):
        path = version.folder / name
        if values and {column, key} <= set(pq.read_schema(path).names):  # older versions keep no file digests
            table = pq.read_table(path, columns=[column], filters=[(key, "in", sorted(values))])
            found |= set(pc.unique(table[column]).to_pylist())
    return found


def _with_related(before: Version, after: Version, posts: set[str]) -> set[str]:
    """These posts, and those of the items that they are copies of, and so on: these may be the cause."""
    keepers: dict[str, set[str]] = defaultdict(set)
    for version in (before, after):
        table = pq.read_table(version.folder / LEDGER_FILE, columns=["post_id", "related"])
        table = table.filter(pc.is_valid(table["related"]))
        for post, name in zip(table["post_id"].to_pylist(), table["related"].to_pylist(), strict=True):
            keepers[post].add(name.rpartition("#")[0] or name)
    found, fresh = set(posts), set(posts)
    while fresh:
        fresh = {keeper for post in fresh for keeper in keepers.get(post, ())} - found
        found |= fresh
    return found


def _make_row(two: Two, makings: Makings, pair: Pair, change: Change, why: Why) -> dict[str, Any]:
    before, after = two.before.row(pair[0]), two.after.row(pair[1])
    # a post without a crop beside a crop of it, a crop beside its mirror image: the more special one names the row
    named = max(
        (row for row in (after, before) if row), key=lambda row: (bool(row["parent_crop"]), bool(row["crop_id"]))
    )
    limits = [_number(makings.before, why.parameter), _number(makings.after, why.parameter)]
    return {
        "item_id": named["item_id"],
        "post_id": named["post_id"],
        "change": change,
        "before": say_state(before),
        "after": say_state(after),
        "cause": why.cause,
        "stage": why.stage,
        "parameter": why.parameter,
        "value": why.value,
        "threshold_before": limits[0],
        "threshold_after": limits[1],
        "who": why.who,
        "detail": why.detail,
        "pixel_digest_before": before and before["pixel_digest"],
        "pixel_digest_after": after and after["pixel_digest"],
        "blob_before": before and (before["blob"] or before["crop_blob"]),
        "blob_after": after and (after["blob"] or after["crop_blob"]),
    }


def _number(making: Making, parameter: str | None) -> float | None:
    """A parameter as a number, if it is one: a threshold as it is applied, else the setting."""
    if parameter is None:
        return None
    limit, setting = making.limit(parameter), making.setting(parameter)
    plain = isinstance(setting, int | float) and not isinstance(setting, bool)
    return float(setting) if limit is None and plain and not making.judges(parameter) else limit


def say_state(row: Row | None) -> str:
    """An item's state in a few words: `published`, `clean: blurred`, `absent`."""
    if row is None:
        return ABSENT
    return PUBLISHED if row["stage"] is None else f"{row['stage']}: {row['reason']}"
