"""Properties: whatever way a store has come, a build publishes what one full build would have published.

Hypothesis draws the ways: how a drawn board is cut into increments, in which order its rows stand, how large shards
are and where they run, which recipes were built in between, and which threshold is changed how. The board is drawn
once; pictures are cut whole, so that a build takes about a second (one test goes through the face detector).
KAOBAKO_TORTURE=long draws ten times as many examples.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.booru.board import draw_board
from datasets.cache import INPUT
from datasets.store import Store
from datasets.version import count_problems, table_problems, verify_version
from flows.recipe import make_recipe
from flows.runners import _measure
from models.weights import DEFAULT_WEIGHTS, weight_status
from tasks import clean, crop, dedup, shards, upscale
from tasks import filter as filter_stage
from tasks.build import BuildResult, build_version
from tasks.changes import look_for_changes
from tasks.shards import ShardRef, ShardResult, measure_shard
from tasks.stage import Stage

LONG = os.environ.get("KAOBAKO_TORTURE") == "long"
POSTS = 24
pytestmark = [pytest.mark.slow, pytest.mark.timeout(6000 if LONG else 600)]


def examples(count: int) -> settings:
    return settings(
        max_examples=count * (10 if LONG else 1),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


RunShards = Callable[[Stage, Sequence[ShardRef]], Iterable[ShardResult]]


@dataclass
class Watch:
    """Runs shards, and remembers which inputs were measured at which stage. Also the observer of a build."""

    run_shards: RunShards
    inputs: dict[str, list[str]] = field(default_factory=dict)

    def run(self, stage: Stage, refs: Sequence[ShardRef]) -> Iterable[ShardResult]:
        measured = self.inputs.setdefault(stage.name, [])
        for ref in refs:
            # an upscaled crop's noise level stands behind its digest
            measured += [name.partition(":")[0] for name in pq.read_table(ref.items)[INPUT].to_pylist()]
        return self.run_shards(stage, refs)

    def metadata_read(self, name: str, done: int, total: int) -> None: ...

    def stage_started(self, stage: str, items: int, to_measure: int) -> None:
        pass

    def shard_done(self, result: ShardResult) -> None:
        pass

    def stage_done(self, stage: str, counts: dict[str, Any]) -> None:
        pass


def serially(stage: Stage, refs: Sequence[ShardRef]) -> Iterable[ShardResult]:
    return [measure_shard(stage, ref) for ref in refs]


def backwards(stage: Stage, refs: Sequence[ShardRef]) -> Iterable[ShardResult]:
    return [measure_shard(stage, ref) for ref in reversed(refs)]


def in_pool(pool: Executor) -> RunShards:
    def run(stage: Stage, refs: Sequence[ShardRef]) -> Iterable[ShardResult]:
        return [future.result() for future in [pool.submit(_measure, stage.name, ref) for ref in refs]]

    return run


@pytest.fixture(scope="module")
def runners() -> Iterator[dict[str, RunShards]]:
    """Ways to run shards. One pool of processes for all: starting Python takes seconds."""
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        yield {
            "serially": serially,
            "backwards": backwards,
            "threads": in_pool(threads),
            "processes": in_pool(processes),
        }


@dataclass(frozen=True)
class Board:
    """A drawn board: metadata lines, and files by their path below the root."""

    root: Path
    lines: list[str]
    files: list[str]

    def show(self, into: Path, lines: Sequence[int], files: Sequence[int]) -> None:
        """Make `into` hold these lines, in this order, and these files, linked."""
        (into / "metadata").mkdir(parents=True, exist_ok=True)
        name = next((self.root / "metadata").iterdir()).name
        (into / "metadata" / name).write_text("".join(self.lines[k] for k in lines))
        (into / "original").mkdir(exist_ok=True)
        for k in files:
            target = into / self.files[k]
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(self.root / self.files[k], target)

    def shuffled(self, seed: int) -> list[int]:
        """All lines in another order; lines that cannot be read are known by their place, and so keep it."""
        free = [k for k, line in enumerate(self.lines) if is_json(line)]
        moved = iter(np.random.default_rng(seed).permutation(free).tolist())
        return [next(moved) if is_json(line) else k for k, line in enumerate(self.lines)]


def is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    root = tmp_path_factory.mktemp("board") / "drawn"
    draw_board(root, POSTS, seed=4, workers=1)
    lines = next((root / "metadata").iterdir()).read_text().splitlines(keepends=True)
    files = sorted(p.relative_to(root).as_posix() for p in (root / "original").rglob("*") if p.is_file())
    assert len(lines) > 18
    assert len(files) > 18
    return Board(root, lines, files)


def make_plan(root: Path, changes: dict[str, Any]) -> Any:
    values: dict[str, Any] = {
        "source": {"root": str(root)},
        "crop": {"method": "whole"},
        "upscale": {"size": 0},
        "filter": {"ratings": ["safe", "general"]},
    }
    for key, value in changes.items():
        table, name = key.split(".")
        values.setdefault(table, {})[name] = value
    return make_recipe(values, "test").plan()


def build(root: Path, store: Path, changes: dict[str, Any], run: RunShards = serially) -> tuple[BuildResult, Watch]:
    """Build, and check what holds for every build."""
    plan, watch = make_plan(root, changes), Watch(run)
    nothing_new = look_for_changes(plan, Store(store)).nothing
    result = build_version(plan, Store(store), watch.run, watch, workers=2)
    assert not (nothing_new and result.published), "nothing was new, but there was something to publish"
    assert count_problems(result.counts) == []
    assert table_problems(result.counts, result.version.manifest(), result.version.ledger()) == []
    for stage, inputs in watch.inputs.items():
        assert len(inputs) == len(set(inputs)), f"{stage}: an input was measured twice"
    return result, watch


def digests(result: BuildResult) -> tuple[str, str]:
    return result.version.content_digest, result.version.lineage["ledger_digest"]


@pytest.fixture
def fresh() -> Iterator[Callable[[], Path]]:
    """fresh() -> a new folder, for one example; hypothesis runs all examples within one test's fixtures."""
    folders: list[Path] = []

    def make() -> Path:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        folders.append(Path(tempfile.mkdtemp(prefix="history-")))
        return folders[-1]

    yield make
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


