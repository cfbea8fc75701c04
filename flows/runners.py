"""Runners: where shards are measured. The same shards, the same results, whichever is chosen."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from enum import StrEnum
from multiprocessing import get_context
from typing import Any

from prefect.futures import as_completed as futures_as_completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from datasets.errors import KaobakoError
from flows.recipe import MEASURED_STAGES, SHARD_TASKS
from tasks.build import RunShards
from tasks.shards import ShardRef, ShardResult, end_with_parent, measure_shard
from tasks.stage import Stage


class Runner(StrEnum):
    """Where shards run."""

    THREADS = "threads"
    PROCESSES = "processes"
    RAY = "ray"


def worker_count(workers: int) -> int:
    """The given number, or one per core for 0."""
    return workers or os.cpu_count() or 1


def prefect_runner(runner: Runner, workers: int) -> TaskRunner[Any]:
    """A Prefect task runner by name. Raises KaobakoError when Ray is asked for and not installed."""
    if runner is Runner.THREADS:
        return ThreadPoolTaskRunner(max_workers=worker_count(workers))
    if runner is Runner.PROCESSES:
        return ProcessPoolTaskRunner(max_workers=worker_count(workers))
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise KaobakoError("the ray runner needs prefect-ray: pip install 'kaobako[ray]'") from error
    ray: TaskRunner[Any] = RayTaskRunner(init_kwargs={"num_cpus": worker_count(workers)})
    return ray


def run_with_prefect(task_runner: TaskRunner[Any]) -> RunShards:
    """Shards as Prefect task runs, on a task runner that has been entered."""

    def run(stage: Stage, shards: Sequence[ShardRef]) -> Iterator[ShardResult]:
        shard_task = SHARD_TASKS[stage.name]
        futures = [task_runner.submit(shard_task, parameters={"shard": shard}) for shard in shards]
        for future in futures_as_completed(futures):
            yield future.result()

    return run


def run_locally(runner: Runner, workers: int) -> RunShards:
    """Shards without Prefect, by the same pure functions. Raises KaobakoError for Ray, which needs Prefect."""
    if runner is Runner.RAY:
        raise KaobakoError("the ray runner works through Prefect: leave --no-prefect out, or use --runner processes")

    def run(stage: Stage, shards: Sequence[ShardRef]) -> Iterator[ShardResult]:
        with _executor(runner, workers) as executor:
            futures = [executor.submit(_measure, stage.name, shard) for shard in shards]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                raise

    return run


def _executor(runner: Runner, workers: int) -> Executor:
    if runner is Runner.PROCESSES:
        return ProcessPoolExecutor(worker_count(workers), get_context("spawn"), initializer=end_with_parent)
    return ThreadPoolExecutor(worker_count(workers), thread_name_prefix="shard")


def _measure(stage_name: str, shard: ShardRef) -> ShardResult:
    """Measure a shard by its stage's name: stages hold functions, which do not all travel between processes."""
    return measure_shard(MEASURED_STAGES[stage_name], shard)
