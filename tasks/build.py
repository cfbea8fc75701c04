"""Build: a recipe and a source become a version, one stage after the other.

The engine knows nothing of Prefect: it is given a function that runs shards somewhere, and an observer that is told how
far it is. Same source, same recipe, same decisions: same version, however the work was cut up and whoever ran it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.cache import INPUT
from datasets.decisions import current_decisions
from datasets.errors import StoreError
from datasets.lock import hold_lock
from datasets.schema import LEDGER, MANIFEST, VERDICTS, conform
from datasets.sources.read import digest_posts, read_posts
from datasets.store import Store
from datasets.version import Version, scratch_folder
from tasks import fingerprint
from tasks.plan import BuildPlan
from tasks.publish import publish
from tasks.shards import ShardRef, ShardResult, sound_facts, split_open_work
from tasks.stage import EXACT_COPY, Stage, StageParams

RunShards = Callable[[Stage, Sequence[ShardRef]], Iterable[ShardResult]]
REJECTED = "rejected_by_person"


class Observer(Protocol):
    """Who is told how a build goes."""

    def stage_started(self, stage: str, items: int, to_measure: int) -> None:
        """items go into the stage; to_measure of their inputs were never measured."""

    def shard_done(self, result: ShardResult) -> None:
        """A shard of the running stage was measured."""

    def stage_done(self, stage: str, counts: dict[str, Any]) -> None:
        """counts: inputs, in, kept, dropped (by reason)."""


@dataclass
class BuildResult:
    """What a build did."""

    version: Version
    published: bool  # False: nothing differed from the newest version, which is `version`
    counts: dict[str, dict[str, Any]]
    opened: dict[str, int] = field(default_factory=dict)  # pictures opened, per stage


def build_version(
    plan: BuildPlan, store: Store, run_shards: RunShards, observer: Observer, workers: int, wait_seconds: float = 0.0
) -> BuildResult:
    """Build and publish a version.

    workers: how many shards run at once (decides shard sizes only). wait_seconds: for another build of this dataset.
    Raises KaobakoError with what to do next.
    """
    lock = store.dataset(plan.dataset) / "lock.json"
    with (
        hold_lock(lock, f"curate {plan.dataset}", wait_seconds),
        scratch_folder(store.dataset(plan.dataset), "work") as work,
    ):
        return _Build(plan, store, run_shards, observer, workers, work).run()


class _Build:
    """One running build: the items that are still in, and the ledger of those that are out."""

    def __init__(
        self,
        plan: BuildPlan,
        store: Store,
        run_shards: RunShards,
        observer: Observer,
        workers: int,
        work: Path,
    ) -> None:
        self.plan = plan
        self.store = store
        self.run_shards = run_shards
        self.observer = observer
        self.workers = workers
        self.work = work
        self.decisions = current_decisions(store.decisions)
        self.counts: dict[str, dict[str, Any]] = {}
        self.opened: dict[str, int] = {}
        self.ledger: list[pa.Table] = []
        self.weights: dict[str, str] = {}

    def run(self) -> BuildResult:
        posts = read_posts(self.plan.source)
        items = posts
        for stage, params in self.plan.stages:
            if not stage.enabled(params):
                continue
            items = self.run_stage(stage, params, items)
            if stage.name == "filter":
                items = self.add_facts(fingerprint.STAGE, fingerprint.FingerprintParams(), items)
        ledger = pa.concat_tables([LEDGER.empty_table(), *self.ledger])
        lineage = {
            "source_digest": digest_posts(posts),
            "posts": len(posts),
            "counts": self.counts,
            "weights": dict(sorted(self.weights.items())),
        }
        before = self.store.version_numbers(self.plan.dataset)
        version = publish(self.plan, self.store, conform(items, MANIFEST), ledger, lineage)
        return BuildResult(version, version.number not in before, self.counts, self.opened)

    def run_stage(self, stage: Stage, params: StageParams, items: pa.Table) -> pa.Table:
        """Measure what was never measured, judge everything, and return what stays."""
        judged = items if stage.measure is None else self.add_facts(stage, params, items)
        if stage.measure is None:
            self.observer.stage_started(stage.name, len(items), 0)
        judged = self.add_decisions(judged)
        verdicts = overrule(judged, stage.decide(judged, params))
        keep = verdicts["keep"]
        self.counts[stage.name] = count_verdicts(len(items), verdicts)
        self.ledger.append(make_ledger(stage.name, judged, verdicts))
        self.observer.stage_done(stage.name, self.counts[stage.name])
        return judged.filter(keep)

    def add_facts(self, stage: Stage, params: StageParams, items: pa.Table) -> pa.Table:
        """Items with the stage's facts, from the cache or newly measured."""
        inputs = items[stage.input_column] if stage.input_column in items.column_names else None
        if inputs is None:
            raise ValueError(f"stage {stage.name} needs the column {stage.input_column!r}; no stage before it gives it")
        items = items.drop_columns([INPUT]) if INPUT in items.column_names else items
        items = items.append_column(INPUT, inputs.cast(pa.string()))
        work = split_open_work(stage, params, items, self.store, self.work, self.plan.source.root, self.workers)
        self.weights |= work.digests
        self.observer.stage_started(stage.name, len(items), sum(shard.count for shard in work.shards))
        self.opened[stage.name] = 0
        for result in self.run_shards(stage, work.shards) if work.shards else ():
            self.opened[stage.name] += result.opened
            self.observer.shard_done(result)
        facts = sound_facts(stage, work.cache.lookup(items[INPUT]), self.store) if work.shards else work.known
        if not stage.may_lack_facts:
            require_facts(stage, items, facts)
        return stage.expand(items, facts)

    def add_decisions(self, items: pa.Table) -> pa.Table:
        """Items with the newest human decision on their pixels, where they have pixels yet."""
        if "pixel_digest" not in items.column_names:
            return items
        rows = pc.index_in(items["pixel_digest"], value_set=self.decisions["pixel_digest"].combine_chunks())
        items = items.select([name for name in items.column_names if name not in ("decision", "decided_by")])
        items = items.append_column("decision", self.decisions["decision"].take(rows))
        return items.append_column("decided_by", self.decisions["who"].take(rows))


