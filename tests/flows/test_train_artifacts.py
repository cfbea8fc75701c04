"""What a training leaves on its flow run's page, without a server."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import flows.train
from flows.train import METRICS_KEY, WARNINGS_KEY, TrainingArtifacts
from models.training.run import RunFolder
from models.training.trainer import TrainingProgress


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The markdown artifacts that were made."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(flows.train, "create_markdown_artifact", lambda **values: made.append(values))
    monkeypatch.setattr(flows.train, "create_progress_artifact", lambda *values, **named: None)
    monkeypatch.setattr(flows.train, "get_run_logger", lambda: logging.getLogger("flows.train"))
    return made


def tick(nimg: int, grid: Path | None = None, *events: str) -> TrainingProgress:
    return TrainingProgress(nimg, 8000, 1.0, 0.5, {}, grid, events)


def test_warnings_come_with_the_grid_and_add_up(
    shown: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    grid = tmp_path / "fakes-000002000.png"
    Image.new("RGBA", (900, 300), (200, 30, 40, 255)).save(grid)
    watcher = TrainingArtifacts("faces-run")
    with caplog.at_level(logging.INFO, logger="flows.train"):
        watcher(tick(1000))
        assert shown == []
        watcher(tick(2000, grid, "p is at its cap of 0.8", "fakes grow alike"))
        watcher(tick(3000, grid, "still alike"))
    first, second = shown
    assert first["key"] == second["key"] == WARNINGS_KEY
    assert "* after 2.0 kimg: p is at its cap of 0.8\n* after 2.0 kimg: fakes grow alike" in first["markdown"]
    assert "still alike" not in first["markdown"]
    assert "fakes grow alike\n* after 3.0 kimg: still alike" in second["markdown"]
    assert "![the newest fakes, fakes-000002000.png](data:image/" in second["markdown"]
    assert len(second["markdown"]) < 100_000
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]  # the loop has said it


def test_a_warning_before_the_first_grid_is_shown_alone(shown: list[dict[str, Any]]) -> None:
    TrainingArtifacts("faces-run")(tick(1000, None, "look"))
    assert "look" in shown[0]["markdown"]
    assert "data:image" not in shown[0]["markdown"]


@pytest.mark.parametrize("first_failure", [0, 1, 2, 3])
def test_a_server_that_goes_away_is_one_warning_and_is_not_asked_again(
    shown: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    first_failure: int,
) -> None:
    calls = 0

    def ask(*values: Any, **named: Any) -> uuid.UUID:
        nonlocal calls
        calls += 1
        if calls > first_failure:
            raise httpx.ConnectError("All connection attempts failed")
        return uuid.UUID(int=1)

    for name in ("create_progress_artifact", "update_progress_artifact", "create_markdown_artifact"):
        monkeypatch.setattr(flows.train, name, ask)
    run = RunFolder(tmp_path / "faces-run")
    run.fakes.mkdir(parents=True)
    for path in (run.reals_file, run.fakes_file(2000)):
        Image.new("RGB", (60, 30)).save(path)
    with caplog.at_level(logging.INFO, logger="flows.train"):
        watcher = TrainingArtifacts("faces-run")
        watcher(tick(1000))
        watcher(tick(2000, run.fakes_file(2000), "look"))
        watcher(tick(3000))
        watcher.show_grids(run.path)
    assert calls == first_failure + 1
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == [
        "the run's page could not be updated: All connection attempts failed; the training goes on",
    ]
    assert [record.getMessage()[:12] for record in caplog.records].count("3000 of 8000") == 1  # the log goes on


def test_figures_of_quality_are_a_small_table(shown: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.train, "create_table_artifact", lambda **values: shown.append(values))
    watcher = TrainingArtifacts("faces-run")
    for nimg in range(1000, 31000, 1000):
        figures = {"kid2000_x": 0.0123456 / nimg, "recall2000_x": 0.5}
        watcher(dataclasses.replace(tick(nimg), metrics=figures if nimg % 2000 == 0 else {}))
    assert len(shown) == 15
    assert {made["key"] for made in shown} == {METRICS_KEY}
    assert shown[0]["table"] == [{"kimg": "2", "kid2000_x": "6.173e-06", "recall2000_x": "0.5"}]
    assert [row["kimg"] for row in shown[-1]["table"]] == [str(kimg) for kimg in range(2, 31, 2)]


def test_the_grids_are_shown_at_the_end(shown: list[dict[str, Any]], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "faces-run")
    run.fakes.mkdir(parents=True)
    for path in (run.reals_file, run.fakes_file(1000), run.fakes_file(2000)):
        Image.new("RGB", (60, 30)).save(path)
    TrainingArtifacts("faces-run").show_grids(run.path)
    (made,) = shown
    assert made["key"] == "training-grids"
    assert made["markdown"].count("(data:image/") == 2


def test_ctrl_c_is_not_taken_for_a_lost_page(shown: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**values: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flows.train, "create_markdown_artifact", interrupt)
    with pytest.raises(KeyboardInterrupt):
        TrainingArtifacts("faces-run")(tick(1000, None, "look"))
