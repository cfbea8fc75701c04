"""History does not matter: runners, shard sizes, increments and kills all end in one content digest."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.store import Store
from datasets.version import verify_version
from flows.recipe import MEASURED_STAGES
from flows.runners import Runner, run_locally
from tasks import shards
from tasks.build import BuildResult
from tasks.shards import ShardRef, ShardResult, measure_shard
from tasks.stage import Stage

Build = Callable[..., BuildResult]
COUNT = 24

MIRRORED = {"augment.mirror": True}
KILLED = """
import json, sys, time
from pathlib import Path
from datasets.store import Store
from flows.recipe import make_recipe
from tasks import shards
from tasks.build import build_version
from tasks.shards import measure_shard
shards.MIN_SHARD = 2
class Silent:
    def waiting_for(self, *a): pass
    def metadata_read(self, *a): pass
    def stage_started(self, *a): pass
    def shard_done(self, *a): pass
    def stage_done(self, *a): pass
def run(stage, refs):
    for ref in refs:
        yield measure_shard(stage, ref)
        print(stage.name, flush=True)
        time.sleep(float(sys.argv[3]))
plan = make_recipe(json.loads(sys.argv[1]), "test").plan()
build_version(plan, Store(Path(sys.argv[2])), run, Silent(), 4)
"""


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for k in range(COUNT - 4):
        (folder / f"{k:02d}.png").write_bytes(png(draw(k)))
    for k in range(4):
        (folder / f"copy{k}.png").write_bytes(png(draw(k)[:, ::-1] if k % 2 else draw(k)))
    return folder


def one_by_one(stage: Stage, refs: Sequence[ShardRef]) -> Iterable[ShardResult]:
    return (measure_shard(stage, ref) for ref in refs)


def shuffled(stage: Stage, refs: Sequence[ShardRef]) -> Iterable[ShardResult]:
    """Shards in any order, and each of them twice, as after a retry."""
    order = [*refs, *refs]
    random.Random(3).shuffle(order)
    return [measure_shard(MEASURED_STAGES[stage.name], ref) for ref in order]


def digests(result: BuildResult) -> tuple[str, str]:
    return result.version.content_digest, result.version.lineage["ledger_digest"]


def test_threads_shard_sizes_and_order_do_not_matter(
    source: Path, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {digests(build(into=Store(tmp_path / "serial"), run_shards=one_by_one, workers=1))}
    monkeypatch.setattr(shards, "MIN_SHARD", 1)
    for workers in (1, 3, 7):
        found.add(digests(build(into=Store(tmp_path / f"threads{workers}"), workers=workers)))
    monkeypatch.setattr(shards, "MAX_SHARD", 1)
    found.add(digests(build(into=Store(tmp_path / "shuffled"), run_shards=shuffled)))
    assert len(found) == 1


def test_processes_give_the_same_version(source: Path, build: Build, tmp_path: Path) -> None:
    """One worker, and the stage whose facts are the most complex: starting Python costs seconds each time."""
    in_process = run_locally(Runner.PROCESSES, 1)

    def run(stage: Stage, refs: Sequence[ShardRef]) -> Iterable[ShardResult]:
        return in_process(stage, refs) if stage.name == "crop" else one_by_one(stage, refs)

    serial = build(run_shards=one_by_one)
    assert digests(build(into=Store(tmp_path / "processes"), run_shards=run)) == digests(serial)


@pytest.mark.parametrize("order", [range(COUNT), reversed(range(COUNT))], ids=["forward", "backward"])
def test_increments_give_the_same_version_as_all_at_once(
    source: Path, build: Build, tmp_path: Path, order: Iterable[int]
) -> None:
    at_once = build(into=Store(tmp_path / "at once"))
    files = sorted(source.iterdir())
    aside = tmp_path / "aside"
    aside.mkdir()
    for path in files:
        path.rename(aside / path.name)
    names = [files[k].name for k in order]
    versions = []
    for start in range(0, COUNT, 8):
        for name in names[start : start + 8]:
            (aside / name).rename(source / name)
        versions.append(build())
    assert [result.version.number for result in versions] == [1, 2, 3]
    assert digests(versions[-1]) == digests(at_once)
    assert versions[-1].opened["crop"] <= 8


def test_the_way_through_other_thresholds_does_not_matter(source: Path, build: Build, tmp_path: Path) -> None:
    expected = digests(build(into=Store(tmp_path / "direct")))
    for changes in ({"clean.min_blur": 0.55}, {"dedup.mirror": False}, {"crop.min_size": 500}, {"dedup.radius": 0}):
        build(**changes)
    assert digests(build()) == expected


def test_the_order_of_the_listing_does_not_matter(
    source: Path, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digests(build(into=Store(tmp_path / "listed")))
    scan = os.scandir

    class Reversed:
        def __init__(self, folder: Any) -> None:
            with scan(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr("datasets.sources.files.os.scandir", Reversed)
    assert digests(build()) == expected


@pytest.mark.parametrize(("stage", "shard"), [("crop", 2), ("augment", 3)])
def test_a_killed_build_leaves_nothing_visible_and_its_work_is_not_lost(
    source: Path,
    build: Build,
    store: Store,
    recipe: Callable[..., dict[str, Any]],
    stage: str,
    shard: int,
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", KILLED, json.dumps(recipe(**MIRRORED)), str(store.root), "0.05"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line.strip() == stage
        if seen == shard:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert seen == shard, "the build ended before it was killed"
    assert store.version_numbers("faces") == []
    assert store.dataset_names() == ["faces"]

    result = build(**MIRRORED)
    assert digests(result) == digests(build(into=Store(tmp_path / "undisturbed"), **MIRRORED))
    assert verify_version(store, result.version) == []
    assert result.opened.get(stage, 0) < COUNT
    assert list(store.dataset("faces").glob(".staging*")) == []


def test_a_build_killed_while_it_publishes_leaves_no_version(
    source: Path, build: Build, store: Store, recipe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    stop = "import datasets.card\ndef stop(*a):\n    print('publishing', flush=True)\n    time.sleep(60)\n"
    script = KILLED.replace("class Silent", stop + "datasets.card.draw_histograms = stop\nclass Silent")
    command = [sys.executable, "-c", script, json.dumps(recipe()), str(store.root), "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "publishing\n" in iter(process.stdout.readline, "")
    process.kill()
    process.wait()
    assert len(list(store.dataset("faces").glob(".staging*"))) == 1
    assert store.version_numbers("faces") == []
    started = time.monotonic()
    result = build()
    assert time.monotonic() - started < 30  # the dead holder's lock did not have to go stale
    assert result.version.number == 1
    assert set(result.opened.values()) == {0}
    assert list(store.dataset("faces").glob(".staging*")) == []
