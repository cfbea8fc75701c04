"""A run's folder: everything that one training leaves, readable without this program.

config.json                          the resolved config, the dataset's version and content digest, library versions
stats.jsonl                          one line per tick
events.jsonl                         warnings: what a person should look at, and when
metrics.jsonl, metrics/              figures of quality, where somebody measured; see metrics_file.py
events.out.tfevents.*                the same for TensorBoard, and the grids
reals.png                            what it learns from
fakes/fakes-NNNNNNNNN.png            after that many pictures; cell k is always seed k, by the averaged weights
snapshots/snapshot-NNNNNNNNN.*       see snapshot.py

Snapshots are thinned: the newest NEWEST_KEPT stay, every SPACING-th one, and the BEST_KEPT whose fakes are most nearly
as different from each other as the reals are (before a collapse, say). What a resume needs stays with the newest.
"""

import fcntl
import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from pydantic import ValidationError

from models.training.atomic import write_text
from models.training.config import DatasetRef, TrainingConfig
from models.training.metrics_file import forget_metrics
from models.training.snapshot import (
    SnapshotError,
    SnapshotRecord,
    check_snapshot,
    read_record,
    snapshot_path,
    state_path,
    weights_path,
)

STATES_KEPT = 2  # newest snapshots that keep what a resume needs; it is larger than the weights
NEWEST_KEPT = 4
SPACING = 8
BEST_KEPT = 2

log = logging.getLogger(__name__)


class RunError(Exception):
    """A run folder that cannot be used as asked; the message says why and what to do."""


