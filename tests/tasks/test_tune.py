"""Tune: the items that another setting moves, each with its cause, in a table, histograms and a contact sheet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasets.diff import DIFF, Change
from datasets.histograms import COMES_IN, DROPS, STAYS_IN, STAYS_OUT
from datasets.store import Store
from flows.recipe import make_recipe
from tasks.build import BuildResult
from tasks.tune import (
    CHANGES_FILE,
    HISTOGRAMS_FILE,
    SHEET_FILE,
    Tuning,
    compare_plans,
    count_stages,
    make_panels,
    write_pictures,
)

Build = Callable[..., BuildResult]
Tune = Callable[..., Tuning]
COUNT = 12


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[[np.ndarray], bytes]) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for k in range(COUNT):
        (folder / f"{k:02d}.png").write_bytes(png(draw(k, 96 + 4 * k, 96 + 4 * k)))
    (folder / "text.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture
def tune(store: Store, recipe: Callable[..., dict[str, Any]]) -> Tune:
    """tune(before changes, after changes) -> Tuning"""

    def run(before: dict[str, Any], after: dict[str, Any]) -> Tuning:
        plans = [make_recipe(recipe(**changes), "test").plan() for changes in (before, after)]
        return compare_plans(plans[0], plans[1], store)

    return run


def names(tuning: Tuning, change: Change) -> list[str]:
    return [row["item_id"] for row in tuning.crossing(change).to_pylist()]


def test_equal_settings_change_nothing(source: Path, build: Build, tune: Tune) -> None:
    build()
    tuning = tune({}, {})
    assert tuning.changes.schema == DIFF
    assert (len(tuning.changes), len(tuning.summary)) == (0, 0)


def test_a_stricter_threshold_names_what_drops_nearest_first(source: Path, build: Build, tune: Tune) -> None:
    build()
    tuning = tune({}, {"clean.min_side": 106})
    assert names(tuning, Change.REMOVED) == ["02.png#0", "01.png#0", "00.png#0"]
    assert names(tuning, Change.ADDED) == []
    for row in tuning.changes.to_pylist():
        assert (row["cause"], row["parameter"]) == ("threshold", "clean.min_side")
        assert (row["threshold_before"], row["threshold_after"]) == (48.0, 106.0)
        assert row["value"] < 106
    assert [row["count"] for row in tuning.summary.to_pylist()] == [3]


def test_the_same_settings_the_other_way_bring_them_back(source: Path, build: Build, tune: Tune) -> None:
    build()
    tuning = tune({"clean.min_side": 106}, {})
    assert sorted(names(tuning, Change.ADDED)) == ["00.png#0", "01.png#0", "02.png#0"]
    assert names(tuning, Change.REMOVED) == []


def test_what_was_never_measured_is_counted_not_foretold(source: Path, build: Build, tune: Tune) -> None:
    upscaling = {"upscale.size": 64, "upscale.fit": "letterbox"}
    build(**{"crop.min_size": 106, **upscaling})
    tuning = tune({"crop.min_size": 106, **upscaling}, upscaling)
    assert tuning.after.unmeasured_counts() == {"upscale": 3}
    assert len(tuning.changes) == 0
    rows = {row["stage"]: row for row in count_stages(tuning)}
    assert rows["upscale"]["to_measure"] == 3
    assert (rows["crop"]["before"]["kept"], rows["crop"]["after"]["kept"]) == (9, 12)


def test_the_panels_hold_every_judged_item_in_its_group(source: Path, build: Build, tune: Tune) -> None:
    build()
    tuning = tune({"clean.min_side": 100}, {"clean.min_side": 106})
    panels = make_panels(tuning)
    assert [panel.key for panel in panels[:2]] == ["clean.min_side"] * 2  # what differs comes first
    assert {panel.column for panel in panels[:2]} == {"box_w", "box_h"}
    assert (panels[0].before, panels[0].after) == (100.0, 106.0)
    sizes = {group: len(values) for group, values in panels[0].values.items()}
    assert sizes == {STAYS_IN: 9, DROPS: 2, COMES_IN: 0, STAYS_OUT: 1}
    assert max(panels[0].values[DROPS]) < 106 <= min(panels[0].values[STAYS_IN])


def test_nothing_is_opened_and_nothing_is_published(
    source: Path, build: Build, tune: Tune, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    opened: list[Path] = []
    really_open = Image.open

    def watch(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(Path(path))
        return really_open(path, *arguments, **options)

    def refuse(*arguments: object) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr("PIL.Image.open", watch)
    monkeypatch.setattr("tasks.pictures.decode_picture", refuse)
    monkeypatch.setattr("tasks.crop.open_picture", refuse)
    before = sorted(path for path in store.root.rglob("*") if not path.name.endswith(".turn"))
    tuning = tune({}, {"clean.min_side": 106})
    written, blank = write_pictures(tuning, store, tmp_path / "out")
    assert blank == 0
    assert sorted(path for path in store.root.rglob("*") if not path.name.endswith(".turn")) == before
    assert all(path.is_relative_to(store.root / "thumbnails") for path in opened)
    assert len(opened) == 3
    assert [path.name for path in written] == [CHANGES_FILE, HISTOGRAMS_FILE, SHEET_FILE]
    assert pq.read_table(tmp_path / "out" / CHANGES_FILE).equals(tuning.changes)
    monkeypatch.undo()
    for path in written[1:]:
        with Image.open(path) as picture:
            assert min(picture.size) > 100


def test_pictures_of_nothing(source: Path, store: Store, tune: Tune, tmp_path: Path) -> None:
    """A store where nothing was ever measured."""
    tuning = tune({}, {"clean.min_side": 106})
    written, _ = write_pictures(tuning, store, tmp_path / "out")
    assert [path.name for path in written] == [CHANGES_FILE, SHEET_FILE]


def test_mirror_images_of_unmeasured_pictures_are_not_foretold(source: Path, build: Build, tune: Tune) -> None:
    build(**{"augment.mirror": True})
    tuning = tune({"augment.mirror": True}, {"augment.mirror": True, "crop.background": "#000000"})
    assert tuning.after.unmeasured_counts() == {"crop": COUNT + 1}
    assert len(tuning.changes) == 0


def test_pictures_without_thumbnails_are_counted(
    source: Path, build: Build, tune: Tune, store: Store, tmp_path: Path
) -> None:
    build()
    shutil.rmtree(store.thumbnails.folder)
    _, blank = write_pictures(tune({}, {"clean.min_side": 106}), store, tmp_path / "out")
    assert blank == 3
