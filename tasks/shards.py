"""Shards: a stage's open work cut into pieces that one task run measures.

Tasks exchange references (paths, digests, counts), never tables or pictures. A shard's rows lie in a Parquet file in
the store's work folder; its result lies in the measurement cache, which is the truth: measuring a shard again
overwrites the same file with the same rows.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from datasets.atomic import write_parquet
from datasets.cache import INPUT, MeasurementCache, first_of_each
from datasets.store import Store
from tasks.along import Along, AlongRef, find_followers
from tasks.stage import Shard, Stage, StageParams

MAX_SHARD = 1000  # items, as long as there are few shards: some seconds to minutes of work
MAX_SHARDS = 300  # per stage: a Prefect server chokes on thousands of task runs
MIN_SHARD = 16  # a Prefect task run costs about as much as measuring this many crops


@dataclass(frozen=True)
class ShardRef:
    """What a task needs to find its shard: small, picklable, the same under every runner."""

    stage: str
    index: int
    items: Path  # Parquet file of the shard's rows
    count: int
    store: Path
    source_root: Path
    settings: dict[str, Any]  # the measured fields of the stage's parameters
    cache: Path  # where the facts go: decided once for the whole stage
    digests: dict[str, str]  # of the weights, by name
    weights: tuple[Path, ...] = ()  # folders to look for weights in
    along: tuple[AlongRef, ...] = ()  # later stages whose facts are found in the same breath


@dataclass(frozen=True)
class ShardResult:
    """What a task did."""

    stage: str
    index: int
    count: int  # inputs measured
    facts: int  # rows that were kept of them; fewer where a file could not be read
    opened: int  # pictures opened
    seconds: float


def is_passing(task: Any, run: Any, state: Any) -> bool:
    """Prefect's retry condition: only an I/O error may be gone at the next try; all else fails the same way again."""
    return isinstance(state.result(raise_on_failure=False), OSError)


def shard_task(name: str) -> Callable[[Callable[[ShardRef], ShardResult]], Task[[ShardRef], ShardResult]]:
    """The decorator that makes a stage's shard function a Prefect task: how it is named, retried and (not) cached.

    Prefect's cache stays off: the measurement cache is the truth.
    """
    return task(
        name=name,
        task_run_name=f"{name}-{{shard.index}}",
        cache_policy=NO_CACHE,
        retries=2,
        retry_delay_seconds=2,
        retry_condition_fn=is_passing,
    )


@cache
def end_with_parent() -> None:
    """In a worker process: end when the process that started it is gone, even by SIGKILL; else do nothing.

    A worker only learns from its queue that nobody waits for it any more, and the queue of a killed parent is silent.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="end-with-parent").start()


def measure_shard(stage: Stage, ref: ShardRef) -> ShardResult:
    """Measure one shard and keep its facts in the cache."""
    if stage.measure is None or stage.facts is None:
        raise ValueError(f"stage {stage.name} measures nothing")
    end_with_parent()
    start = time.perf_counter()
    store = Store(ref.store)
    params = stage.params(**ref.settings)
    along = Along(ref.along)
    shard = Shard(pq.read_table(ref.items), store, ref.source_root, ref.weights, ref.digests, along.measure)
    with store.blobs.syncing_together():  # before the facts that speak of them
        facts = stage.measure(shard, params.for_measure())
    along.keep()
    MeasurementCache(ref.cache, stage.facts).add(facts.table)
    seconds = time.perf_counter() - start
    return ShardResult(ref.stage, ref.index, len(shard.items), len(facts.table), facts.opened, seconds)


@dataclass(frozen=True)
class OpenWork:
    """What a stage still has to measure, and where the results lie."""

    shards: list[ShardRef]
    cache: MeasurementCache
    known: pa.Table  # facts that were there already
    digests: dict[str, str]  # of the weights, resolved once: a run that goes on training meanwhile changes nothing
    along: tuple[AlongRef, ...] = ()  # later stages that are measured along

    def compact(self) -> None:
        """Merge what the shards have written into few files."""
        for written in (self.cache, *(ref.open_cache() for ref in self.along)):
            written.compact()


def split_open_work(
    stage: Stage,
    params: StageParams,
    items: pa.Table,
    store: Store,
    folder: Path,
    source_root: Path,
    workers: int,
    chain: Sequence[tuple[Stage, StageParams]] = (),
) -> OpenWork:
    """The inputs that were never measured, as shards written below `folder`.

    items: item columns and `input`. Each distinct input is measured once, with one item to represent it.
    chain: the stages of the build; those behind `stage` may be measured along with it.
    """
    digests = stage.weights(params, store)
    cache = stage.cache(params, store, digests)
    known = sound_facts(stage, cache.lookup(items[INPUT]), store)
    open_items = first_of_each(items.filter(lacks_facts(items, known)), INPUT)
    along = find_followers(stage, chain, store, open_items[INPUT])
    size = shard_size(len(open_items), workers, min(MAX_SHARD, stage.max_shard or MAX_SHARD))
    refs = []
    for index, start in enumerate(range(0, len(open_items), size)):
        rows = open_items.slice(start, size)
        path = folder / f"{stage.name}-{index:05d}.parquet"
        write_parquet(path, rows)
        refs.append(
            ShardRef(
                stage=stage.name,
                index=index,
                items=path,
                count=len(rows),
                store=store.root,
                source_root=source_root,
                settings=params.measured_settings(),
                cache=cache.folder,
                digests=digests,
                weights=(store.weights,),
                along=along,
            )
        )
    return OpenWork(refs, cache, known, digests, along)


def name_inputs(stage: Stage, params: StageParams, items: pa.Table) -> pa.Table:
    """Items with the column `input`: the digest under which the stage keeps their facts."""
    if stage.input_column not in items.column_names:
        raise ValueError(f"stage {stage.name} needs the column {stage.input_column!r}; no stage before it gives it")
    inputs = items[stage.input_column].cast(pa.string())
    if stage.inputs is not None:
        inputs = stage.inputs(items, params)
    items = items.drop_columns([INPUT]) if INPUT in items.column_names else items
    return items.append_column(INPUT, inputs)


def lacks_facts(items: pa.Table, facts: pa.Table) -> pa.ChunkedArray:
    """Which items have an input that was never measured: bool (N,)."""
    known = pc.is_in(items[INPUT], value_set=facts[INPUT].combine_chunks())
    return pc.and_(pc.invert(known), pc.is_valid(items[INPUT]))


def shard_size(items: int, workers: int, most: int) -> int:
    """Items per shard: some shards for each worker, so that none waits long for the last one; few hundred at most."""
    return max(MIN_SHARD, min(most, math.ceil(items / (workers * 4))), math.ceil(items / MAX_SHARDS))


def sound_facts(stage: Stage, facts: pa.Table, store: Store) -> pa.Table:
    """The facts whose blobs still exist: a blob that is gone makes its input count as never measured."""
    if len(facts) == 0 or (not stage.blobs and stage.nested_blobs is None):
        return facts
    present = pa.array(list(store.blobs.digests()), pa.string())  # a set to look in: its order says nothing
    for column in stage.blobs:
        facts = facts.filter(pc.or_(pc.is_null(facts[column]), pc.is_in(facts[column], value_set=present)))
    if stage.nested_blobs is not None:
        lists = stage.nested_blobs(facts)
        missing = pc.invert(pc.is_in(pc.list_flatten(lists), value_set=present))
        owners = pc.list_parent_indices(lists).filter(missing)
        rows = pa.array(range(len(facts)), pa.int64())
        facts = facts.filter(pc.invert(pc.is_in(rows, value_set=owners.cast(pa.int64()))))
    return facts
