"""The training loop: one for every algorithm. It owns data, averages, counters and files; `Algorithm` owns the rest."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from models.device import plain_arithmetic
from models.training.algorithm import Algorithm, TrainingBatch, build_algorithm
from models.training.batches import Data, RealBatches, Reals
from models.training.board import Board
from models.training.config import DatasetRef, TrainingConfig, differences
from models.training.distributed import ALONE, Workers
from models.training.ema import ExponentialMovingAverage
from models.training.evaluation import Evaluate, Evaluation
from models.training.grids import Grids
from models.training.networks import resolve_device
from models.training.peak_memory import peak_memory_gb
from models.training.run import RunError, RunFolder, find_snapshot
from models.training.schedules import average_half_life
from models.training.snapshot import load_state, load_weights, read_record, save_snapshot, weights_path
from models.training.stopping import StopSignal
from models.training.tick_means import TickMeans
from models.training.watch import CollapseWatch, measure_spread

log = logging.getLogger(__name__)


class DivergedError(RuntimeError):
    """A loss or a weight is no longer finite."""


@dataclass(frozen=True)
class TrainingProgress:
    """What the caller hears after every tick."""

    nimg: int  # real pictures seen
    total: int  # real pictures until the end
    seconds: float  # spent so far, resumed parts included, but not on figures of quality
    sec_per_kimg: float  # of the steps since the last tick, without grids, snapshots and figures
    stats: Mapping[str, float]  # the tick's line in stats.jsonl
    grid: Path | None  # the newest grid of fakes
    events: tuple[str, ...] = ()  # warnings since the last tick: what a person should look at
    metrics: Mapping[str, float] = field(default_factory=dict)  # figures of quality measured at this tick, by name


@dataclass(frozen=True)
class TrainingResult:
    """What a training left."""

    run_folder: Path
    snapshot: Path  # the record of the last snapshot
    nimg: int  # real pictures seen
    seconds: float  # spent, resumed parts included, but not on figures of quality
    stopped: bool  # by Ctrl-C or SIGTERM, before the end: resume goes on from `snapshot`
    stats: Mapping[str, float]  # of the last tick


def train(
    config: TrainingConfig,
    data: Data,
    dataset: DatasetRef,
    run_folder: Path,
    progress: Callable[[TrainingProgress], None] | None = None,
    resume: bool = False,
    *,
    transfer: Path | None = None,
    workers: Workers = ALONE,
    allow_other_dataset: bool = False,
    evaluate: Evaluate | None = None,
) -> TrainingResult:
    """Train from the start, or, with `resume`, from the run's newest sound snapshot if it has one.

    On one device, with the same library versions and thread count, the same arguments give the same weights bit for
    bit, whether the training was interrupted or not (CUDA: to rounding).

    transfer: a run or snapshot whose weights a new run begins with, where they fit. workers: the processes that train
    together (`models.training.distributed`). allow_other_dataset: a resumed run may go on with other pictures.
    evaluate: measures the averaged generator every `config.metrics_kimg`, in the first process, while others wait; the
    weights are those of a training without it, and what goes wrong in it is a warning.

    Raises RunError if the folder holds a run already (without `resume`), or one of another dataset or config;
    DivergedError when numbers are no longer finite; ValueError for data of another shape than the config says.
    """
    trainer = Trainer(config, data, dataset, RunFolder(run_folder), progress, workers, evaluate)
    try:
        trainer.begin(resume, transfer, allow_other_dataset)
        return trainer.run()
    finally:
        if trainer.lock is not None:
            trainer.lock.close()


class Trainer:
    """One training, from the first picture to the last."""

    def __init__(
        self,
        config: TrainingConfig,
        data: Data,
        dataset: DatasetRef,
        folder: RunFolder,
        progress: Callable[[TrainingProgress], None] | None = None,
        workers: Workers = ALONE,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.folder = folder
        self.progress = progress
        self.workers = workers
        self.evaluation = Evaluation(evaluate, config, folder)
        self.part = workers.part_of(config.batch)
        self.reals = RealBatches(data, config, len(self.part))
        self.device = resolve_device(config.device)
        self.rng = torch.Generator().manual_seed(config.seed)
        self.algorithm: Algorithm = build_algorithm(config, self.device, self.rng, workers)
        # weights that were taken over are good from the start: no ramp that forgets them
        ramp_up = config.ema_ramp_up if config.transfer is None else None
        self.average = ExponentialMovingAverage(self.algorithm.networks()["G"], average_half_life(config, 0), ramp_up)
        self.watch: CollapseWatch | None = None  # begun with the first reals
        self.grids = Grids(config, folder)
        self.lock: IO[str] | None = None  # on the folder, from begin() on
        self.nimg = 0
        self.seconds = 0.0
        self.means = TickMeans(self.device)
        self.saved: Path | None = None  # the snapshot of this very moment
        self.stats: dict[str, float] = {}  # of the last tick

    def begin(self, resume: bool, transfer: Path | None = None, allow_other_dataset: bool = False) -> None:
        """Check the folder, take up its newest snapshot, write config.json and the first grids."""
        if self.device.type == "cpu" and os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
            log.warning(
                "set OMP_WAIT_POLICY=PASSIVE before Python starts: beside busy processes it is many times faster"
            )
        if self.workers.leads:
            self.lock = self.folder.claim()
        self.workers.wait()
        other_data = False
        if self.folder.exists():
            if not resume:
                raise RunError(f"{self.folder.path} holds a run already: resume it, or choose another folder")
            other_data = self._check_same_run(allow_other_dataset)
            latest = self.folder.latest_snapshot(with_state=True)
            if latest is not None:
                self._load(latest)
            elif self.folder.snapshot_records():
                raise RunError(f"no snapshot of {self.folder.path} is fit to resume from: start a new run")
        self.workers.wait()  # all have looked: now the folder may change
        reals, labels = self.reals.read_first(self.grids.cells)
        self.grids.labels = labels
        if self.watch is None or other_data:
            self.watch = CollapseWatch(measure_spread(reals))
        fresh = self.nimg == 0 and self.saved is None
        if fresh:
            self._begin_weights(transfer)
        if self.workers.leads:
            self.folder.drop_debris()
            if fresh or other_data:
                self.grids.write_reals(reals)
            if fresh:
                self._show_fakes()
        if fresh and self.config.transfer is not None:
            self._save()  # a resume must find what was taken over
        if self.workers.leads:
            self.folder.write_config(self.config, self.dataset, self.device)  # last: only now is this a run
            self.folder.truncate_lines(self.nimg)
            self.stats = next(reversed(list(self.folder.read_stats())), {})

    def run(self) -> TrainingResult:
        """Train until `config.kimg`, or until asked to stop; ends with a snapshot either way."""
        started = time.perf_counter() - self.seconds
        tick_started, tick_nimg = time.perf_counter(), self.nimg
        with (
            plain_arithmetic(self.device),
            StopSignal() as stop,
            Board(self.folder.path if self.workers.leads else None, self.nimg) as board,
            self.reals.read_from(self.nimg) as batches,
        ):
            while self.nimg < self.config.total_images and not self.workers.any(stop.requested, self.device):
                self._step(batches)
                self.seconds = time.perf_counter() - started - self.evaluation.seconds
                tick, due = self._tick_due()
                if due:
                    sec_per_kimg = (time.perf_counter() - tick_started) / (self.nimg - tick_nimg) * 1000
                    self._tick(tick, sec_per_kimg, board)
                    tick_started, tick_nimg = time.perf_counter(), self.nimg
            snapshot = self.saved or self._save()
        self.workers.wait()
        return TrainingResult(
            run_folder=self.folder.path,
            snapshot=snapshot,
            nimg=self.nimg,
            seconds=self.seconds,
            stopped=self.nimg < self.config.total_images,
            stats=self.stats,
        )

    def _step(self, batches: Iterator[Reals]) -> None:
        images, labels = next(batches)
        batch = TrainingBatch(images, labels, self.part.start, self.config.batch, self.nimg)
        self.means.add(self.algorithm.step(batch, self.rng))
        self.average.half_life = average_half_life(self.config, self.nimg)
        self.nimg += self.config.batch
        self.saved = None
        self.average.update(self.algorithm.networks()["G"], self.config.batch, self.nimg)

    def _tick_due(self) -> tuple[int, bool]:
        """The number of this tick, and whether one ends here: at the first batch past a multiple, and at the end."""
        tick = self.nimg // self.config.tick_images
        passed = tick > (self.nimg - self.config.batch) // self.config.tick_images
        return tick, passed or self.nimg >= self.config.total_images

    def _tick(self, tick: int, sec_per_kimg: float, board: Board) -> None:
        means = self.means.take(self.workers)
        self._require_finite(means)
        assert self.watch is not None
        events = [*self.algorithm.events(), *self.watch.judge(means), *_judge_mended(means)]
        ended = self.nimg >= self.config.total_images
        if self.workers.leads and (ended or tick % self.config.grid_ticks == 0):
            grid, warnings = self._show_fakes()
            events += warnings
            board.show_grid(grid, self.nimg)
        self.stats = {
            "nimg": self.nimg,
            **{name: round(value, 6) for name, value in {**means, **self.algorithm.describe()}.items()},
            "logit_gap": round(means["logit_real"] - means["logit_fake"], 6),
            "diversity": round(self.watch.diversity, 4),
            "seconds": round(self.seconds, 3),
            "sec_per_kimg": round(sec_per_kimg, 4),
            "memory_gb": round(peak_memory_gb(), 3),
        }
        if self.device.type == "cuda":
            self.stats["gpu_memory_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)
        if self.workers.leads:
            self.folder.append_stats(self.stats)
            board.show_stats(self.stats, self.nimg)
            self._warn(events)
        if ended or tick % self.config.snapshot_ticks == 0:
            self._save()  # before anything is measured, which takes minutes, and may be killed
        if self.workers.leads:
            self._report(tick, events, sec_per_kimg, board)

    def _warn(self, events: list[str]) -> None:
        for event in events:
            log.warning("after %.1f kimg: %s", self.nimg / 1000, event)
            self.folder.append_event(self.nimg, event, self.grids.newest)

    def _report(self, tick: int, events: list[str], sec_per_kimg: float, board: Board) -> None:
        """Figures of quality where they are due, and a word to the caller."""
        metrics: dict[str, float] = {}
        if self.evaluation.is_due(tick, self.nimg):
            self.algorithm.settle_average(self.average.network)
            metrics, failed = self.evaluation.measure(self.average.network, self.nimg, board)
            self._warn(failed)
            events = [*events, *failed]
        if self.progress is not None:
            total, grid = self.config.total_images, self.grids.newest
            self.progress(
                TrainingProgress(self.nimg, total, self.seconds, sec_per_kimg, self.stats, grid, tuple(events), metrics)
            )

    def _require_finite(self, means: Mapping[str, float]) -> None:
        """Raise DivergedError unless the statistics and all weights are finite."""
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        for prefix, network in self.algorithm.networks().items():
            broken += [
                f"{prefix}.{name}" for name, tensor in network.named_parameters() if not torch.isfinite(tensor).all()
            ]
        if broken:
            latest = self.folder.latest_snapshot()
            kept = f"the last good snapshot is {latest.name}" if latest else "there is no snapshot yet"
            raise DivergedError(
                f"training diverged at {self.nimg / 1000:.1f} kimg: {', '.join(broken[:5])} not finite; {kept}. "
                "Start a new run with a lower learning rate or a larger batch."
            )

    def _show_fakes(self) -> tuple[np.ndarray, list[str]]:
        """Write the grid of this moment. Returns it, uint8 (H, W, C), and what the watch says of it."""
        assert self.watch is not None
        self.algorithm.settle_average(self.average.network)
        fakes = self.grids.make_fakes(self.average.network)
        return self.grids.write_fakes(fakes, self.nimg), self.watch.look(fakes)

    def _save(self) -> Path:
        """Write a snapshot of this moment, after checking that it is worth having. Returns its record's path."""
        assert self.watch is not None
        self._require_finite({})
        path = self.folder.snapshot_path(self.nimg)
        if self.workers.leads:
            self.algorithm.settle_average(self.average.network)
            state = {
                "algorithm": self.algorithm.state_dict(),
                "rng": self.rng.get_state(),
                "seconds": self.seconds,
                **self.means.state_dict(),
                "watch": self.watch.state_dict(),
            }
            try:
                save_snapshot(
                    self.folder.snapshots, self.nimg, self.config, self.dataset, self._networks(), state,
                    diversity=self.watch.diversity,
                )  # fmt: skip
            except OSError as error:
                raise RunError(
                    f"the snapshot after {self.nimg / 1000:.1f} kimg cannot be written ({error}): free space, then go "
                    f"on with the run {self.folder.path} from its newest one by --resume"
                ) from error
            self.folder.thin_snapshots()
        self.saved = path
        return path

    def _networks(self) -> dict[str, torch.nn.Module]:
        return {**self.algorithm.networks(), "G_ema": self.average.network}

    def _load(self, path: Path) -> None:
        """Take up the run where the snapshot `path` left it."""
        for prefix, network in self._networks().items():
            network.load_state_dict(load_weights(weights_path(path), prefix))
        state: dict[str, Any] = load_state(path)
        self.algorithm.load_state_dict(state["algorithm"])
        self.rng.set_state(state["rng"])
        self.seconds = state["seconds"]
        self.means.load_state_dict(state)
        if "watch" in state:  # snapshots of before there was one go on as well
            self.watch = CollapseWatch(0.0)
            self.watch.load_state_dict(state["watch"])
        self.nimg = read_record(path).nimg
        self.saved = path

    def _begin_weights(self, transfer: Path | None) -> None:
        """Take over the weights of another training where that was asked for, and check that none stays untrained."""
        if transfer is not None:
            self._take_over(transfer)
        elif self.config.transfer is not None:
            raise RunError(
                f"{self.folder.path} was to begin with the weights {self.config.transfer[:12]}… and ended before its "
                "first snapshot: delete it, and start it again with --transfer"
            )
        elif not all(weight.requires_grad for weight in self.algorithm.networks()["D"].parameters()):
            raise RunError(
                "freeze_d keeps untrained weights of D as they are: use it with --transfer, or leave it at 0"
            )

    def _take_over(self, source: Path) -> None:
        """Begin with the weights of another training, where they fit."""
        from models.training.transfer import transfer_weights

        report = transfer_weights(weights_path(find_snapshot(source)), self._networks())
        if self.workers.leads:
            for line in report.lines():
                log.info("%s", line)

    def _check_same_run(self, allow_other_dataset: bool) -> bool:
        """Raise RunError unless the folder's run is this one; returns whether its pictures were others."""
        config, dataset = self.folder.read_config()
        changed = differences(config, self.config)
        if dataset.digest != self.dataset.digest and not allow_other_dataset:
            changed.append(
                f"dataset: {dataset} ({dataset.digest[:12]}) in the run, {self.dataset} ({self.dataset.digest[:12]}) "
                "now; --allow-other-dataset goes on all the same"
            )
        if changed:
            raise RunError(
                f"cannot resume {self.folder.path} as another training; start a new run. " + "; ".join(changed)
            )
        return dataset.digest != self.dataset.digest


def _judge_mended(means: Mapping[str, float]) -> list[str]:
    """A warning where gradients were not finite in part of a tick's steps."""
    share = max((means.get(name, 0.0) for name in ("mended_G", "mended_D")), default=0.0)
    if share < 0.1:  # a step now and then is what half precision costs
        return []
    return [f"gradients were not finite in {share:.0%} of the steps: use a lower learning rate, or precision=float32"]
