"""The training loop: one for every algorithm. It owns data, averages, counters and files; `Algorithm` owns the rest."""

import logging
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from models.gan.latents import draw_latents, generate
from models.gan.pictures import grid_shape, tile, to_input, write_png
from models.training.algorithm import Algorithm, build_algorithm
from models.training.board import Board
from models.training.config import DatasetRef, TrainingConfig, differences
from models.training.ema import ExponentialMovingAverage
from models.training.networks import resolve_device
from models.training.run import RunError, RunFolder
from models.training.snapshot import load_state, load_weights, read_record, save_snapshot, weights_path

log = logging.getLogger(__name__)

Data = Callable[[int], Iterator[np.ndarray | torch.Tensor]]
"""Batches from sample index n on, for ever: uint8 (batch, C, H, W), 0..255. The same n gives the same batches."""


class DivergedError(RuntimeError):
    """A loss or a weight is no longer finite."""


@dataclass(frozen=True)
class TrainingProgress:
    """What the caller hears after every tick."""

    nimg: int  # real pictures seen
    total: int  # real pictures until the end
    seconds: float  # spent so far, resumed parts included
    sec_per_kimg: float  # of the steps since the last tick, without grids and snapshots
    stats: Mapping[str, float]  # the tick's line in stats.jsonl
    grid: Path | None  # the newest grid of fakes


@dataclass(frozen=True)
class TrainingResult:
    """What a training left."""

    run_folder: Path
    snapshot: Path  # the record of the last snapshot
    nimg: int  # real pictures seen
    seconds: float  # spent, resumed parts included
    stopped: bool  # by Ctrl-C or SIGTERM, before the end: resume goes on from `snapshot`
    stats: Mapping[str, float]  # of the last tick