def require_facts(stage: Stage, items: pa.Table, facts: pa.Table) -> None:
    """Every item must have a fact: a missing one would pass every threshold. Raises StoreError."""
    missing = len(items) - int(pc.sum(pc.is_in(items[INPUT], value_set=facts[INPUT].combine_chunks())).as_py() or 0)
    if missing:
        raise StoreError(
            f"{missing} of {len(items)} items have no measurement of the stage {stage.name}, though all were measured. "
            "Did something remove files from the store's cache or blobs meanwhile? Run the build again."
        )


def overrule(items: pa.Table, verdicts: pa.Table) -> pa.Table:
    """Verdicts after human decisions: keep beats every automatic verdict but one, reject drops at once.

    Keep is said of pixels, and an exact copy falls because the same pixels are in already.
    """
    if "decision" not in items.column_names:
        return verdicts
    decision = pc.fill_null(items["decision"], "").combine_chunks()
    is_copy = pc.fill_null(pc.equal(verdicts["reason"].combine_chunks(), EXACT_COPY), False)
    kept, rejected = pc.and_(pc.equal(decision, "keep"), pc.invert(is_copy)), pc.equal(decision, "reject")
    if not pc.or_(pc.any(kept), pc.any(rejected)).as_py():
        return verdicts
    spoken = pc.or_(kept, rejected)
    columns = {"keep": pc.if_else(spoken, kept, verdicts["keep"].combine_chunks())}
    for name in VERDICTS.names[1:]:
        nothing = pa.nulls(len(items), VERDICTS.field(name).type)
        columns[name] = pc.if_else(spoken, nothing, verdicts[name].combine_chunks())
    columns["reason"] = pc.if_else(rejected, REJECTED, columns["reason"])
    columns["detail"] = pc.if_else(rejected, items["decided_by"].combine_chunks(), columns["detail"])
    return pa.table(columns, schema=VERDICTS)


def count_verdicts(inputs: int, verdicts: pa.Table) -> dict[str, Any]:
    """The accounts of a stage.

    inputs: items that came in. in: items judged; more than inputs where a stage splits items (crop) or adds some
    (augment). in = kept + the sum of dropped, always.
    """
    dropped = verdicts.filter(pc.invert(verdicts["keep"]))["reason"].value_counts()
    by_reason = sorted((entry["values"].as_py(), entry["counts"].as_py()) for entry in dropped)
    kept = int(np.count_nonzero(verdicts["keep"].to_numpy()))
    return {"inputs": inputs, "in": len(verdicts), "kept": kept, "dropped": dict(by_reason)}


def make_ledger(stage: str, items: pa.Table, verdicts: pa.Table) -> pa.Table:
    """LEDGER rows of what a stage dropped, with all that was known of it by then."""
    out = pc.invert(verdicts["keep"])
    dropped, why = items.filter(out), verdicts.filter(out)
    names = dropped["post_id"]
    if "crop_id" in dropped.column_names:
        names = pc.coalesce(dropped["crop_id"], names)
    table = dropped.append_column("stage", pa.array([stage] * len(dropped), pa.string())).append_column(
        "item_id", names
    )
    for name in VERDICTS.names[1:]:
        table = table.append_column(name, why[name])
    return conform(table, LEDGER)
