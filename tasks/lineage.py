"""Lineage: what a version says of how it was made."""

from __future__ import annotations

import datetime as dt
import platform
from typing import Any

import pyarrow as pa

from datasets.cache import MeasurementCache
from datasets.decisions import digest_decisions
from datasets.sources.listing import SourceReading, VintageReport
from datasets.sources.read import digest_posts
from datasets.store import Store
from models.device import device_name
from tasks.plan import BuildPlan
from tasks.provenance import git_commit, library_versions
from tasks.stage import Stage, StageParams


def describe_build(plan: BuildPlan, found: dict[str, Any]) -> dict[str, Any]:
    """The lineage of a build: what it found out, what it was told, and where it ran."""
    return {
        **found,
        "recipe": plan.recipe,
        "sources": [
            {
                "kind": str(plan.source.kind),
                "root": plan.source.root.as_posix(),
                "digest": found["source_digest"],
                "posts": found["posts"],
            }
        ],
        "stage_versions": {stage.name: stage.version for stage, params in plan.stages if stage.enabled(params)},
        "training": plan.training,
        "notes": take_notes(plan, found["rating_vintage"]),
        "libraries": library_versions(),
        "python": platform.python_version(),
        "device": device_name(),
        "machine": platform.machine(),
        "git_commit": git_commit(),
        "created_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def take_notes(plan: BuildPlan, vintage: dict[str, Any] | None) -> list[str]:
    """Sentences on what the recipe left out and how ratings were understood, so that nobody has to guess.

    vintage: VintageReport.describe(); None when the source has no rating letters.
    """
    notes = [
        f"The {stage.name} stage is off ({stage.off_because})."
        for stage, params in plan.stages
        if not stage.enabled(params)
    ]
    return notes if vintage is None else [*notes, *VintageReport(**vintage).explain()]


def describe_measuring(
    stage: Stage, params: StageParams, cache: MeasurementCache, weights: dict[str, str], store: Store
) -> dict[str, Any]:
    """What a stage's facts depend on besides their inputs, and where they lie, for the lineage."""
    return {
        "version": stage.version,
        "settings": params.measured_settings(),
        "weights": weights,
        "cache": cache.folder.relative_to(store.cache).as_posix(),
    }


def summarise_chain(
    plan: BuildPlan,
    reading: SourceReading,
    counts: dict[str, dict[str, Any]],
    measured: dict[str, dict[str, Any]],
    decisions: pa.Table,
) -> dict[str, Any]:
    """What a pass of the chain found out, for the lineage."""
    return {
        "source_digest": digest_posts(reading.posts),
        "rating_vintage": None if reading.vintage is None else reading.vintage.describe(),
        "decisions_digest": digest_decisions(decisions),
        "posts": len(reading.posts),
        "counts": counts,
        "thresholds": list_thresholds(plan),
        "measured": measured,
        "weights": dict(sorted(pair for row in measured.values() for pair in row["weights"].items())),
    }


def list_thresholds(plan: BuildPlan) -> list[dict[str, Any]]:
    """The numbers that items were held against, for a version's lineage: stage, column, parameter, sign, value."""
    return [
        {"stage": stage.name, "column": r.column, "parameter": r.parameter, "sign": r.sign, "value": r.limit(params)}
        for stage, params in plan.stages
        if stage.enabled(params)
        for r in stage.thresholds
        if r.limit(params) is not None
    ]
