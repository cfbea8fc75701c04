"""Rules on the whole source: what they say is the same however the source has grown, and their lists are inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from datasets.store import Store
from datasets.version import LEDGER_FILE
from flows.recipe import make_recipe
from tasks.build import BuildResult
from tasks.changes import look_for_changes
from tasks.forecast import forecast_build

Build = Callable[..., BuildResult]
Grow = Callable[[int, int], None]


@pytest.fixture
def grow(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]) -> Grow:
    """grow(first, last): pictures with their numbers as scores; the table of scores names all so far."""
    folder = tmp_path / "source"
    folder.mkdir()

    def add(first: int, last: int) -> None:
        for k in range(first, last):
            (folder / f"{k}.png").write_bytes(png(draw(k)))
        rows = "".join(f"{k}.png,{k},general\n" for k in range(last))
        (folder / "scores.csv").write_text("path,score,rating\n" + rows)

    return add


def fallen(result: BuildResult) -> set[str]:
    table = pq.read_table(result.version.folder / LEDGER_FILE)
    return {row["item_id"] for row in table.to_pylist() if row["stage"] == "filter"}


def test_percentiles_of_a_growing_source_are_those_of_one_full_build(tmp_path: Path, grow: Grow, build: Build) -> None:
    asked: dict[str, Any] = {"source.metadata": "scores.csv", "filter.min_score_percentile": 50}
    grow(0, 4)
    first = build(**asked)
    assert fallen(first) == {"0.png", "1.png"}
    grow(4, 8)
    grown = build(**asked)
    assert fallen(grown) == {"0.png", "1.png", "2.png", "3.png"}
    at_once = build(into=Store(tmp_path / "other"), **asked)
    assert grown.version.content_digest == at_once.version.content_digest
    assert fallen(grown) == fallen(at_once)


def test_another_content_of_an_id_list_is_something_new(
    tmp_path: Path, grow: Grow, build: Build, recipe: Callable[..., dict[str, Any]], store: Store
) -> None:
    grow(0, 3)
    names = tmp_path / "names.txt"
    names.write_text("0.png\n1.png\n")
    asked = {"filter.ids_only_file": str(names)}
    assert fallen(build(**asked)) == {"2.png"}

    def plan() -> Any:
        return make_recipe(recipe(**asked), "test").plan()

    assert look_for_changes(plan(), store).nothing
    names.write_text("0.png\n2.png\n")
    found = look_for_changes(plan(), store)
    assert not found.nothing
    assert "filter.ids_only_file" in found.reasons[0]
    forecast = forecast_build(plan(), store)
    second = build(**asked)
    assert fallen(second) == {"1.png"}
    assert {row["item_id"] for row in forecast.ledger.to_pylist() if row["stage"] == "filter"} == {"1.png"}
    assert names.name in second.version.lineage["recipe"]["filter"]["ids_only_file"]
