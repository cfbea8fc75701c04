"""Why an item is in or out: its way through the stages of every version that considered it, and since when."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.decisions import read_decisions
from datasets.diff import diff_versions, explain_change
from datasets.diff.items import ITEMS, read_items
from datasets.diff.table import ABSENT
from datasets.store import Store
from datasets.version import LEDGER_FILE, MANIFEST_FILE, Version, list_versions, read_version

_SUGGESTIONS = 8
_SPOKEN = {"keep": "kept", "reject": "rejected"}  # decisions that carry a crop past a threshold
_SHORTEST_STEM = 2  # characters of an unknown id that a suggestion must share


def trace_item(store: Store, item: str, dataset: str | None = None) -> list[dict[str, Any]]:
    """One entry per version and crop (or post without a crop) that `item` names, oldest version first.

    item: a post_id, or a crop_id such as `1234#0` or `1234#0+mirror`. Of a crop also those versions are told in which
    its post gave no crop, or its pixels were numbered differently. dataset: a name, or NAME@V; None looks through all.
    Each entry: version, item_id, verdict, stages (stage, verdict, why), change (what this version changed against the
    one before it, as a sentence, or None), cause (a datasets.diff.Cause, or None) and pixel_digest.
    Where the version before had an item and this one has nothing under its name, the verdict says what became of it:
    `absent`, or what its parent fell for.
    """
    traces: list[dict[str, Any]] = []
    previous: tuple[Version, list[dict[str, Any]]] | None = None
    for version in _versions(store, dataset):
        if previous is not None and previous[0].name != version.name:
            previous = None
        rows = _find(version, item, previous[1] if previous else [])
        changes = _find_changes(previous[0], version, item, [*previous[1], *rows]) if previous else []
        traces += _trace_version(version, rows, changes, previous[1] if previous else [])
        previous = (version, rows)
    return traces


def trace_decisions(store: Store, traces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What people ever said of the pixels that these traces are about, oldest first: rows of schema DECISIONS."""
    digests = sorted({trace["pixel_digest"] for trace in traces if trace["pixel_digest"]})
    decisions = read_decisions(store.decisions)
    said = decisions.filter(pc.is_in(decisions["pixel_digest"], value_set=pa.array(digests, pa.string())))
    rows: list[dict[str, Any]] = said.sort_by([("decided_at", "ascending"), ("who", "ascending")]).to_pylist()
    return rows


def suggest_items(store: Store, item: str, dataset: str | None = None) -> list[str]:
    """Ids that begin as an unknown one does, at most eight, in order; from the newest version of each dataset."""
    newest = {version.name: version for version in _versions(store, dataset)}
    known: set[str] = set()
    post = item.rpartition("#")[0] or item
    for version in newest.values():
        paths = [version.folder / name for name in (MANIFEST_FILE, LEDGER_FILE)]
        chunks = [pq.read_table(path, columns=["post_id"])["post_id"].combine_chunks() for path in paths]
        posts = pa.chunked_array(chunks, pa.string())
        for end in range(len(post), min(_SHORTEST_STEM, len(post)) - 1, -1):
            if alike := pc.unique(posts.filter(pc.starts_with(posts, post[:end]))).to_pylist():
                items = read_items(version, sorted(alike)[:_SUGGESTIONS])["item_id"].to_pylist()
                known.update(items)
                break
    return sorted(known)[:_SUGGESTIONS]


def _versions(store: Store, dataset: str | None) -> list[Version]:
    if dataset and "@" in dataset:
        return [read_version(store, dataset)]
    return list_versions(store, dataset)


