"""Train: a GAN on a version, tied to its content digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import Field

from datasets.errors import StoreError
from datasets.loader import VersionReader
from datasets.store import Store
from datasets.version import Version, read_version
from models.augment.apply import apply_augmentation
from models.gan.pictures import resize
from models.training.config import DatasetRef, TrainingConfig
from models.training.presets import PRESETS
from models.training.run import RunFolder
from models.training.trainer import TrainingProgress, TrainingResult, train
from tasks.stage import StageParams

Preset = StrEnum("Preset", {name.upper().replace("-", "_"): name for name in PRESETS})  # type: ignore[misc]


class TrainParams(StageParams):
    """A preset, and what to change of it."""

    preset: Preset = Field(Preset("dcgan-demo"), description="A training that is known to work")
    kimg: float | None = Field(None, gt=0, description="Length in thousands of real pictures; none: the preset's")
    batch: int | None = Field(None, ge=2, description="Pictures per step; none: the preset's")
    seed: int = Field(0, ge=0, description="Of weights, latents, labels and the order of pictures")
    mirror: bool = Field(True, description="Show half of the pictures mirrored")

    def resolve(self) -> TrainingConfig:
        """The complete configuration."""
        changes = {"kimg": self.kimg, "batch": self.batch, "seed": self.seed, "mirror": self.mirror}
        preset = PRESETS[self.preset.value].model_dump()
        return TrainingConfig.model_validate({**preset, **{k: v for k, v in changes.items() if v is not None}})

    def resolve_for(self, run: TrainingConfig) -> TrainingConfig:
        """The configuration of a run that goes on: its own, and what was asked for beyond the preset."""
        asked = {name: getattr(self, name) for name in self.model_fields_set - {"preset"}}
        return TrainingConfig.model_validate({**run.model_dump(), **{k: v for k, v in asked.items() if v is not None}})


@dataclass(frozen=True)
class TrainingJob:
    """What is trained on what, and where it goes."""

    version: Version
    config: TrainingConfig
    folder: Path
    resume: bool


def plan_training(store: Store, dataset: str, params: TrainParams, run: str = "", resume: bool = False) -> TrainingJob:
    """A new run on a version, or the rest of an old one.

    dataset: NAME or NAME@V; a resumed run has its own. run: its id; "" names a new one. Raises StoreError.
    """
    if not resume:
        version = read_version(store, dataset)
        return TrainingJob(version, params.resolve(), store.run(run or name_run(store, version, params)), False)
    if not run:
        known = ", ".join(sorted(path.name for path in store.runs.glob("*"))) or "none"
        raise StoreError(f"--resume needs the run to go on with: --run ID. Runs in {store.root}: {known}")
    folder = store.run(run)
    config, trained_on = RunFolder(folder).read_config()
    version = read_version(store, str(trained_on))
    if version.content_digest != trained_on.digest:
        raise StoreError(f"{run} was trained on {trained_on} with another content ({trained_on.digest[:12]}…)")
    return TrainingJob(version, params.resolve_for(config), folder, True)


def run_training(
    store: Store, job: TrainingJob, progress: Callable[[TrainingProgress], None] | None = None
) -> TrainingResult:
    """Train on a version's pictures into the job's folder.

    Raises StoreError for a version that cannot be trained on, models' RunError for a folder that cannot be used.
    """
    config, version = job.config, job.version
    reader = VersionReader(store, version, config.resolution, resize, config.mirror, derive=apply_augmentation)
    dataset = DatasetRef(version.name, version.number, version.content_digest, reader.count)

    def data(start_index: int) -> Iterator[np.ndarray]:
        return reader.batches(config.batch, config.seed, start_index)

    return train(config, data, dataset, job.folder, progress, job.resume)


def name_run(store: Store, version: Version, params: TrainParams) -> str:
    """A free run id that says what is trained on what: `faces-v0001-dcgan-demo-000`."""
    stem = f"{version.name}-v{version.number:04d}-{params.preset.value}"
    taken = {path.name for path in store.runs.glob(f"{stem}-*")}
    return next(name for number in range(len(taken) + 1) if (name := f"{stem}-{number:03d}") not in taken)
