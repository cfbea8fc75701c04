"""Train: a GAN on a version, tied to its content digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import Field

from datasets.loader import VersionReader
from datasets.store import Store
from datasets.version import Version
from models.gan.pictures import resize
from models.training.config import DatasetRef, TrainingConfig
from models.training.presets import PRESETS
from models.training.trainer import TrainingProgress, TrainingResult, train
from tasks.stage import StageParams

Preset = StrEnum("Preset", {name.upper().replace("-", "_"): name for name in PRESETS})  # type: ignore[misc]


class TrainParams(StageParams):
    """A preset, and what to change of it."""

    preset: Preset = Field(Preset("dcgan-demo"), description="A training that is known to work")
    kimg: float | None = Field(None, gt=0, description="Length in thousands of real pictures; empty: the preset's")
    batch: int | None = Field(None, ge=2, description="Pictures per step; empty: the preset's")
    seed: int = Field(0, ge=0, description="Of weights, latents, labels and the order of pictures")
    mirror: bool = Field(True, description="Show half of the pictures mirrored")

    def resolve(self) -> TrainingConfig:
        """The complete configuration."""
        changes = {"kimg": self.kimg, "batch": self.batch, "seed": self.seed}
        preset = PRESETS[self.preset.value].model_dump()
        return TrainingConfig.model_validate({**preset, **{k: v for k, v in changes.items() if v is not None}})


def train_on_version(
    store: Store,
    version: Version,
    params: TrainParams,
    run_folder: Path,
    progress: Callable[[TrainingProgress], None] | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Train on a version's pictures into a run folder.

    Raises StoreError for a version that cannot be trained on, models' RunError for a folder that cannot be used.
    """
    config = params.resolve()
    reader = VersionReader(store, version, config.resolution, resize, params.mirror)
    dataset = DatasetRef(version.name, version.number, version.content_digest, reader.count)

    def data(start_index: int) -> Iterator[np.ndarray]:
        return reader.batches(config.batch, config.seed, start_index)

    return train(config, data, dataset, run_folder, progress, resume)


def name_run(store: Store, version: Version, params: TrainParams) -> str:
    """A free run id that says what is trained on what: `faces-v0001-dcgan-demo-000`."""
    stem = f"{version.name}-v{version.number:04d}-{params.preset.value}"
    taken = {path.name for path in store.runs.glob(f"{stem}-*")}
    return next(name for number in range(len(taken) + 1) if (name := f"{stem}-{number:03d}") not in taken)
