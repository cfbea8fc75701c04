"""A run's folder: everything that one training leaves, readable without this program.

config.json                          the resolved config, the dataset's version and content digest, library versions
stats.jsonl                          one line per tick
events.jsonl                         warnings: what a person should look at, and when
events.out.tfevents.*                the same for TensorBoard, and the grids
reals.png                            what it learns from
fakes/fakes-NNNNNNNNN.png            after that many pictures; cell k is always seed k, by the averaged weights
snapshots/snapshot-NNNNNNNNN.*       see snapshot.py

Snapshots are thinned: the newest NEWEST_KEPT stay, every SPACING-th one, and the BEST_KEPT whose fakes are most nearly
as different from each other as the reals are (before a collapse, say). What a resume needs stays with the newest.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from models.training.atomic import write_text
from models.training.config import DatasetRef, TrainingConfig
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

    def append_event(self, nimg: int, event: str) -> None:
        """Add a warning to events.jsonl."""
        with self.events_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"nimg": nimg, "event": event}) + "\n")

    def read_stats(self) -> Iterator[dict[str, Any]]:
        """The lines of stats.jsonl, oldest first. A line cut off by a crash ends them."""
        if not self.stats_file.is_file():
            return
        with self.stats_file.open(encoding="utf-8") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    log.warning("%s ends in an unfinished line, which is ignored", self.stats_file)
                    return

    def truncate_stats(self, nimg: int) -> None:
        """Forget ticks after `nimg` pictures: the resumed run writes them anew."""
        lines = [json.dumps(line) + "\n" for line in self.read_stats() if line["nimg"] <= nimg]
        write_text(self.stats_file, "".join(lines))

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
        records = self.snapshot_records()
        for path in records[:-STATES_KEPT]:
            state_path(path).unlink(missing_ok=True)
        kept = {*records[-NEWEST_KEPT:], *find_best(records)}
        for path in records:
            if path not in kept and not is_spaced(read_record(path)):
                path.unlink()  # first: without its record a snapshot does not exist
                weights_path(path).unlink(missing_ok=True)


def is_spaced(record: SnapshotRecord) -> bool:
    """Whether a snapshot is one of every SPACING-th, by the pictures seen: the same ones however a run was cut up."""
    interval = record.config.snapshot_ticks * record.config.tick_images
    return record.nimg // interval % SPACING == 0 and record.nimg % interval < record.config.batch


def find_best(records: list[Path]) -> list[Path]:
    """The BEST_KEPT snapshots whose diversity is nearest to that of the reals, by ratio; none where nobody measured."""
    known = [(record.diversity, path) for path in records if (record := read_record(path)).diversity]
    return [path for _, path in sorted(known, key=lambda pair: (abs(math.log(pair[0] or 1.0)), pair[1]))[:BEST_KEPT]]


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
