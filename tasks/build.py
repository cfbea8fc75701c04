"""Build: a recipe and a source become a version, one stage after the other.

The engine knows nothing of Prefect: it is given a function that runs shards somewhere, and an observer that is told how
far it is. Same source, same recipe, same decisions: same version, however the work was cut up and whoever ran it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from datasets.cache import INPUT
from datasets.chunks import spell_out
from datasets.decisions import current_decisions
from datasets.errors import StoreError
from datasets.lock import Lease, hold_dataset
from datasets.sources.listing import SourceListing
from datasets.sources.read import list_source, read_source
from datasets.store import Store
from datasets.version import Version, scratch_folder
from tasks import fingerprint
from tasks.chain import Chain, make_manifest
from tasks.changes import forget_inputs, look_at_inputs, remember_inputs
from tasks.lineage import describe_measuring, summarise_chain
from tasks.plan import BuildPlan
from tasks.publish import publish
from tasks.shards import ShardRef, ShardResult, lacks_facts, name_inputs, sound_facts, split_open_work
from tasks.stage import Stage, StageParams

RunShards = Callable[[Stage, Sequence[ShardRef]], Iterable[ShardResult]]


class Observer(Protocol):
    """Who is told how a build goes."""

    def waiting_for(self, holder: dict[str, Any]) -> None:
        """Another build holds the dataset. holder: its lease (what, pid, host, taken)."""

    def metadata_read(self, name: str, done: int, total: int) -> None:
        """done of total bytes of a metadata file were converted; nothing is said of what was converted before."""

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
    unread: int = 0  # files that could not be read just now: the next build tries again


def build_version(
    plan: BuildPlan, store: Store, run_shards: RunShards, observer: Observer, workers: int, wait_seconds: float = 0.0
) -> BuildResult:
    """Build and publish a version.

    workers: how many shards run at once (decides shard sizes only). wait_seconds: for another build of this dataset.
    Raises KaobakoError with what to do next.
    """
    what = f"curate {plan.dataset}"
    with (
        hold_dataset(store, plan.dataset, what, wait_seconds, lambda holder: observer.waiting_for(holder)) as lease,
        scratch_folder(store.dataset(plan.dataset), "work") as work,
    ):
        listing = list_source(plan.source)  # once, before the source is read: what changes meanwhile is new next time
        inputs = look_at_inputs(plan, store, listing)
        result = _Build(plan, store, run_shards, observer, workers, work, lease).run(listing)
        if result.unread:
            forget_inputs(store, plan.dataset)  # its stamp is the same tomorrow, when it may be readable again
        else:
            remember_inputs(store, plan.dataset, inputs, result.version)
        return result


class _Build:
    """One running build."""

    def __init__(
        self,
        plan: BuildPlan,
        store: Store,
        run_shards: RunShards,
        observer: Observer,
        workers: int,
        work: Path,
        lease: Lease,
    ) -> None:
        self.plan = plan
        self.store = store
        self.run_shards = run_shards
        self.observer = observer
        self.workers = workers
        self.work = work
        self.lease = lease
        self.decisions = current_decisions(store.decisions)
        self.chain = Chain(self.decisions)
        self.opened: dict[str, int] = {}
        self.measured: dict[str, dict[str, Any]] = {}
        self.unread = 0

    def run(self, listing: SourceListing) -> BuildResult:
        reading = read_source(self.plan.source, listing, self.store.metadata_cache, self.observer.metadata_read)
        items = reading.posts
        for stage, params in self.plan.stages:
            if not stage.enabled(params):
                continue
            items = self.run_stage(stage, params, items)
            if stage.name == "filter":
                items = self.add_facts(fingerprint.STAGE, fingerprint.FingerprintParams(), spell_out(items))
        found = summarise_chain(self.plan, reading, self.chain.counts, self.measured, self.decisions)
        before = self.store.version_numbers(self.plan.dataset)
        version = publish(self.plan, self.store, make_manifest(items), self.chain.ledger(), found, self.lease)
        return BuildResult(version, version.number not in before, self.chain.counts, self.opened, self.unread)

    def run_stage(self, stage: Stage, params: StageParams, items: pa.Table) -> pa.Table:
        """Measure what was never measured, judge everything, and return what stays."""
        if stage.measure is None:
            self.observer.stage_started(stage.name, len(items), 0)
            judged = items
        else:
            judged = self.add_facts(stage, params, items)
        kept = self.chain.judge(stage, params, len(items), judged)
        self.observer.stage_done(stage.name, self.chain.counts[stage.name])
        return kept

    def add_facts(self, stage: Stage, params: StageParams, items: pa.Table) -> pa.Table:
        """Items with the stage's facts, from the cache or newly measured."""
        items = name_inputs(stage, params, items)
        root, chain = self.plan.source.root, self.plan.stages
        work = split_open_work(stage, params, items, self.store, self.work, root, self.workers, chain)
        self.measured[stage.name] = describe_measuring(stage, params, work.cache, work.digests, self.store)
        self.observer.stage_started(stage.name, len(items), sum(shard.count for shard in work.shards))
        self.opened[stage.name] = 0
        made: dict[int, int] = {}
        for result in self.run_shards(stage, work.shards) if work.shards else ():
            self.opened[stage.name] += result.opened
            made[result.index] = result.facts
            self.observer.shard_done(result)
        facts = work.known
        if work.shards:
            work.compact()
            facts = sound_facts(stage, work.cache.lookup(items[INPUT]), self.store)
            require_rows(stage, len(facts), len(work.known) + sum(made.values()))
        if stage.may_lack_facts:
            self.unread += int(pc.sum(lacks_facts(items, facts)).as_py() or 0)
        else:
            require_facts(stage, items, facts)
        return stage.expand(items, facts)


def require_rows(stage: Stage, found: int, expected: int) -> None:
    """What was measured a moment ago must be there, or it would seem to have given nothing. Raises StoreError."""
    if found < expected:
        raise StoreError(
            f"{expected - found} of {expected} measurements of the stage {stage.name} are gone, though they were made. "
            "Did something remove files from the store's cache or blobs meanwhile? Run the build again."
        )


def require_facts(stage: Stage, items: pa.Table, facts: pa.Table) -> None:
    """Every item must have a fact: a missing one would pass every threshold. Raises StoreError."""
    missing = len(items) - int(pc.sum(pc.is_in(items[INPUT], value_set=facts[INPUT].combine_chunks())).as_py() or 0)
    if missing:
        raise StoreError(
            f"{missing} of {len(items)} items have no measurement of the stage {stage.name}, though all were measured. "
            "Did something remove files from the store's cache or blobs meanwhile? Run the build again."
        )
