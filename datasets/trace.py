"""Why an item is in or out: its way through the stages of every version that considered it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.store import Store
from datasets.version import Version, list_versions, read_version

# What each threshold of a recipe is compared with, to show an item that passed how near it was.
THRESHOLDS = {
    "filter": (("score", "min_score", ">="),),
    "crop": (("detector_score", "min_score", ">="), ("face_w", "min_face", ">=")),
    "clean": (
        ("box_w", "min_side", ">="),
        ("tint_residual", "min_tint_residual", ">="),
        ("colours", "min_colours", ">="),
        ("blur", "min_blur", ">="),
        ("contrast", "min_contrast", ">="),
    ),
    "rank": (("d_percentile", "drop_lowest", ">="),),
}


def trace_item(store: Store, item: str, dataset: str | None = None) -> list[dict[str, Any]]:
    """One entry per version and crop (or post without a crop) that `item` names, oldest version first.

    item: a post_id or crop_id. dataset: a name, or NAME@V; None looks through all.
    """
    traces = []
    for version in _versions(store, dataset):
        for row in _find(version.ledger(), item):
            traces.append(_trace(version, row, row["stage"]))
        for row in _find(version.manifest(), item):
            traces.append(_trace(version, {**row, "item_id": row["crop_id"]}, None))
    return traces


def _versions(store: Store, dataset: str | None) -> list[Version]:
    if dataset and "@" in dataset:
        return [read_version(store, dataset)]
    return list_versions(store, dataset)


def _find(table: pa.Table, item: str) -> list[dict[str, Any]]:
    mask = pc.or_kleene(pc.equal(table["post_id"], item), pc.equal(table["crop_id"], item))
    rows: list[dict[str, Any]] = table.filter(pc.fill_null(mask, False)).to_pylist()
    return rows


def _trace(version: Version, row: dict[str, Any], dropped_at: str | None) -> dict[str, Any]:
    stages = []
    for stage in version.lineage["counts"]:
        if stage == dropped_at:
            stages.append({"stage": stage, "verdict": "dropped", "why": explain_drop(row)})
            break
        stages.append({"stage": stage, "verdict": "kept", "why": _explain_pass(stage, row, version.lineage["recipe"])})
    verdict = f"dropped by {dropped_at}: {row['reason']}" if dropped_at else "published"
    return {"version": version.reference, "item_id": row["item_id"], "verdict": verdict, "stages": stages}


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


def _explain_pass(stage: str, row: dict[str, Any], recipe: dict[str, Any]) -> str:
    if row.get("decision") == "keep":
        return "kept by a person"
    words = []
    for column, parameter, sign in THRESHOLDS.get(stage, ()):
        threshold = recipe.get(stage, {}).get(parameter)
        if row.get(column) is not None and threshold is not None:
            words.append(f"{column} {row[column]:.6g} {sign} {threshold:.6g}")
    return ", ".join(words)
