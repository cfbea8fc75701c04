"""Forecast: what a build would publish, as far as the facts in the cache tell. Measures nothing, opens no picture.

What was never measured is set aside and named: a stricter threshold sets nothing aside, a looser one only what newly
passes, another detector everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.atomic import write_parquet
from datasets.cache import INPUT
from datasets.chunks import sort_in_chunks, spell_out
from datasets.decisions import current_decisions
from datasets.digests import content_digest
from datasets.sources.read import read_source
from datasets.store import Store
from datasets.version import LEDGER_FILE, MANIFEST_FILE, Version
from tasks import fingerprint
from tasks.chain import Chain, make_manifest
from tasks.lineage import describe_build, describe_measuring, summarise_chain
from tasks.plan import BuildPlan
from tasks.shards import lacks_facts, name_inputs, sound_facts
from tasks.stage import Stage, StageParams

# Items that no verdict can be given on, and the stage that would have to measure them.
UNMEASURED = pa.schema([("stage", pa.string()), ("item_id", pa.string()), ("post_id", pa.string())])


@dataclass(frozen=True)
class Forecast:
    """A version that nobody has published, and what is not known of it."""

    lineage: dict[str, Any]
    manifest: pa.Table  # schema MANIFEST, in order of crop_id
    ledger: pa.Table  # schema LEDGER, in order of stage and item
    unmeasured: pa.Table  # schema UNMEASURED

    def unmeasured_counts(self) -> dict[str, int]:
        """How many items each stage would have to measure first."""
        rows = self.unmeasured["stage"].value_counts()
        return {row["values"].as_py(): row["counts"].as_py() for row in rows}

    def write_draft(self, folder: Path, name: str) -> Version:
        """Write the tables to a folder, so that it can be read and compared as a version. It stays unpublished."""
        write_parquet(folder / MANIFEST_FILE, self.manifest)
        write_parquet(folder / LEDGER_FILE, self.ledger)
        return Version(name, 0, folder, {"content_digest": content_digest(self.manifest), **self.lineage})


def forecast_build(plan: BuildPlan, store: Store, told: Callable[[str, int], None] | None = None) -> Forecast:
    """What a build of this plan would publish from the source as it is now. told(stage, items) is called before each.

    Raises KaobakoError when the source or the weights are not there.
    """
    return _Forecaster(plan, store).run(told)


class _Forecaster:
    """A pass of the chain that measures nothing."""

    def __init__(self, plan: BuildPlan, store: Store) -> None:
        self.plan = plan
        self.store = store
        self.decisions = current_decisions(store.decisions)
        self.chain = Chain(self.decisions)
        self.measured: dict[str, dict[str, Any]] = {}
        self.aside: list[pa.Table] = [UNMEASURED.empty_table()]

    def run(self, told: Callable[[str, int], None] | None) -> Forecast:
        reading = read_source(self.plan.source, cache=self.store.metadata_cache)
        posts = reading.posts
        items = posts
        for stage, params in self.plan.stages:
            if not stage.enabled(params):
                continue
            if told is not None:
                told(stage.name, len(items))
            judged, inputs = items, len(items)
            if stage.measure is not None:
                judged, inputs = self.add_known_facts(stage, params, items)
            items = self.chain.judge(stage, params, inputs, judged)
            if stage.name == "filter":
                items, _ = self.add_known_facts(fingerprint.STAGE, fingerprint.FingerprintParams(), spell_out(items))
        found = summarise_chain(self.plan, reading, self.chain.counts, self.measured, self.decisions)
        return Forecast(
            describe_build(self.plan, found),
            sort_in_chunks(make_manifest(items), ["crop_id"]),
            sort_in_chunks(self.chain.ledger(), ["stage", "item_id"]),
            pa.concat_tables(self.aside),
        )

    def add_known_facts(self, stage: Stage, params: StageParams, items: pa.Table) -> tuple[pa.Table, int]:
        """The items whose facts are known, with these, and how many inputs they come from. The others are set aside."""
        items = name_inputs(stage, params, items)
        weights = stage.weights(params, self.store)
        cache = stage.cache(params, self.store, weights)
        facts = sound_facts(stage, cache.lookup(items[INPUT]), self.store)
        self.measured[stage.name] = describe_measuring(stage, params, cache, weights, self.store)
        unknown = lacks_facts(items, facts)
        self.set_aside(stage.name, items.filter(unknown))
        known = items.filter(pc.invert(unknown))
        return stage.expand(known, facts), len(known)

    def set_aside(self, stage: str, items: pa.Table) -> None:
        names = items["crop_id"] if "crop_id" in items.column_names else items["post_id"]
        rows = [pa.array([stage] * len(items), pa.string()), names, items["post_id"]]
        self.aside.append(pa.table(rows, schema=UNMEASURED))