def train(
    config: TrainingConfig,
    data: Data,
    dataset: DatasetRef,
    run_folder: Path,
    progress: Callable[[TrainingProgress], None] | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Train from the start, or, with `resume`, from the run's newest sound snapshot if it has one.

    On one device, with the same library versions and thread count, the same arguments give the same weights bit for
    bit, whether the training was interrupted or not (CUDA: to rounding).

    Raises RunError if the folder holds a run already (without `resume`), or one of another dataset or config;
    DivergedError when numbers are no longer finite; ValueError for data of another shape than the config says.
    """
    trainer = Trainer(config, data, dataset, RunFolder(run_folder), progress)
    trainer.begin(resume)
    return trainer.run()


class Trainer:
    """One training, from the first picture to the last."""

    def __init__(
        self,
        config: TrainingConfig,
        data: Data,
        dataset: DatasetRef,
        folder: RunFolder,
        progress: Callable[[TrainingProgress], None] | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.dataset = dataset
        self.folder = folder
        self.progress = progress
        self.device = resolve_device(config.device)
        self.rng = torch.Generator().manual_seed(config.seed)
        self.algorithm: Algorithm = build_algorithm(config, self.device, self.rng)
        self.average = ExponentialMovingAverage(
            self.algorithm.networks()["G"], config.ema_half_life_kimg * 1000, config.ema_ramp_up
        )
        self.nimg = 0
        self.seconds = 0.0
        self.sums: dict[str, torch.Tensor] = {}  # of the statistics since the last tick
        self.steps = 0  # since the last tick
        self.saved: Path | None = None  # the snapshot of this very moment
        self.grid: Path | None = None
        self.stats: dict[str, float] = {}  # of the last tick
        self.columns, self.rows = grid_shape(config.resolution)

    def begin(self, resume: bool) -> None:
        """Check the folder, take up its newest snapshot, write config.json and the first grids."""
        if self.device.type == "cpu" and os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
            log.warning(
                "set OMP_WAIT_POLICY=PASSIVE before Python starts: beside busy processes it is many times faster"
            )
        if self.folder.exists():
            if not resume:
                raise RunError(f"{self.folder.path} holds a run already: resume it, or choose another folder")
            self._check_same_run()
            latest = self.folder.latest_snapshot(with_state=True)
            if latest is not None:
                self._load(latest)
            elif self.folder.snapshot_records():
                raise RunError(f"no snapshot of {self.folder.path} is fit to resume from: start a new run")
        if self.nimg == 0:
            self._write_reals()
            self._write_fakes()
        self.folder.write_config(self.config, self.dataset, self.device)  # last: only now is this a run
        self.folder.truncate_stats(self.nimg)
        self.stats = next(reversed(list(self.folder.read_stats())), {})

    def run(self) -> TrainingResult:
        """Train until `config.kimg`, or until asked to stop; ends with a snapshot either way."""
        started = time.perf_counter() - self.seconds
        tick_started, tick_nimg = time.perf_counter(), self.nimg
        with (
            StopSignal() as stop,
            Board(self.folder.path, self.nimg) as board,
            _reading(self.data(self.nimg)) as batches,
        ):
            while self.nimg < self.config.total_images and not stop.requested:
                self._step(batches)
                self.seconds = time.perf_counter() - started
                tick, due = self._tick_due()
                if due:
                    sec_per_kimg = (time.perf_counter() - tick_started) / (self.nimg - tick_nimg) * 1000
                    self._tick(tick, sec_per_kimg, board)
                    tick_started, tick_nimg = time.perf_counter(), self.nimg
            snapshot = self.saved or self._save()
        return TrainingResult(
            run_folder=self.folder.path,
            snapshot=snapshot,
            nimg=self.nimg,
            seconds=self.seconds,
            stopped=self.nimg < self.config.total_images,
            stats=self.stats,
        )

    def _step(self, batches: Iterator[np.ndarray | torch.Tensor]) -> None:
        reals = to_input(self._next_batch(batches), self.device)
        for name, value in self.algorithm.step(reals, self.rng).items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=self.device)) + value
        self.steps += 1
        self.nimg += self.config.batch
        self.saved = None
        self.average.update(self.algorithm.networks()["G"], self.config.batch, self.nimg)

    def _next_batch(self, batches: Iterator[np.ndarray | torch.Tensor]) -> torch.Tensor:
        config = self.config
        expected = (config.batch, config.channels, config.resolution, config.resolution)
        batch = next(batches, None)
        if batch is None:
            raise ValueError(f"the data ended after {self.nimg} pictures: it must begin anew instead")
        tensor = batch if isinstance(batch, torch.Tensor) else torch.from_numpy(np.array(batch))
        if tuple(tensor.shape) != expected or tensor.dtype != torch.uint8:
            raise ValueError(f"expected batches of uint8 {expected}, got {tensor.dtype} {tuple(tensor.shape)}")
        return tensor

    def _tick_due(self) -> tuple[int, bool]:
        """The number of this tick, and whether one ends here: at the first batch past a multiple, and at the end."""
        tick = self.nimg // self.config.tick_images
        passed = tick > (self.nimg - self.config.batch) // self.config.tick_images
        return tick, passed or self.nimg >= self.config.total_images

    def _tick(self, tick: int, sec_per_kimg: float, board: Board) -> None:
        means = {name: total.item() / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        self._require_finite(means)
        ended = self.nimg >= self.config.total_images
        if ended or tick % self.config.grid_ticks == 0:
            grid = self._write_fakes()
            board.show_grid(grid, self.nimg)
        self.stats = {
            "nimg": self.nimg,
            **{name: round(value, 6) for name, value in means.items()},
            "seconds": round(self.seconds, 3),
            "sec_per_kimg": round(sec_per_kimg, 4),
            "memory_gb": round(peak_memory_gb(), 3),
        }
        if self.device.type == "cuda":
            self.stats["gpu_memory_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)
        self.folder.append_stats(self.stats)
        board.show_stats(self.stats, self.nimg)
        if tick % self.config.snapshot_ticks == 0:
            self._save()
        if self.progress is not None:
            self.progress(
                TrainingProgress(self.nimg, self.config.total_images, self.seconds, sec_per_kimg, self.stats, self.grid)
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

    def _write_reals(self) -> None:
        cells: list[np.ndarray] = []
        with _reading(self.data(0)) as batches:
            while len(cells) < self.columns * self.rows:
                cells += list(self._next_batch(batches).permute(0, 2, 3, 1).cpu().numpy())
        write_png(self.folder.reals_file, tile(cells[: self.columns * self.rows], self.columns))

    def _write_fakes(self) -> np.ndarray:
        """The grid after `nimg` pictures: cell k shows seed k. Returns it, uint8 (H, W, C)."""
        self.algorithm.settle_average(self.average.network)
        latents = draw_latents(range(self.columns * self.rows), self.config.algorithm.z_dim)
        grid = tile(generate(self.average.network, latents), self.columns)
        self.grid = self.folder.fakes_file(self.nimg)
        write_png(self.grid, grid)
        return grid

    def _save(self) -> Path:
        """Write a snapshot of this moment, after checking that it is worth having."""
        self._require_finite({name: total.item() for name, total in self.sums.items()})
        self.algorithm.settle_average(self.average.network)
        state = {
            "algorithm": self.algorithm.state_dict(),
            "rng": self.rng.get_state(),
            "seconds": self.seconds,
            "sums": self.sums,
            "steps": self.steps,
        }
        networks = {**self.algorithm.networks(), "G_ema": self.average.network}
        path = save_snapshot(self.folder.snapshots, self.nimg, self.config, self.dataset, networks, state)
        self.folder.drop_old_states()
        self.saved = path
        return path

    def _load(self, path: Path) -> None:
        """Take up the run where the snapshot `path` left it."""
        for prefix, network in {**self.algorithm.networks(), "G_ema": self.average.network}.items():
            network.load_state_dict(load_weights(weights_path(path), prefix))
        state: dict[str, Any] = load_state(path)
        self.algorithm.load_state_dict(state["algorithm"])
        self.rng.set_state(state["rng"])
        self.seconds = state["seconds"]
        self.sums = {name: total.to(self.device) for name, total in state["sums"].items()}
        self.steps = state["steps"]
        self.nimg = read_record(path).nimg
        self.saved = path

    def _check_same_run(self) -> None:
        config, dataset = self.folder.read_config()
        changed = differences(config, self.config)
        if dataset.digest != self.dataset.digest:
            changed.append(f"dataset: {dataset} ({dataset.digest[:12]}) in the run, {self.dataset} now")
        if changed:
            raise RunError(
                f"cannot resume {self.folder.path} as another training; start a new run. " + "; ".join(changed)
            )


class StopSignal:
    """Within, the first Ctrl-C or SIGTERM asks the loop to end with a snapshot; a second one acts as it did before.

    Signals reach a process's main thread only; in another thread this does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        log.warning("stopping after this step, with a snapshot; once more to stop at once")
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def peak_memory_gb() -> float:
    """The most memory this process has held so far, in GB (10^9 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


@contextmanager
def _reading(batches: Iterator[np.ndarray | torch.Tensor]) -> Iterator[Iterator[np.ndarray | torch.Tensor]]:
    """Close the reader at the end, whatever happens: one that reads ahead has threads and pictures of its own."""
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
