"""Drawn pictures, and builds of them that need no weights and take a fraction of a second."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.store import Store
from flows.recipe import make_recipe
from flows.runners import Runner, run_locally
from tasks.build import BuildResult, build_version
from tasks.shards import ShardRef, ShardResult
from tasks.stage import Stage


def draw_picture(seed: int, width: int = 96, height: int = 96) -> np.ndarray:
    """uint8 (height, width, 3): thirty coloured discs on a coloured ground; sharp, colourful, no two alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.empty((height, width, 3), np.float64)
    picture[:] = rng.integers(40, 216, 3)
    for _ in range(30):
        cx, cy, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(3, width / 5)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        picture[inside] = rng.integers(0, 256, 3)
    picture += rng.integers(-6, 7, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    """draw(seed, width=96, height=96) -> uint8 (height, width, 3), passing every default threshold."""
    return draw_picture


@pytest.fixture(scope="session")
def png() -> Callable[[np.ndarray], bytes]:
    def encode(picture: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        return buffer.getvalue()

    return encode


@dataclass
class Watch:
    """An observer that remembers what it was told."""

    measured: dict[str, int] = field(default_factory=dict)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    shards: list[ShardResult] = field(default_factory=list)
    waited: list[dict[str, Any]] = field(default_factory=list)

    def waiting_for(self, holder: dict[str, Any]) -> None:
        self.waited.append(holder)

    def metadata_read(self, name: str, done: int, total: int) -> None: ...

    def stage_started(self, stage: str, items: int, to_measure: int) -> None:
        self.measured[stage] = to_measure

    def shard_done(self, result: ShardResult) -> None:
        self.shards.append(result)

    def stage_done(self, stage: str, counts: dict[str, Any]) -> None:
        self.done[stage] = counts


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """recipe(**{"clean.min_blur": 80, ...}) -> recipe values: whole pictures of tmp_path/source, as they are."""

    def values(**changes: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "dataset": "faces",
            "source": {"kind": "folder", "root": str(tmp_path / "source")},
            "crop": {"method": "whole"},
            "upscale": {"size": 0},
        }
        for key, value in changes.items():
            table, name = key.split(".")
            made.setdefault(table, {})[name] = value
        return made

    return values


@pytest.fixture
def build(store: Store, recipe: Callable[..., dict[str, Any]]) -> Callable[..., BuildResult]:
    """build(**recipe changes, into=store, runner=..., workers=..., run_shards=..., watch=...) -> BuildResult."""

    def run(
        into: Store | None = None,
        runner: Runner = Runner.THREADS,
        workers: int = 2,
        run_shards: Callable[[Stage, Sequence[ShardRef]], Iterable[ShardResult]] | None = None,
        watch: Watch | None = None,
        **changes: Any,
    ) -> BuildResult:
        plan = make_recipe(recipe(**changes), "test").plan()
        shards = run_shards or run_locally(runner, workers)
        return build_version(plan, into or store, shards, watch or Watch(), workers)

    return run


@pytest.fixture(autouse=True)
def plain_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histograms are most of a small build's time; tests/datasets/test_card.py draws them."""
    monkeypatch.setattr("datasets.card.draw_histograms", lambda manifest, ledger: b"")


@pytest.fixture
def watch() -> Watch:
    return Watch()
