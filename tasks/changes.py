"""Changes: is there anything new since the last build? Answered without reading metadata or opening a picture.

Everything that decides what a build publishes is an input: the source's files (by their stamps), the recipe, the
stages' versions, the weights, the human decisions, and this program. A build writes down what its inputs were; while
they are the same, and the version is whole, another build would publish the same again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.atomic import write_text
from datasets.decisions import current_decisions, digest_decisions
from datasets.digests import digest_json
from datasets.errors import StoreError
from datasets.sources.listing import SourceListing
from datasets.sources.read import list_source
from datasets.store import Store
from datasets.version import LEDGER_FILE, MANIFEST_FILE, Version, read_version, require_whole
from tasks.plan import BuildPlan
from tasks.provenance import git_commit, library_versions

CHECKED_FILE = "checked.json"


@dataclass(frozen=True)
class Inputs:
    """All that a build depends on, as digests."""

    source: str
    recipe: dict[str, Any]
    stage_versions: dict[str, int]
    weights: dict[str, str]
    decisions: str
    program: dict[str, str | None]  # the versions of this program and of the libraries that it judges with


@dataclass(frozen=True)
class Changes:
    """What is new since the last build."""

    reasons: tuple[str, ...]  # sentences; empty when there is nothing new
    version: Version | None  # the newest version, when it is whole

    @property
    def nothing(self) -> bool:
        """A build would publish what `version` says already."""
        return not self.reasons


def look_at_inputs(plan: BuildPlan, store: Store, listing: SourceListing | None = None) -> Inputs:
    """The inputs of a build as they are now. listing: of the source, when it was listed already.

    Raises KaobakoError when the source or the weights are not there.
    """
    stages = [(stage, params) for stage, params in plan.stages if stage.enabled(params)]
    weights: dict[str, str] = {}
    for stage, params in stages:
        weights |= stage.weights(params, store)
    return Inputs(
        source=(listing or list_source(plan.source)).stamp(),
        recipe=plan.recipe,
        stage_versions={stage.name: stage.version for stage, _ in stages},
        weights=dict(sorted(weights.items())),
        decisions=digest_decisions(current_decisions(store.decisions)),
        program={"commit": git_commit(), **library_versions()},
    )


def remember_inputs(store: Store, dataset: str, inputs: Inputs, version: Version) -> None:
    """Write down what a finished build depended on. Under the dataset's lock."""
    said = {"version": version.number, "inputs": asdict(inputs)}
    write_text(store.dataset(dataset) / CHECKED_FILE, json.dumps(said, indent=2, ensure_ascii=False) + "\n")


def forget_inputs(store: Store, dataset: str) -> None:
    """Make the next build look at everything. Under the dataset's lock."""
    (store.dataset(dataset) / CHECKED_FILE).unlink(missing_ok=True)


def look_for_changes(plan: BuildPlan, store: Store) -> Changes:
    """What is new for a build of this plan."""
    numbers = store.version_numbers(plan.dataset)
    if not numbers:
        return Changes(("this dataset has no version yet",), None)
    try:
        version = read_version(store, f"{plan.dataset}@v{numbers[-1]}")
        require_whole(version)
        missing = count_missing_blobs(store, version)
    except (StoreError, OSError, ValueError) as error:
        return Changes((f"the newest version is damaged: {error}",), None)
    if missing:
        return Changes((f"{missing} blobs of {version.reference} are missing",), None)
    before = _read_inputs(store, plan.dataset, version)
    if before is None:
        return Changes((f"nothing is written down of what {version.reference} was made from",), version)
    now = json.loads(json.dumps(asdict(look_at_inputs(plan, store))))
    return Changes(tuple(_name_changes(before, now)), version)


def count_missing_blobs(store: Store, version: Version) -> int:
    """How many of the blobs that a version names, in its manifest or its ledger, are not in the store."""
    named: set[str | None] = set()
    for name, columns in ((MANIFEST_FILE, ["blob"]), (LEDGER_FILE, ["blob", "crop_blob"])):
        table = pq.read_table(version.folder / name, columns=columns)
        for column in columns:
            named.update(pc.unique(table[column]).to_pylist())
    return len(named - {None} - store.blobs.digests())


def _read_inputs(store: Store, dataset: str, version: Version) -> dict[str, Any] | None:
    """What the last build of this version depended on; None when nobody wrote it down, or it cannot be read."""
    try:
        said = json.loads((store.dataset(dataset) / CHECKED_FILE).read_text(encoding="utf-8"))
        inputs = said["inputs"] if said["version"] == version.number else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return inputs if isinstance(inputs, dict) else None


def _name_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Sentences on what differs between two Inputs as JSON values."""
    said = []
    if before.get("source") != now["source"]:
        said.append("files or metadata of the source were added, changed or removed")
    if before.get("recipe") != now["recipe"]:
        said.append("the recipe: " + ", ".join(compare_settings(before.get("recipe") or {}, now["recipe"])))
    for stage, version in now["stage_versions"].items():
        if (old := (before.get("stage_versions") or {}).get(stage)) != version:
            said.append(f"the stage {stage}: version {old} is {version} now")
    if before.get("weights") != now["weights"]:
        said.append("weights: " + ", ".join(compare_settings(before.get("weights") or {}, now["weights"])))
    if before.get("decisions") != now["decisions"]:
        said.append("people have decided on crops")
    if before.get("program") != now["program"]:
        said.append("this program: " + ", ".join(compare_settings(before.get("program") or {}, now["program"])))
    if not said and digest_json(before) != digest_json(now):
        said.append("the inputs of the last build were written down in another way")
    return said


def compare_settings(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested tables: `clean.min_blur 40.0 -> 60.0`, by name."""
    said = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            said += compare_settings(old, new, f"{prefix}{name}.")
        elif old != new:
            said.append(f"{prefix}{name} {_short(old)} -> {_short(new)}")
    return said


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "…"
