"""`kaobako tune` and the early end of `kaobako curate`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Kaobako = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path, recipe_file: Path, kaobako: Kaobako) -> Path:
    folder = tmp_path / "store"
    said = kaobako("curate", recipe_file, "--no-prefect", "--store", folder)
    assert said.code == 0, said.err
    return folder


def test_tune_says_what_would_change_and_draws_it(
    store: Path, recipe_file: Path, kaobako: Kaobako, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    settings = ("--set", "clean.min_side=65", "--store", store, "--out", out)
    said = kaobako("tune", recipe_file, *settings)
    assert said.code == 0, said.err
    assert "removed" in said.out
    assert "clean.min_side" in said.out
    assert "against clean.min_side 48 -> 65" in said.out
    for name in ("thresholds.png", "crossing.jpg"):
        with Image.open(out / name) as picture:
            picture.load()
    made = json.loads(kaobako("tune", recipe_file, *settings, "--json").out)
    assert "removed" in {row["change"] for row in made["summary"]}
    assert sum(row["count"] for row in made["summary"]) == len(made["changes"])
    assert made["unmeasured"] == {}
    assert not list(store.glob("datasets/little/v0002"))


def test_without_settings_the_file_is_compared_with_the_newest_version(
    store: Path, recipe_file: Path, kaobako: Kaobako, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.toml"
    changed.write_text(recipe_file.read_text() + "\n[clean]\nmin_side = 65\n")
    said = kaobako("tune", changed, "--store", store, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "the recipe of little@v1" in said.out
    assert "clean.min_side" in said.out


def test_a_detector_that_never_looked_is_said_to_be_unknown(
    store: Path, recipe_file: Path, kaobako: Kaobako, tmp_path: Path
) -> None:
    said = kaobako("tune", recipe_file, "--set", "crop.method=face", "--store", store, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "never measured" in said.out


def test_a_second_curate_says_that_nothing_is_new(store: Path, recipe_file: Path, kaobako: Kaobako) -> None:
    said = kaobako("curate", recipe_file, "--no-prefect", "--store", store)
    assert said.code == 0, said.err
    assert "No input is new" in said.out
    again = kaobako("curate", recipe_file, "--no-prefect", "--store", store, "--everything", "--json")
    made = json.loads(again.out)
    assert (made["published"], set(made["opened"].values())) == (False, {0})
