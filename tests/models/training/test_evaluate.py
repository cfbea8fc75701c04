"""Figures of quality during a training: when they are measured, where they go, and that they change no bit of it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.gan.latents import draw_latents, generate
from models.training.config import RESUME_MAY_CHANGE, DatasetRef, TrainingConfig
from models.training.distributed import joined_workers
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


def test_a_failing_measurement_is_a_warning(
    tmp_path: Path, measuring: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef, tiny_run: Path
) -> None:
    def fail_at_first(network: nn.Module, nimg: int) -> list[dict[str, Any]]:
        if nimg == 64:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        if nimg == 128:  # as somebody may have edited it
            (tmp_path / "metrics.jsonl").write_text("garbage\n", encoding="utf-8")
        return brightness(network, nimg)

    heard: list[TrainingProgress] = []
    made = train(measuring, disc_data, disc_dataset, tmp_path, heard.append, evaluate=fail_at_first)
    assert made.nimg == 160
    assert not made.stopped
    said = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    failed = {line["nimg"]: line["event"] for line in said if "could not be measured" in line["event"]}
    assert list(failed) == [64, 128, 160]
    assert failed[64].endswith("the training goes on: CUDA out of memory. Tried to allocate 2 GiB")
    assert "line 1 is no JSON" in failed[128]
    assert failed[64] in next(progress.events for progress in heard if progress.nimg == 64)
    first, second = weights(made.snapshot), weights(RunFolder(tiny_run).snapshot_records()[-1])
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_snapshots_are_saved_before_anything_is_measured(
    tmp_path: Path, measuring: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    saved: dict[int, bool] = {}

    def look(network: nn.Module, nimg: int) -> list[dict[str, Any]]:
        saved[nimg] = RunFolder(tmp_path).snapshot_path(nimg).is_file()
        return brightness(network, nimg)

    every = measuring.model_copy(update={"snapshot_ticks": 4})
    train(every, disc_data, disc_dataset, tmp_path, evaluate=look)
    assert saved == {64: False, 128: True, 160: True}  # the fourth tick, and the end


def test_time_spent_measuring_is_not_the_trainings(
    tmp_path: Path, measuring: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef, monkeypatch: Any
) -> None:
    clock = {"ahead": 0.0}
    now = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: now() + clock["ahead"])

    def take_an_hour(network: nn.Module, nimg: int) -> list[dict[str, Any]]:
        clock["ahead"] += 3600
        return brightness(network, nimg)

    made = train(measuring, disc_data, disc_dataset, tmp_path, evaluate=take_an_hour)
    assert clock["ahead"] == 3 * 3600
    ticks = list(RunFolder(tmp_path).read_stats())
    assert all(line["seconds"] < 3600 and line["sec_per_kimg"] < 3600 for line in ticks)
    assert made.seconds < 3600
    assert load_state(made.snapshot)["seconds"] < 3600


def test_other_processes_wait_while_the_first_one_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **settings: given.update(settings))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with joined_workers() as workers:
        assert workers.world == 2
    assert given["timeout"].total_seconds() >= 50_000 / 10  # all reals that are compared with, on two cores


def test_how_long_it_took_is_said_and_the_board_shows_it(
    tmp_path: Path,
    measuring: TrainingConfig,
    disc_data: Data,
    disc_dataset: DatasetRef,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with caplog.at_level(logging.INFO, logger="models.training.evaluation"):
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
    others = [{"name": "other", "nimg": nimg} for nimg in (None, "8", 7)]
    record_metrics(tmp_path, others)
    forget_metrics(tmp_path, 7)
    assert read_metrics(tmp_path) == others


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
    path.write_bytes(whole.encode("utf-16"))
    with pytest.raises(MetricsFileError, match=r"metrics\.jsonl is no text in UTF-8: move it away"):
        read_metrics(tmp_path)
