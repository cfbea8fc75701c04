"""The train flow: a GAN on an exact version of a dataset."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from PIL import Image
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from datasets.sheets import encode_data_uri
from datasets.store import Store
from models.training.run import RunFolder
from models.training.trainer import TrainingProgress, TrainingResult
from tasks.gpu import gpu_slot
from tasks.train import TrainParams, plan_training, run_training


@flow(name="train", flow_run_name="train-{dataset}")
def train(
    dataset: str = "faces",
    params: TrainParams = TrainParams(),  # noqa: B008 - an instance as default is what fills the form in the UI
    store: Path = Path("store"),
    run: str = "",
    resume: bool = False,
) -> dict[str, Any]:
    """Train a GAN on a published version.

    Args:
        dataset: The version to train on, such as faces@v7; without a number the newest one.
        params: A preset, and what to change of it.
        store: Folder of the store.
        run: Id of the run in the store; empty for a new one.
        resume: Go on with the run from its newest snapshot.
    """
    place = Store(store)
    job = plan_training(place, dataset, params, run, resume)
    watcher = ProgressArtifacts(job.folder.name)
    with gpu_slot():
        result = run_training(place, job, watcher)
    show_grids(job.folder)
    return summarise_training(result, job.version.reference)


def summarise_training(result: TrainingResult, dataset: str) -> dict[str, Any]:
    """A training's outcome as plain values."""
    return {
        "run": result.run_folder.as_posix(),
        "dataset": dataset,
        "snapshot": result.snapshot.as_posix(),
        "images": result.nimg,
        "seconds": round(result.seconds, 1),
        "stopped": result.stopped,
    }


class ProgressArtifacts:
    """A progress bar and a log line per tick on the run's page."""

    def __init__(self, run: str) -> None:
        self._log = get_run_logger()
        created = create_progress_artifact(0.0, key="training", description=f"{run}: pictures seen")
        self._artifact = created if isinstance(created, uuid.UUID) else None

    def __call__(self, progress: TrainingProgress) -> None:
        self._log.info("%d of %d pictures, %.1f s per 1000", progress.nimg, progress.total, progress.sec_per_kimg)
        if self._artifact is not None:
            update_progress_artifact(self._artifact, min(100.0, round(100.0 * progress.nimg / progress.total, 1)))


def show_grids(folder: Path) -> None:
    """The reals and the newest fakes, side by side on the run's page."""
    run = RunFolder(folder)
    grids = {"reals": run.reals_file, "fakes": max(run.fakes.glob("*.png"))}
    parts = [f"# {folder.name}"]
    for title, path in grids.items():
        with Image.open(path) as grid:
            picture = grid.convert("RGB")
        picture.thumbnail((640, 640), Image.Resampling.LANCZOS)
        parts.append(f"## {title}\n\n![{title}]({encode_data_uri(picture, limit=60_000)})")
    create_markdown_artifact(key="training-grids", markdown="\n\n".join(parts), description=folder.name)