def _find(version: Version, item: str, earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that an id names, by item_id: of a post all, of a crop its own, or its post's where that gave no crop.

    earlier: the rows of the version before; their pixels are found under another number, too.
    """
    post = item.rpartition("#")[0]
    items = read_items(version, {item, post} - {""})
    digests = sorted({row["pixel_digest"] for row in earlier if row["pixel_digest"]})
    masks = [
        pc.equal(items["post_id"], item),
        pc.equal(items["item_id"], item),
        pc.is_null(items["crop_id"]),
        pc.and_(
            pc.is_in(items["pixel_digest"], value_set=pa.array(digests, pa.string())),
            pc.is_null(items["augmentation"]),
        ),
    ]
    mask = masks[0]
    for other in masks[1:]:
        mask = pc.or_(mask, other)
    rows: list[dict[str, Any]] = items.filter(mask).sort_by([("item_id", "ascending")]).to_pylist()
    return rows


def _find_changes(before: Version, after: Version, item: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the diff of two versions that are about an item, by its ids or its pixels."""
    if not rows:
        return []
    names = {row["item_id"] for row in rows} | {item}
    digests = {row["pixel_digest"] for row in rows if row["pixel_digest"]}
    changes = diff_versions(before, after, {row["post_id"] for row in rows}).to_pylist()
    return [
        change
        for change in changes
        if change["item_id"] in names or {change["pixel_digest_before"], change["pixel_digest_after"]} & digests
    ]


def _trace_version(
    version: Version, rows: list[dict[str, Any]], changes: list[dict[str, Any]], earlier: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The traces of one version. earlier: the rows of the version before it."""
    traces = []
    # what is gone has its earlier number, which may be another item's now
    lone = [change for change in changes if change["after"] == ABSENT]
    by_name = {change["item_id"]: change for change in changes if change["after"] != ABSENT}
    for row in rows:
        # of a post without a crop the changes are told under its crops' names
        change = by_name.pop(row["item_id"], None)
        if change is None and row["crop_id"] is None and by_name:
            change = by_name.pop(min(by_name))
        traces.append(_trace(version, row, change))
    gone = {row["item_id"]: row for row in earlier}
    for change in sorted([*by_name.values(), *lone], key=lambda change: change["item_id"]):
        if (name := change["item_id"]) in gone:
            verdict = ABSENT if change["after"] == ABSENT else f"dropped by {change['after']}"
            traces.append(_make_trace(version, name, verdict, [], gone[name]["pixel_digest"], change))
    return traces


def _trace(version: Version, row: dict[str, Any], change: dict[str, Any] | None) -> dict[str, Any]:
    dropped_at = row["stage"]
    stages = []
    for stage in version.lineage["counts"]:
        if stage == dropped_at:
            stages.append({"stage": stage, "verdict": "dropped", "why": explain_drop(row)})
            break
        stages.append({"stage": stage, "verdict": "kept", "why": _explain_pass(stage, row, version.lineage)})
    verdict = f"dropped by {dropped_at}: {row['reason']}" if dropped_at else "published"
    return _make_trace(version, row["item_id"], verdict, stages, row["pixel_digest"], change)


def _make_trace(
    version: Version,
    name: str,
    verdict: str,
    stages: list[dict[str, str]],
    digest: str | None,
    change: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "version": version.reference,
        "item_id": name,
        "verdict": verdict,
        "stages": stages,
        "change": change and explain_change(change),
        "cause": change and change["cause"],
        "pixel_digest": digest,
    }


def explain_drop(row: dict[str, Any]) -> str:
    """A ledger row as a sentence: `blurred: blur 12.3 against clean.min_blur 60`."""
    parts = [row["reason"]]
    if row["value"] is not None and row["threshold"] is not None:
        parts.append(f"{row['measurement']} {row['value']:.6g} against {row['parameter']} {row['threshold']:.6g}")
    elif row["parameter"]:
        parts.append(f"by {row['parameter']}")
    if row["related"]:
        parts.append(f"of {row['related']}")
    if row["detail"]:
        parts.append(row["detail"])
    return ": ".join([parts[0], ", ".join(parts[1:])]) if len(parts) > 1 else parts[0]


def _explain_pass(stage: str, row: dict[str, Any], lineage: dict[str, Any]) -> str:
    """By how much an item passed a stage: `blur 71.5 >= 60`, or `blur 12, not >= 60: kept by a person`.

    A crop that a person rejected passes the same way, up to the stage where it falls for that. Empty for a version that
    does not list its thresholds.
    """
    said, failed = [], False
    for limit in lineage.get("thresholds", ()):
        if limit["stage"] != stage or limit["column"] not in ITEMS.names or row[limit["column"]] is None:
            continue
        value, wanted = row[limit["column"]], limit["value"]
        passes = value >= wanted if limit["sign"] == ">=" else value <= wanted
        failed |= not passes
        said.append(f"{limit['column']} {value:.6g}{'' if passes else ', not'} {limit['sign']} {wanted:.6g}")
    word = _SPOKEN.get(row.get("decision") or "") if stage != "filter" else None
    told = ", ".join(said)
    if word and failed:
        return f"{told}: {word} by a person"
    return told or ("kept by a person" if row.get("decision") == "keep" and stage != "filter" else "")
