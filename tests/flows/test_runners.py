"""Runners: tasks exchange references only, and a failure in one shard is a failure of the build."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import KaobakoError
from datasets.store import Store
from flows.recipe import MEASURED_STAGES, SHARD_TASKS, load_recipe
from flows.runners import Runner, prefect_runner, run_locally, worker_count
from tasks.build import build_version
from tasks.shards import ShardRef, ShardResult
from tasks.stage import Stage

SMALL = 4096  # bytes: results stay in Prefect's memory until a flow ends


class Silent:
    """An observer that says nothing."""

    def metadata_read(self, name: str, done: int, total: int) -> None: ...

    def stage_started(self, stage: str, items: int, to_measure: int) -> None: ...

    def shard_done(self, result: ShardResult) -> None: ...

    def stage_done(self, stage: str, counts: dict[str, Any]) -> None: ...


def test_tasks_exchange_small_references(recipe_file: Path, tmp_path: Path) -> None:
    """What a build gives its tasks, and what they give back, is a few hundred bytes, whatever is in a shard."""
    seen: list[tuple[str, ShardRef, ShardResult]] = []
    measure = run_locally(Runner.THREADS, 1)

    def record(stage: Stage, shards: Sequence[ShardRef]) -> Iterator[ShardResult]:
        for shard in shards:
            (result,) = measure(stage, [shard])
            seen.append((stage.name, shard, result))
            yield result

    recipe = load_recipe(recipe_file)
    build_version(recipe.plan(), Store(tmp_path / "store"), record, Silent(), workers=2)
    assert {name for name, _, _ in seen} == {"fingerprint", "crop"}  # the others along with it
    for _, shard, result in seen:
        assert isinstance(shard, ShardRef)
        assert isinstance(result, ShardResult)
        assert len(pickle.dumps(shard)) < SMALL
        assert len(pickle.dumps(result)) < SMALL
        assert pickle.loads(pickle.dumps(shard)) == shard  # noqa: S301 - our own bytes, made a line before


def test_every_measured_stage_has_a_task_that_takes_a_reference() -> None:
    assert set(SHARD_TASKS) == set(MEASURED_STAGES)
    for name, shard_task in SHARD_TASKS.items():
        parameters = signature(shard_task.fn)
        assert {p: str(v.annotation) for p, v in parameters.parameters.items()} == {"shard": "ShardRef"}, name
        assert str(parameters.return_annotation) == "ShardResult", name
        assert shard_task.name == name


def test_a_broken_shard_fails_the_build(recipe_file: Path, tmp_path: Path) -> None:
    measure = run_locally(Runner.THREADS, 2)

    def lose_a_file(stage: Stage, shards: Sequence[ShardRef]) -> Iterator[ShardResult]:
        broken = [replace(shard, items=shard.items.with_suffix(".gone")) for shard in shards]
        yield from measure(stage, broken)

    store = Store(tmp_path / "store")
    with pytest.raises(FileNotFoundError):
        build_version(load_recipe(recipe_file).plan(), store, lose_a_file, Silent(), workers=2)
    assert store.version_numbers("little") == []
    assert not list(store.root.rglob("fingerprint-*.parquet")), "the shards of a failed build are tidied up"


def test_ray_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KaobakoError, match="--no-prefect"):
        run_locally(Runner.RAY, 1)
    monkeypatch.setitem(__import__("sys").modules, "prefect_ray", None)
    with pytest.raises(KaobakoError, match=r"pip install 'kaobako\[ray\]'"):
        prefect_runner(Runner.RAY, 1)


def test_zero_workers_is_one_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert (worker_count(0), worker_count(3)) == (6, 3)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert worker_count(0) == 1
