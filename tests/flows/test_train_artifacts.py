"""What a training leaves on its flow run's page, without a server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import flows.train
from flows.train import WARNINGS_KEY, TrainingArtifacts
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
