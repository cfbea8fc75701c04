"""The train and sample flows on a real server, on a tiny version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.curate import curate_without_prefect
from flows.observers import ConsoleObserver
from flows.recipe import Recipe, load_recipe
from flows.sample import sample
from flows.train import train
from tasks.sample import SampleParams

pytestmark = pytest.mark.prefect
MAX_GRID = 150_000  # bytes of a data URI: they lie in Prefect's database


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


@pytest.fixture(scope="module")
def store(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the version little@v1."""
    root = tmp_path_factory.mktemp("training")
    with ConsoleObserver() as observer:
        curate_without_prefect(recipe, root, observer, workers=1)
    return root


def test_a_training_and_its_samples_leave_artifacts(
    recipe: Recipe, store: Path, prefect_api: Any, read_artifacts: Callable[[Any], dict[str, Any]]
) -> None:
    state = train("little", recipe.training, store, return_state=True)
    trained = state.result()
    assert (trained["dataset"], trained["images"], trained["stopped"]) == ("little@v1", 32, False)
    assert Path(trained["snapshot"]).exists()
    artifacts = read_artifacts(state)
    assert float(artifacts["training"].data) == 100.0
    grids = artifacts["training-grids"].data
    assert grids.count("](data:image/") == 2
    assert "![reals]" in grids
    assert "![fakes]" in grids
    assert len(grids) < MAX_GRID

    run = Path(trained["run"]).name
    params = SampleParams(seeds="0-7", columns=4, cell=0, walk_seconds=0.5)
    state = sample(run, params, store, return_state=True)
    made = state.result()
    assert {"grid", "walk"} == set(made)
    assert all(Path(path).stat().st_size > 0 for path in made.values())
    shown = read_artifacts(state)["samples"].data
    assert "![samples](data:image/" in shown
    assert made["walk"] in shown
    assert len(shown) < MAX_GRID


def test_training_on_nothing_says_what_there_is(recipe: Recipe, store: Path, prefect_api: Any) -> None:
    state = train("nothing", recipe.training, store, return_state=True)
    assert state.is_failed()
    assert "nothing" in str(state.message)
    assert not (store / "runs").exists() or not list((store / "runs").glob("nothing-*"))
