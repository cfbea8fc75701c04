"""Recipes: a bad one is an error that names the key, before any work starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from datasets.sources.config import Rating, SourceKind
from flows.recipe import (
    STAGES,
    Recipe,
    RecipeError,
    apply_overrides,
    load_recipe,
    make_recipe,
    make_training,
    read_value,
)
from tasks.crop import CropMethod
from tasks.train import TrainParams

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_plans(path: Path) -> None:
    recipe = load_recipe(path)
    plan = recipe.plan()
    assert plan.dataset == recipe.dataset
    assert [stage.name for stage, _ in plan.stages] == [stage.name for stage, _ in STAGES]
    assert all(type(params) is stage.params for stage, params in plan.stages)
    assert recipe.training.resolve().batch >= 2


def test_recipes_ship() -> None:
    assert {"anime-faces", "demo"} <= {path.stem for path in RECIPES}


def test_values_reach_the_stages(tmp_path: Path) -> None:
    path = write(tmp_path, 'dataset = "a"\n[source]\nkind = "folder"\nroot = "x"\n[crop]\nmethod = "portrait"\n')
    recipe = load_recipe(path, ["crop.min_size=96", 'filter.tags_none=["sketch", "comic"]', 'filter.ratings=["safe"]'])
    assert recipe.source.kind is SourceKind.FOLDER
    assert (recipe.crop.method, recipe.crop.min_size) == (CropMethod.PORTRAIT, 96)
    assert recipe.filter.tags_none == ("sketch", "comic")
    assert recipe.filter.ratings == (Rating.SAFE,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset = ", "cannot be read"),
        ('dateset = "faces"', "dateset"),
        ("[crop]\nmin_sise = 3", "crop.min_sise"),
        ("[crop]\nmin_size = 0", "crop.min_size"),
        ('[crop]\nmethod = "nose"', "crop.method"),
        ('[filter]\nratings = ["safe", "nice"]', "filter.ratings.1"),
        ('dataset = "../faces"', "dataset"),
        ("[training]\nkimg = -1", "training.kimg"),
        ('[clean]\nmin_blur = "sharp"', "clean.min_blur"),
    ],
)
def test_an_unusable_recipe_names_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_or_binary_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "picture.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "picture.toml")


@pytest.mark.parametrize("override", ["crop.min_size", "=3", "crop..min_size=3", "", "."])
def test_an_override_needs_a_key_and_a_value(override: str) -> None:
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        apply_overrides({}, [override])


def test_an_override_cannot_go_through_a_value() -> None:
    with pytest.raises(RecipeError, match="dataset is a value"):
        apply_overrides({"dataset": "faces"}, ["dataset.name=x"])


def test_an_unknown_override_is_an_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"crop\.min_sise"):
        load_recipe(write(tmp_path, 'dataset = "a"'), ["crop.min_sise=3"])


def test_overrides_leave_the_given_values_alone() -> None:
    values = {"crop": {"min_size": 64}}
    assert apply_overrides(values, ["crop.min_size=96", "dataset=a=b"]) == {"crop": {"min_size": 96}, "dataset": "a=b"}
    assert values == {"crop": {"min_size": 64}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ('["a"]', ["a"]),
        ("plain words", "plain words"),
        ("", ""),
    ],
)
def test_values_read_as_meant(text: str, value: object) -> None:
    assert read_value(text) == value


def test_training_settings_name_the_key() -> None:
    assert make_training({"preset": "dcgan-demo"}, ["kimg=20"]).resolve().kimg == 20
    with pytest.raises(RecipeError, match="batch"):
        make_training({}, ["batch=1"])
    with pytest.raises(RecipeError, match="speed"):
        make_training({}, ["speed=11"])


def test_training_settings_are_no_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that do not go together have no name, and these came from a command."""

    def refuse(values: object) -> TrainParams:
        raise ValidationError.from_exception_data(
            "TrainParams",
            [{"type": "value_error", "loc": (), "input": values, "ctx": {"error": ValueError("no pair")}}],
        )

    monkeypatch.setattr(TrainParams, "model_validate", refuse)
    with pytest.raises(RecipeError) as refused:
        make_training({}, ["kimg=20"])
    assert str(refused.value) == "the training settings are not usable:\n  no pair"


def test_a_recipe_survives_json() -> None:
    """The form, the deployment and the lineage hold recipes as JSON."""
    recipe = Recipe()
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("setting", ["clean.min_blur=Infinity", "crop.up=NaN"])
def test_endless_numbers_are_refused_before_any_work(setting: str) -> None:
    with pytest.raises(RecipeError, match=setting.split("=")[0]):
        make_recipe(apply_overrides({}, [setting]), "given")


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = make_recipe(apply_overrides({}, ["source.root=~/pictures"]), "given")
    assert recipe.source.root == tmp_path / "pictures"
