"""Figures of quality during a training: when they are measured, where they go, and that they change no bit of it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.gan.latents import draw_latents, generate
from models.training.config import RESUME_MAY_CHANGE, DatasetRef, TrainingConfig
from models.training.metrics_file import MetricsFileError, forget_metrics, read_metrics, record_metrics
from models.training.run import RunFolder
from models.training.snapshot import load_state, load_weights, weights_path
from models.training.trainer import TrainingProgress, train

Data = Callable[[int], Iterator[np.ndarray]]


def brightness(network: nn.Module, nimg: int) -> list[dict[str, Any]]:
    """What an evaluation does: it makes pictures, and says something of them."""
    fakes = generate(network, draw_latents(range(40), 8))
    return [{"name": "brightness", "value": float(fakes.mean()), "nimg": nimg, "seconds": 1.0}]


def weights(record: Path) -> dict[str, torch.Tensor]:
    return {f"{p}.{k}": v for p in ("G", "G_ema", "D") for k, v in load_weights(weights_path(record), p).items()}


@pytest.fixture
def measuring(tiny_training: TrainingConfig) -> TrainingConfig:
    """Ticks end after 32, 64, 96, 128 and 160 pictures; figures are due every 50."""
    return tiny_training.model_copy(update={"metrics_kimg": 0.05})


def test_training_is_bit_equal_with_and_without(
    tmp_path: Path, tiny_run: Path, measuring: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    heard: list[TrainingProgress] = []
    made = train(measuring, disc_data, disc_dataset, tmp_path / "run", heard.append, evaluate=brightness)
    plain = RunFolder(tiny_run).snapshot_records()[-1]
    first, second = weights(made.snapshot), weights(plain)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert torch.equal(load_state(made.snapshot)["rng"], load_state(plain)["rng"])

    lines = read_metrics(tmp_path / "run")
    assert [line["nimg"] for line in lines] == [64, 128, 160]  # first ticks past 50, 100 and 150, and the end
    assert {progress.nimg: dict(progress.metrics) for progress in heard if progress.metrics} == {
        line["nimg"]: {"brightness": line["value"]} for line in lines
    }
    assert len({line["value"] for line in lines}) == 3


def test_nothing_is_measured_unless_asked_for(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    short = tiny_training.model_copy(update={"kimg": 0.032})
    train(short, disc_data, disc_dataset, tmp_path / "run", evaluate=brightness)
    assert read_metrics(tmp_path / "run") == []
    assert {"metrics_kimg", "metrics_extractor"} <= RESUME_MAY_CHANGE


def test_a_resumed_run_measures_what_an_undisturbed_one_does(
    tmp_path: Path, measuring: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    whole = tmp_path / "whole"
    train(measuring, disc_data, disc_dataset, whole, evaluate=brightness)
    run = tmp_path / "run"
    train(measuring, disc_data, disc_dataset, run, evaluate=brightness)
    RunFolder(run).snapshot_records()[-1].unlink()  # as if it had been killed after 128 pictures
    lost = {"name": "kid", "value": 1.0, "nimg": 150}
    record_metrics(run, [lost])
    train(measuring, disc_data, disc_dataset, run, resume=True, evaluate=brightness)
    assert read_metrics(run) == read_metrics(whole)


def test_how_long_it_took_is_said_and_the_board_shows_it(
    tmp_path: Path,
    measuring: TrainingConfig,
    disc_data: Data,
    disc_dataset: DatasetRef,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with caplog.at_level(logging.INFO, logger="models.training.trainer"):
        train(measuring, disc_data, disc_dataset, tmp_path, evaluate=brightness)
    said = [record.getMessage() for record in caplog.records if "brightness" in record.getMessage()]
    assert len(said) == 3
    assert all(line.startswith("measured in ") for line in said)
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [event.step for event in board.Scalars("metrics/brightness")] == [64, 128, 160]


def test_a_line_of_the_same_measurement_replaces_the_old_one(tmp_path: Path) -> None:
    kid = {"name": "kid_x", "figure": "kid", "nimg": 8, "weights_sha256": "a", "value": 1.0}
    record_metrics(tmp_path, [kid, {**kid, "psi": 0.5, "value": 2.0}])
    record_metrics(tmp_path, [{**kid, "value": 3.0, "seconds": 1.0}])
    assert [line["value"] for line in read_metrics(tmp_path)] == [2.0, 3.0]
    with pytest.raises(ValueError, match="JSON"):
        record_metrics(tmp_path, [{**kid, "value": float("nan")}])
    assert len(read_metrics(tmp_path)) == 2
    forget_metrics(tmp_path, 7)
    assert read_metrics(tmp_path) == []


def test_writers_do_not_lose_each_others_lines(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        for k in range(20):
            record_metrics(tmp_path, [{"name": f"{writer}-{k}", "value": 0.0}])

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len({line["name"] for line in read_metrics(tmp_path)}) == 80


def test_damaged_lines(tmp_path: Path) -> None:
    record_metrics(tmp_path, [{"name": "a", "value": 1.0}])
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + '{"name": "b", "va', encoding="utf-8")
    assert read_metrics(tmp_path) == [json.loads(whole)]  # cut off by a crash
    path.write_text("[1]\n" + whole, encoding="utf-8")
    with pytest.raises(MetricsFileError, match=r"metrics\.jsonl, line 1 is no JSON object: delete"):
        read_metrics(tmp_path)
    path.write_text("{\n" + whole, encoding="utf-8")
    with pytest.raises(MetricsFileError, match=r"line 1 is no JSON \("):
        record_metrics(tmp_path, [])