# ---- increments ------------------------------------------------------------------------------------------------------

DETOURS: tuple[dict[str, Any], ...] = (
    {},
    {"clean.min_blur": 0.5},
    {"dedup.near": False},
    {"filter.ratings": ["safe", "questionable", "explicit"]},
    {"augment.mirror": True},
    {"crop.background": "#102030"},
)


@st.composite
def ways(draw: st.DrawFn) -> dict[str, Any]:
    """A way for a board to get into a store: for each increment its lines and files, shards, runner and recipe."""
    steps = draw(st.integers(1, 4))
    cuts = st.integers(0, steps - 1)
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    return {
        "seed": seed,
        # most posts come with their file, some rows wait for it, some files for their row
        "lines": rng.integers(0, steps, 200).tolist(),
        "late": draw(cuts),
        "runners": draw(
            st.lists(st.sampled_from(["serially", "backwards", "threads", "processes"]), min_size=steps, max_size=steps)
        ),
        "detours": draw(st.lists(st.sampled_from(range(len(DETOURS))), min_size=steps, max_size=steps)),
        "smallest": draw(st.sampled_from([1, 2, 5, 16])),
        "largest": draw(st.sampled_from([1, 3, 1000])),
    }


@pytest.fixture(scope="module")
def at_once(board: Board, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The digests of one full build."""
    store = tmp_path_factory.mktemp("once") / "store"
    result, _ = build(board.root, store, {})
    assert verify_version(Store(store), result.version) == []
    assert len(result.version.manifest()) >= 8
    assert len(result.version.ledger()) >= 5
    return digests(result)


def test_every_way_ends_in_the_same_version(
    board: Board,
    at_once: tuple[str, str],
    runners: dict[str, RunShards],
    fresh: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @examples(10)
    @given(way=ways())
    def check(way: dict[str, Any]) -> None:
        folder = fresh()
        monkeypatch.setattr(shards, "MIN_SHARD", way["smallest"])
        monkeypatch.setattr(shards, "MAX_SHARD", way["largest"])
        order = board.shuffled(way["seed"])
        last = len(way["runners"]) - 1
        for step, (runner, detour) in enumerate(zip(way["runners"], way["detours"], strict=True)):
            lines = [k for k in order if step == last or way["lines"][k] <= step]
            files = [
                k for k in range(len(board.files)) if step == last or way["lines"][k] + k % (way["late"] + 1) <= step
            ]
            board.show(folder / "source", lines, files)
            changes = {} if step == last else DETOURS[detour]
            result, _ = build(folder / "source", folder / "store", changes, runners[runner])
        assert digests(result) == at_once

    check()


def test_increments_through_the_face_detector(
    board: Board, runners: dict[str, RunShards], fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops are many per picture or none, and upscaling makes new blobs."""
    need_weights(*DEFAULT_WEIGHTS)
    changes = {"crop.method": "face", "crop.detector": "lbp", "crop.search_side": 512, "upscale.size": 64}
    folder = fresh()
    expected, _ = build(board.root, folder / "once", changes)
    assert expected.opened["upscale"] > 5
    monkeypatch.setattr(shards, "MIN_SHARD", 3)
    half = range(0, len(board.files), 2)
    board.show(folder / "source", range(len(board.lines)), half)
    build(folder / "source", folder / "store", changes, runners["threads"])
    board.show(folder / "source", board.shuffled(1), range(len(board.files)))
    result, watch = build(folder / "source", folder / "store", changes, runners["processes"])
    assert digests(result) == digests(expected)
    assert 0 < len(watch.inputs["crop"]) <= len(board.files) - len(half)


def need_weights(*names: str) -> None:
    """Skip (in CI: fail) when weights are not on this machine."""
    for status in map(weight_status, names):
        if status.state != "ok":
            (pytest.fail if os.environ.get("CI") else pytest.skip)(status.message)


# ---- thresholds ------------------------------------------------------------------------------------------------------

PARAMS = {
    "filter": filter_stage.FilterParams,
    "crop": crop.CropParams,
    "clean": clean.CleanParams,
    "dedup": dedup.DedupParams,
    "upscale": upscale.UpscaleParams,
}
# Where a number's interesting values are: just below, at and just above what was measured.
COLUMNS = {
    "filter.min_score": ("score",),
    "filter.max_score": ("score",),
    "filter.min_side": (),  # the manifest does not keep what the metadata promised
    "filter.min_bytes": (),
    "crop.min_face": ("face_w",),
    "crop.min_score": ("detector_score",),
    "crop.min_size": ("box_w", "box_h"),
    "crop.max_faces": ("faces_in_crop",),
    "clean.min_side": ("box_w", "box_h"),
    "clean.min_tint_residual": ("tint_residual",),
    "clean.min_colours": ("colours",),
    "clean.min_blur": ("blur",),
    "clean.min_contrast": ("contrast",),
    "clean.max_aspect": ("aspect",),
    "clean.max_bars": ("bars",),
    "clean.max_black_share": ("black_share",),
    "clean.max_white_share": ("white_share",),
    "clean.min_jpeg_quality": ("jpeg_quality",),
    "clean.min_native_scale": ("native_scale",),
}
OTHERS: dict[str, tuple[Any, ...]] = {
    "filter.ratings": (["safe"], ["general"], ["safe", "questionable"], ["safe", "general", "explicit"]),
    "filter.tags_all": (["1girl"], ["smile"]),
    "filter.tags_any": (["1girl", "no_humans"], ["smile", "blush"]),
    "filter.tags_none": (["no_humans"], ["monochrome", "1girl"]),
    "filter.min_side": (300, 400, 500),
    "filter.min_bytes": (5_000, 50_000, 150_000),
    "filter.take_deleted": (True,),
    "filter.take_banned": (True,),
    "filter.extensions": (["png"], ["jpg", "jpeg", "png", "webp", "bmp", "gif"]),
    "filter.children": ("drop", "drop-beside-parent", "only-parents"),
    "filter.created_from": ("2016-01-01",),
    "filter.created_to": ("2019-01-01",),
    "filter.ids_only": (),  # every second post
    "filter.ids_except": (),
    "filter.max_aspect": (1.0, 1.3),
    "filter.min_aspect": (1.1,),
    "filter.max_bytes": (50_000, 150_000),
    "filter.min_favourites": (5, 40),
    "filter.max_favourites": (5, 40),
    "filter.min_megapixels": (0.15, 0.3),
    "filter.max_megapixels": (0.15, 0.3),
    "filter.max_side": (400, 600),
    "filter.min_score_percentile": (25.0, 60.0),
    "filter.take_unsaid": (False,),
    "crop.drop_cut": (True,),
    "crop.drop_inside": (False,),
    "dedup.near": (False,),
    "dedup.radius": (0, 2, 10),
    "dedup.source_radius": (0, 2, 10),
    "dedup.mirror": (False,),
    "dedup.mirror_radius": (0, 10),
    "dedup.radius256": (10, 120),
    "upscale.max_factor": (1.0, 1.3, 2.0, 8.0),
    "upscale.min_native_scale": (None, 0.5, 0.8, 0.95),
}
WHOLE: dict[str, Any] = {"augment.mirror": True, "filter.ratings": ["safe", "general"]}
FACES = {**WHOLE, "crop.method": "face", "crop.detector": "lbp", "crop.search_side": 512, "upscale.size": 72}
FACES["upscale.fit"] = "letterbox"
NEEDS_FACES = (
    *("crop.min_face", "crop.min_score", "crop.max_faces", "crop.drop_cut", "crop.drop_inside"),
    *("upscale.max_factor", "upscale.min_native_scale"),
)
ID_FILES = {"filter.ids_only_file", "filter.ids_except_file"}  # the same lists, read from a file


def test_every_threshold_is_drawn() -> None:
    """A new threshold must be added above: whatever measure() does not read is one."""
    fields = {f"{name}.{f}" for name, params in PARAMS.items() for f in params.model_fields.keys() - params.measured}
    assert fields - ID_FILES == COLUMNS.keys() | OTHERS.keys()


@dataclass(frozen=True)
class Base:
    """A store with one version, and what reached each stage in it."""

    store: Path
    changes: dict[str, Any]
    result: BuildResult
    reached: dict[str, set[str]]


def reach(result: BuildResult, stages: Iterable[str]) -> dict[str, set[str]]:
    """The distinct inputs that reached each measuring stage, read out of the version's tables alone."""
    order = list(result.counts)
    rows = [(len(order), row) for row in result.version.manifest().to_pylist()]
    rows += [(order.index(row["stage"]), row) for row in result.version.ledger().to_pylist()]
    # `augment` adds children, whose parents stand beside them; its input is the picture as it would be published
    rows = [(place, row) for place, row in rows if row["augmentation"] is None]
    column = {"crop": "file_digest", "augment": "blob"}
    reached = {}
    for stage in stages:
        if stage != "fingerprint":
            inputs = {row[column.get(stage, "pixel_digest")] for place, row in rows if place >= order.index(stage)}
            reached[stage] = inputs - {None}
    return reached


def make_base(board: Board, folder: Path, changes: dict[str, Any]) -> Base:
    result, watch = build(board.root, folder / "store", changes)
    reached = reach(result, watch.inputs)
    for stage, inputs in reached.items():
        assert set(watch.inputs[stage]) == inputs, stage  # the tables say truly what a first build measured
    return Base(folder / "store", changes, result, reached)


@pytest.fixture(scope="module")
def whole(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(board, tmp_path_factory.mktemp("whole"), WHOLE)


@pytest.fixture(scope="module")
def faces(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Base:
    need_weights(*DEFAULT_WEIGHTS)
    return make_base(board, tmp_path_factory.mktemp("faces"), FACES)


def values_for(key: str, base: Base) -> list[Any]:
    """Values of a threshold that change something: near what was measured."""
    tables = (base.result.version.manifest(), base.result.version.ledger())
    found = {v for table in tables for name in COLUMNS.get(key, ()) for v in table[name].to_pylist() if v is not None}
    values: list[Any] = list(OTHERS.get(key, ()))
    stage, name = key.split(".")
    if name.startswith("ids_"):
        posts = sorted({row for table in tables for row in table["post_id"].to_pylist()})
        return [posts[::2]]
    whole_number = isinstance(PARAMS[stage].model_fields[name].default, int) or name in ("min_score", "max_score")
    whole_number &= key != "crop.min_score"
    for value in sorted(found):
        steps = (value - 1, value, value + 1) if whole_number else (value, float(np.nextafter(value, np.inf)))
        values += [
            step
            for step in steps
            if step >= (1 if key in ("crop.min_size", "crop.min_face", "clean.max_aspect") else 0)
        ]
    return values if key != "crop.min_score" else [value for value in values if value <= 1]


@dataclass
class Eye:
    """Counts what is truly decoded: source pictures and blobs, not the card's thumbnails."""

    decoded: int = 0

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = Image.open

        def open_picture(file: Any, *arguments: Any, **options: Any) -> Any:
            self.decoded += not (isinstance(file, str | Path) and "thumbnails" in Path(file).parts)
            return real(file, *arguments, **options)

        monkeypatch.setattr(Image, "open", open_picture)


def change_threshold(board: Board, base: Base, folder: Path, key: str, value: Any, eye: Eye) -> BuildResult:
    """Rebuild with one threshold changed, beside a full build: everything that must hold. Gives the rebuild."""
    changes = {**base.changes, key: value}
    shutil.copytree(base.store, folder / "store", copy_function=os.link)
    eye.decoded = 0
    result, watch = build(board.root, folder / "store", changes)
    decoded = eye.decoded
    full, full_watch = build(board.root, folder / "full", changes)
    assert digests(result) == digests(full)
    assert result.counts == full.counts
    # exactly what reaches a stage now and never did before
    reached = reach(full, full_watch.inputs)
    expected = {stage: inputs - base.reached.get(stage, set()) for stage, inputs in reached.items()}
    measured = {stage: set(inputs) for stage, inputs in watch.inputs.items() if stage != "fingerprint"}
    assert measured == {stage: inputs for stage, inputs in expected.items() if inputs}
    opened = {stage: count for stage, count in result.opened.items() if count}
    assert opened == {stage: len(inputs) for stage, inputs in measured.items()}
    assert decoded == sum(opened.values()), "pictures were opened that nobody counted"
    if kept_is_subset(result, base.result):
        # nothing new passes up to dedup, whose choice among copies alone may bring a picture in that was out
        assert opened.keys() <= {"upscale", "augment"}
    return result


def kept_is_subset(result: BuildResult, before: BuildResult) -> bool:
    """Whether the change was towards stricter: every stage up to clean keeps no more than it did, item by item."""

    def fell(build_result: BuildResult) -> set[str]:
        ledger = build_result.version.ledger()
        stages, items = ledger["stage"].to_pylist(), ledger["post_id"].to_pylist()
        return {item for stage, item in zip(stages, items, strict=True) if stage in ("filter", "crop", "clean")}

    return fell(result) >= fell(before)


def test_any_threshold_of_whole_pictures(
    board: Board, whole: Base, fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    eye = Eye()
    eye.watch(monkeypatch)
    kinds: Counter[bool] = Counter()
    keys = sorted((COLUMNS.keys() | OTHERS.keys()) - set(NEEDS_FACES))

    @examples(10)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(keys))
        value = data.draw(st.sampled_from(values_for(key, whole)))
        result = change_threshold(board, whole, fresh(), key, value, eye)
        kinds[any(result.opened.values())] += 1

    check()
    assert kinds[True] >= 1
    assert kinds[False] >= 1


@pytest.mark.parametrize("key", NEEDS_FACES)
def test_thresholds_of_faces(
    board: Board, faces: Base, fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    eye = Eye()
    eye.watch(monkeypatch)
    values = values_for(key, faces)
    change_threshold(board, faces, fresh(), key, values[len(values) // 2], eye)
