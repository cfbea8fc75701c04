"""The train and sample flows on a real server, on a tiny version."""

from __future__ import annotations

import shutil
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
from tasks.train import TrainParams

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
    assert "![grid](data:image/" in shown
    assert made["walk"] in shown
    assert len(shown) < MAX_GRID


def test_training_on_nothing_says_what_there_is(recipe: Recipe, store: Path, prefect_api: Any) -> None:
    state = train("nothing", recipe.training, store, return_state=True)
    assert state.is_failed()
    assert "nothing" in str(state.message)
    assert not (store / "runs").exists() or not list((store / "runs").glob("nothing-*"))


def test_a_folder_is_trained_on_and_goes_on(
    pictures: Path, tmp_path: Path, prefect_api: Any, read_artifacts: Callable[[Any], dict[str, Any]]
) -> None:
    folder, out = tmp_path / "board", tmp_path / "run"
    shutil.copytree(pictures, folder, ignore=shutil.ignore_patterns("torn.png"))
    params = {"preset": "dcgan-demo", "resolution": 16, "kimg": 0.016, "algorithm": {"width": 2, "z_dim": 4}}
    asked = TrainParams.model_validate({**params, "batch": 8, "tick_kimg": 0.008, "device": "cpu"})
    state = train(params=asked, store=tmp_path / "store", data=str(folder), out=str(out), return_state=True)
    trained = state.result()
    assert (trained["dataset"], trained["images"], trained["run"]) == (str(folder), 16, out.as_posix())
    assert float(read_artifacts(state)["training"].data) == 100.0

    # as the form sends it: every field is there, and the dataset is what the form began with
    form = TrainParams().model_copy(update={"kimg": 0.024}).model_dump(mode="json")
    state = train(
        "faces", TrainParams.model_validate(form), tmp_path / "store", "", True, "", str(out), return_state=True
    )
    assert state.result()["images"] == 24
    assert not list((tmp_path / "store").glob("runs/*"))
