import dataclasses
import errno
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.training.algorithm import TrainingBatch
from models.training.config import DatasetRef, TrainingConfig
from models.training.dcgan import DCGAN
from models.training.run import RunError, RunFolder
from models.training.snapshot import load_weights, read_record, weights_path
from models.training.trainer import DivergedError, TrainingProgress, train

Data = Callable[[int], Iterator[np.ndarray]]


def weights(record: Path) -> dict[str, torch.Tensor]:
    return {f"{p}.{k}": v for p in ("G", "G_ema", "D") for k, v in load_weights(weights_path(record), p).items()}


def assert_same(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_a_run_leaves_what_it_promises(tiny_run: Path, tiny_training: TrainingConfig, disc_dataset: DatasetRef) -> None:
    folder = RunFolder(tiny_run)
    assert folder.read_config() == (tiny_training, disc_dataset)
    stats = list(folder.read_stats())
    assert [line["nimg"] for line in stats] == [32, 64, 96, 128, 160]
    assert {"loss_G", "loss_D_real", "sign_D_real", "accuracy_D_fake", "sec_per_kimg", "memory_gb"} <= stats[-1].keys()
    assert all(math.isfinite(value) for line in stats for value in line.values())
    assert sorted(path.name for path in folder.fakes.iterdir()) == [
        f"fakes-{nimg:09d}.png" for nimg in (0, 64, 128, 160)
    ]
    assert [path.stem for path in folder.snapshot_records()] == [f"snapshot-{n:09d}" for n in (64, 128, 160)]
    assert list(tiny_run.glob("events.out.tfevents.*"))
    with Image.open(folder.reals_file) as reals:
        assert reals.size == (12 * 16, 8 * 16)


def test_the_same_seed_gives_the_same_bits(
    tmp_path: Path, tiny_run: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    again = train(tiny_training, disc_data, disc_dataset, tmp_path / "again")
    assert_same(again.snapshot, RunFolder(tiny_run).snapshot_records()[-1])
    assert (tmp_path / "again/fakes/fakes-000000160.png").read_bytes() == (
        tiny_run / "fakes/fakes-000000160.png"
    ).read_bytes()
    other = train(tiny_training.model_copy(update={"seed": 1}), disc_data, disc_dataset, tmp_path / "other")
    assert not torch.equal(weights(other.snapshot)["G.layers.0.weight"], weights(again.snapshot)["G.layers.0.weight"])


def test_interrupted_and_resumed_equals_never_interrupted(
    tmp_path: Path, tiny_run: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    def interrupting(start: int) -> Iterator[np.ndarray]:
        for k, batch in enumerate(disc_data(start)):
            if k == 6:  # the seventh batch, in the middle of a tick
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    before = signal.getsignal(signal.SIGTERM)
    stopped = train(tiny_training, interrupting, disc_dataset, tmp_path / "run")
    assert stopped.stopped
    assert stopped.nimg == 7 * 16
    assert signal.getsignal(signal.SIGTERM) is before

    resumed = train(tiny_training, disc_data, disc_dataset, tmp_path / "run", resume=True)
    assert not resumed.stopped
    assert_same(resumed.snapshot, RunFolder(tiny_run).snapshot_records()[-1])
    untimed = [
        [
            {k: v for k, v in line.items() if k.startswith(("nimg", "loss", "sign"))}
            for line in RunFolder(run).read_stats()
        ]
        for run in (tiny_run, tmp_path / "run")
    ]
    assert untimed[0] == untimed[1]


def test_killed_while_writing_falls_back_to_the_snapshot_before(
    tmp_path: Path,
    tiny_run: Path,
    tiny_training: TrainingConfig,
    disc_data: Data,
    disc_dataset: DatasetRef,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(tiny_training, disc_data, disc_dataset, tmp_path)
    folder = RunFolder(tmp_path)
    newest = weights_path(folder.snapshot_records()[-1])
    newest.write_bytes(newest.read_bytes()[:-100])
    with folder.stats_file.open("a") as file:
        file.write('{"nimg": 16')  # cut off by the crash
    latest = folder.latest_snapshot()
    assert latest is not None
    assert latest.stem == "snapshot-000000128"
    assert "damaged" in caplog.text

    resumed = train(tiny_training, disc_data, disc_dataset, tmp_path, resume=True)
    assert_same(resumed.snapshot, RunFolder(tiny_run).snapshot_records()[-1])
    assert [line["nimg"] for line in folder.read_stats()] == [32, 64, 96, 128, 160]


def test_resuming_a_finished_run_changes_nothing_and_more_kimg_goes_on(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    first = train(tiny_training, disc_data, disc_dataset, tmp_path)
    bytes_before = weights_path(first.snapshot).read_bytes()
    assert train(tiny_training, disc_data, disc_dataset, tmp_path, resume=True).snapshot == first.snapshot
    assert weights_path(first.snapshot).read_bytes() == bytes_before
    longer = train(tiny_training.model_copy(update={"kimg": 0.2}), disc_data, disc_dataset, tmp_path, resume=True)
    assert longer.nimg == 208
    assert RunFolder(tmp_path).read_config()[0].kimg == 0.2


def test_a_folder_in_use_and_another_dataset_are_refused(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    train(tiny_training, disc_data, disc_dataset, tmp_path)
    with pytest.raises(RunError, match="holds a run already"):
        train(tiny_training, disc_data, disc_dataset, tmp_path)
    with pytest.raises(RunError, match="dataset: discs@v3"):
        train(tiny_training, disc_data, DatasetRef("discs", 4, "f" * 64, 9), tmp_path, resume=True)
    with pytest.raises(RunError, match="batch: 16 in the run, 32 now"):
        train(tiny_training.model_copy(update={"batch": 32}), disc_data, disc_dataset, tmp_path, resume=True)


def test_a_run_whose_snapshots_are_all_broken_is_not_silently_begun_anew(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    train(tiny_training, disc_data, disc_dataset, tmp_path)
    for record in RunFolder(tmp_path).snapshot_records():
        weights_path(record).write_bytes(b"")
    with pytest.raises(RunError, match=r"no snapshot .* is fit to resume from"):
        train(tiny_training, disc_data, disc_dataset, tmp_path, resume=True)


def test_killed_before_the_first_snapshot_a_resume_begins_anew(
    tmp_path: Path, tiny_run: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    def killed(start: int) -> Iterator[np.ndarray]:
        for k, batch in enumerate(disc_data(start)):
            if k == 6 and RunFolder(tmp_path).exists():
                raise SystemExit
            yield batch

    long_until_snapshot = tiny_training.model_copy(update={"snapshot_ticks": 5})
    with pytest.raises(SystemExit):
        train(long_until_snapshot, killed, disc_dataset, tmp_path)
    assert len(list(RunFolder(tmp_path).read_stats())) == 3
    train(tiny_training, disc_data, disc_dataset, tmp_path, resume=True)
    assert_same(RunFolder(tmp_path).snapshot_records()[-1], RunFolder(tiny_run).snapshot_records()[-1])
    assert len(list(RunFolder(tmp_path).read_stats())) == 5


def test_only_the_newest_snapshots_keep_their_state(tiny_run: Path) -> None:
    states = sorted(path.name for path in RunFolder(tiny_run).snapshots.glob("*.state.pt"))
    assert states == ["snapshot-000000128.state.pt", "snapshot-000000160.state.pt"]


def test_divergence_is_named_and_the_last_good_snapshot_kept(
    tmp_path: Path,
    tiny_training: TrainingConfig,
    disc_data: Data,
    disc_dataset: DatasetRef,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = DCGAN.step
    calls: list[None] = []

    def poisoned(self: DCGAN, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        calls.append(None)
        if len(calls) == 5:
            with torch.no_grad():
                next(self.discriminator.parameters()).fill_(math.nan)
        return step(self, batch, rng)

    monkeypatch.setattr(DCGAN, "step", poisoned)
    with pytest.raises(DivergedError, match=r"loss_D_real.*last good snapshot is snapshot-000000064"):
        train(tiny_training, disc_data, disc_dataset, tmp_path)
    assert [path.stem for path in RunFolder(tmp_path).snapshot_records()] == ["snapshot-000000064"]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((16, 3, 16, 16), np.float32), "uint8"),
        (np.zeros((16, 16, 16, 3), np.uint8), r"\(16, 16, 16, 3\)"),
        (np.zeros((8, 3, 16, 16), np.uint8), r"\(8, 3, 16, 16\)"),
    ],
)
def test_batches_of_another_shape_are_refused_before_there_is_a_run(
    tmp_path: Path, tiny_training: TrainingConfig, disc_dataset: DatasetRef, batch: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_training, lambda start: iter([batch]), disc_dataset, tmp_path)
    assert not RunFolder(tmp_path).exists()


def test_data_that_ends_is_refused(tmp_path: Path, tiny_training: TrainingConfig, disc_dataset: DatasetRef) -> None:
    with pytest.raises(ValueError, match="must begin anew"):
        train(tiny_training, lambda start: iter([]), disc_dataset, tmp_path)


def test_in_another_thread_signals_are_left_alone(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(train, tiny_training, disc_data, disc_dataset, tmp_path).result()
    assert result.nimg == 160
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_is_told_after_every_tick(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    heard: list[TrainingProgress] = []
    train(tiny_training, disc_data, disc_dataset, tmp_path, progress=heard.append)
    assert [report.nimg for report in heard] == [32, 64, 96, 128, 160]
    assert all(report.total == 160 for report in heard)
    assert heard[-1].grid is not None
    assert heard[-1].grid.is_file()


def test_training_moves_the_colours_towards_the_reals(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    faster = tiny_training.algorithm.model_copy(update={"learning_rate": 2e-3})
    config = tiny_training.model_copy(update={"algorithm": faster, "kimg": 1.0, "tick_kimg": 1.0})
    train(config, disc_data, disc_dataset, tmp_path)
    folder = RunFolder(tmp_path)

    def mean(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            pixels: np.ndarray = np.asarray(image, np.float64).mean(axis=(0, 1))
        return pixels

    reals, start, end = mean(folder.reals_file), mean(folder.fakes_file(0)), mean(folder.fakes_file(1008))
    assert np.abs(end - reals).mean() < 0.7 * np.abs(start - reals).mean()


def test_config_json_is_for_people(tiny_run: Path) -> None:
    content: dict[str, Any] = json.loads((tiny_run / "config.json").read_text())
    assert content["dataset"] == {"name": "discs", "version": 3, "digest": "0123456789abcdef" * 4, "count": 1000}
    assert content["libraries"]["torch"] == torch.__version__


def test_warnings_are_written_down_and_told(
    tmp_path: Path,
    tiny_training: TrainingConfig,
    disc_data: Data,
    disc_dataset: DatasetRef,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A generator that has collapsed on purpose: from the fourth step on its last layer has no weights."""
    step = DCGAN.step
    nimgs: list[int] = []

    def collapsing(self: DCGAN, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        nimgs.append(batch.nimg)
        stats = step(self, batch, rng)
        if len(nimgs) >= 4:
            with torch.no_grad():
                list(self.generator.parameters())[-2].zero_()
        return stats

    monkeypatch.setattr(DCGAN, "step", collapsing)
    monkeypatch.setattr("models.training.watch.ENOUGH", 0.01)  # ten steps do not get far
    config = tiny_training.model_copy(update={"ema_half_life_kimg": 0.0, "grid_ticks": 1, "snapshot_ticks": 1})
    heard: list[TrainingProgress] = []
    train(config, disc_data, disc_dataset, tmp_path, progress=heard.append)
    assert nimgs == list(range(0, 160, 16))
    events = [event for report in heard for event in report.events]
    assert len(events) == 1 and "become alike" in events[0]
    (line,) = (json.loads(line) for line in RunFolder(tmp_path).events_file.read_text().splitlines())
    assert line["event"] == events[0] and line["nimg"] == next(r.nimg for r in heard if r.events)


def test_another_dataset_only_when_told(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    half = tiny_training.model_copy(update={"kimg": 0.08})
    train(half, disc_data, disc_dataset, tmp_path)
    other = dataclasses.replace(disc_dataset, version=4, digest="f" * 64)
    with pytest.raises(RunError, match="--allow-other-dataset"):
        train(tiny_training, disc_data, other, tmp_path, resume=True)
    assert train(tiny_training, disc_data, other, tmp_path, resume=True, allow_other_dataset=True).nimg == 160
    assert RunFolder(tmp_path).read_config()[1] == other


def test_snapshots_are_thinned_by_the_rule(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    config = tiny_training.model_copy(update={"kimg": 0.32, "tick_kimg": 0.016, "snapshot_ticks": 1})
    train(config, disc_data, disc_dataset, tmp_path)
    folder = RunFolder(tmp_path)
    kept = {read_record(path).nimg // 16 for path in folder.snapshot_records()}
    assert {17, 18, 19, 20} | {8, 16} <= kept <= set(range(1, 21))
    assert len(kept) == 6 + len(kept - {8, 16, 17, 18, 19, 20}) <= 8  # the best two may be among the others
    assert {path.stem for path in folder.snapshots.glob("*.safetensors")} == {
        path.stem for path in folder.snapshot_records()
    }


def test_one_overflow_in_a_statistic_is_left_out_of_the_mean(
    tmp_path: Path,
    tiny_training: TrainingConfig,
    disc_data: Data,
    disc_dataset: DatasetRef,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = DCGAN.step
    wrong = [True] + 9 * [False]

    def overflowing(self: DCGAN, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        stats = step(self, batch, rng)
        return {**stats, "loss_G": torch.tensor(math.inf if wrong[batch.nimg // 16] else 3.0)}

    monkeypatch.setattr(DCGAN, "step", overflowing)
    train(tiny_training, disc_data, disc_dataset, tmp_path / "once")
    assert [line["loss_G"] for line in RunFolder(tmp_path / "once").read_stats()] == [3.0] * 5
    wrong[:] = 10 * [True]
    with pytest.raises(DivergedError, match="loss_G not finite"):
        train(tiny_training, disc_data, disc_dataset, tmp_path / "always")


def test_two_trainings_in_one_folder_are_refused(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    with (
        RunFolder(tmp_path).claim(),
        pytest.raises(RunError, match="another training writes into"),
    ):
        train(tiny_training, disc_data, disc_dataset, tmp_path)
    assert train(tiny_training, disc_data, disc_dataset, tmp_path).nimg == 160


def test_what_a_killed_writer_left_is_removed_and_what_nobody_can_read_is_kept(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    train(tiny_training.model_copy(update={"kimg": 0.08, "snapshot_ticks": 1}), disc_data, disc_dataset, tmp_path)
    folder = RunFolder(tmp_path)
    oldest = folder.snapshot_records()[0]
    oldest.write_text('{"broken', encoding="utf-8")
    debris = [folder.snapshots / name for name in (".snapshot-000000999.part", "snapshot-000000077.safetensors")]
    for path in debris:
        path.write_bytes(b"half")
    longer = tiny_training.model_copy(update={"snapshot_ticks": 1})
    assert train(longer, disc_data, disc_dataset, tmp_path, resume=True).nimg == 160
    assert oldest.exists() and not any(path.exists() for path in debris)


def test_events_after_the_snapshot_are_written_anew_by_a_resume(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    train(tiny_training.model_copy(update={"kimg": 0.08}), disc_data, disc_dataset, tmp_path)
    folder = RunFolder(tmp_path)
    folder.append_event(64, "before")
    folder.append_event(999, "after")
    train(tiny_training, disc_data, disc_dataset, tmp_path, resume=True)
    assert [json.loads(line)["event"] for line in folder.events_file.read_text().splitlines()] == ["before"]


def test_another_dataset_is_measured_against_its_own_pictures(
    tmp_path: Path, tiny_training: TrainingConfig, disc_data: Data, disc_dataset: DatasetRef
) -> None:
    train(tiny_training.model_copy(update={"kimg": 0.08}), disc_data, disc_dataset, tmp_path)
    before = RunFolder(tmp_path).reals_file.read_bytes()

    def paler(start: int) -> Iterator[np.ndarray]:
        return (batch // 2 + 100 for batch in disc_data(start))

    other = dataclasses.replace(disc_dataset, digest="e" * 64)
    train(tiny_training, paler, other, tmp_path, resume=True, allow_other_dataset=True)
    assert RunFolder(tmp_path).reals_file.read_bytes() != before


def test_a_full_disk_leaves_no_half_snapshot(
    tmp_path: Path,
    tiny_training: TrainingConfig,
    disc_data: Data,
    disc_dataset: DatasetRef,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from models.training import snapshot

    publish = snapshot.publish

    def full(temporary: Path, path: Path) -> str:
        if path.name.endswith(".state.pt"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return publish(temporary, path)

    monkeypatch.setattr(snapshot, "publish", full)
    with pytest.raises(RunError, match=r"No space left.*--resume"):
        train(tiny_training, disc_data, disc_dataset, tmp_path)
    assert not list(RunFolder(tmp_path).snapshots.iterdir())


def test_every_algorithm_gives_what_the_watch_looks_at(tiny_run: Path) -> None:
    line = next(RunFolder(tiny_run).read_stats())
    assert {"sign_D_real", "sign_D_fake", "logit_gap", "diversity"} <= line.keys()