class RunFolder:
    """Paths and files of one run. Creating the object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.stats_file = path / "stats.jsonl"
        self.events_file = path / "events.jsonl"
        self.reals_file = path / "reals.png"
        self.fakes = path / "fakes"
        self.snapshots = path / "snapshots"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.config_file.is_file()

    def write_config(self, config: TrainingConfig, dataset: DatasetRef, device: torch.device) -> None:
        """Begin the run, or note the changed settings of a resumed one."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "config": config.model_dump(mode="json"),
            "dataset": asdict(dataset),
            "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
            "threads": torch.get_num_threads(),
            "libraries": {"torch": torch.__version__, "numpy": np.__version__},
        }
        write_text(self.config_file, json.dumps(content, indent=2) + "\n")

    def read_config(self) -> tuple[TrainingConfig, DatasetRef]:
        """The resolved config and the dataset of the run; RunError if there is none or it cannot be read."""
        try:
            content = json.loads(self.config_file.read_text(encoding="utf-8"))
            return TrainingConfig.model_validate(content["config"]), DatasetRef(**content["dataset"])
        except FileNotFoundError as error:
            raise RunError(f"{self.path} is not a run folder: it has no config.json") from error
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise RunError(f"cannot read {self.config_file}: {error}") from error

    def fakes_file(self, nimg: int) -> Path:
        """Where the grid of fakes after `nimg` real pictures goes."""
        return self.fakes / f"fakes-{nimg:09d}.png"

    def append_stats(self, line: Mapping[str, Any]) -> None:
        """Add one tick's line to stats.jsonl; NaN and infinities are refused (ValueError), as JSON has none."""
        with self.stats_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def append_event(self, nimg: int, event: str, grid: Path | None = None) -> None:
        """Add a warning to events.jsonl, with the name of the grid of that time."""
        line = {"nimg": nimg, "event": event, "grid": grid.name if grid else None}
        with self.events_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_stats(self) -> Iterator[dict[str, Any]]:
        """The lines of stats.jsonl, oldest first. A line cut off by a crash ends them."""
        return _read_lines(self.stats_file)

    def truncate_lines(self, nimg: int) -> None:
        """Forget ticks, events and figures after `nimg` pictures: the resumed run writes them anew."""
        for path in (self.stats_file, self.events_file):
            if path == self.stats_file or path.is_file():
                lines = [json.dumps(line) + "\n" for line in _read_lines(path) if line["nimg"] <= nimg]
                write_text(path, "".join(lines))
        forget_metrics(self.path, nimg)

    def claim(self) -> IO[str]:
        """Hold the folder until what is returned is closed, or this process ends: two trainings in it would mix.

        Raises RunError while another holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = (self.path / ".lock").open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise RunError(
                f"another training writes into {self.path}: wait until it ends, or choose another folder"
            ) from error
        return file

    def drop_debris(self) -> None:
        """Remove what a killed writer left: unfinished files, and weights without a record. For the folder's holder."""
        records = {path.stem for path in self.snapshot_records()}
        for path in sorted(self.snapshots.glob("*")):
            unfinished = path.name.endswith(".part")
            if unfinished or (path.name.startswith("snapshot-") and path.name.partition(".")[0] not in records):
                path.unlink()

    def snapshot_path(self, nimg: int) -> Path:
        """Where the record of the snapshot after `nimg` pictures lies."""
        return snapshot_path(self.snapshots, nimg)

    def snapshot_records(self) -> list[Path]:
        """The records of all snapshots, oldest first."""
        return sorted(self.snapshots.glob("snapshot-*.json"))

    def latest_snapshot(self, with_state: bool = False) -> Path | None:
        """The record of the newest sound snapshot, None if there is none.

        Digests are verified; a broken snapshot is passed over with a warning. `with_state`: it must be fit to resume
        from.
        """
        for path in reversed(self.snapshot_records()):
            try:
                check_snapshot(path, with_state)
            except SnapshotError as error:
                log.warning("passing over a broken snapshot: %s", error)
                continue
            return path
        return None

    def thin_snapshots(self) -> None:
        """Remove old snapshots, and the training state of those that stay, by the rule at the top of this file."""
        known: dict[Path, SnapshotRecord] = {}
        for path in self.snapshot_records():
            try:
                known[path] = read_record(path)
            except SnapshotError as error:  # nobody knows what it is, so nobody may throw it away
                log.warning("left as it is: %s", error)
        records = list(known)
        for path in records[:-STATES_KEPT]:
            state_path(path).unlink(missing_ok=True)
        kept = {*records[-NEWEST_KEPT:], *find_best(known)}
        for path, record in known.items():
            if path not in kept and not is_spaced(record):
                path.unlink()  # first: without its record a snapshot does not exist
                weights_path(path).unlink(missing_ok=True)


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file, oldest first; a line cut off by a crash ends them."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                log.warning("%s ends in an unfinished line, which is ignored", path)
                return


def is_spaced(record: SnapshotRecord) -> bool:
    """Whether a snapshot is one of every SPACING-th, by the pictures seen: the same ones however a run was cut up."""
    interval = record.config.snapshot_ticks * record.config.tick_images
    return record.nimg // interval % SPACING == 0 and record.nimg % interval < record.config.batch


def find_best(records: Mapping[Path, SnapshotRecord]) -> list[Path]:
    """The BEST_KEPT snapshots whose diversity is nearest to that of the reals, by ratio; none where nobody measured."""
    known = [(abs(math.log(record.diversity)), path) for path, record in records.items() if record.diversity]
    return [path for _, path in sorted(known)[:BEST_KEPT]]


def find_snapshot(path: Path) -> Path:
    """The snapshot that `path` means: a run folder's newest sound one, or a snapshot's own `.json` or `.safetensors`.

    Returns the path to give to `read_record`. Raises RunError or SnapshotError if there is none.
    """
    if path.is_dir():
        run = RunFolder(path)
        run.read_config()
        latest = run.latest_snapshot()
        if latest is None:
            raise RunError(f"{path} has no usable snapshot yet: train longer, or resume the run")
        return latest
    if path.suffix not in (".json", ".safetensors"):
        raise RunError(f"{path} is neither a run folder nor a snapshot (.json or .safetensors)")
    if path.suffix == ".json":
        check_snapshot(path, with_state=False)
    else:
        read_record(path)
    return path
