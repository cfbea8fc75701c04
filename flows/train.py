"""The train flow: a GAN on an exact version of a dataset, or on a plain folder."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from PIL import Image
from prefect import flow, runtime
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

from datasets.sheets import encode_data_uri
from datasets.store import Store
from models.training.run import RunFolder
from models.training.trainer import TrainingProgress, TrainingResult
from tasks.gpu import gpu_slot
from tasks.train import TrainParams, open_training, plan_training, run_training

WARNINGS_KEY = "training-warnings"
METRICS_KEY = "training-metrics"
METRICS_SHOWN = 20  # newest rows of the table of figures


class Ending:
    """How a training ended, kept in this process: a flow whose server went away raises that instead."""

    def __init__(self) -> None:
        self.made: dict[str, Any] | None = None  # what `train` gives; None until the loop has returned
        self.error: BaseException | None = None  # what ended it before that

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep the error that the body raises."""
        try:
            yield
        except BaseException as error:
            self.error = error
            raise


_ENDING: ContextVar[Ending] = ContextVar("ending")


@contextmanager
def keep_ending() -> Iterator[Ending]:
    """What becomes of the training of the body, which calls the flow once."""
    ending = Ending()
    token = _ENDING.set(ending)
    try:
        yield ending
    finally:
        _ENDING.reset(token)


def name_flow_run() -> str:
    """What the run is called in the UI: by what it trains on, or by the run that it goes on with."""
    given = runtime.flow_run.parameters
    folder, own = given.get("data") or "", given.get("run") or Path(given.get("out") or "").name
    return "train-" + (Path(folder).name or (own if given.get("resume") else "") or given.get("dataset") or own)


@flow(name="train", flow_run_name=name_flow_run)
def train(
    dataset: str = "faces",
    params: TrainParams = TrainParams(),  # noqa: B008 - an instance as default is what fills the form in the UI
    store: Path = Path("store"),
    run: str = "",
    resume: bool = False,
    data: str = "",
    out: str = "",
    allow_other_dataset: bool = False,
) -> dict[str, Any]:
    """Train a GAN on a published version, or on a plain folder of equal pictures.

    Args:
        dataset: The version to train on, such as faces@v7; without a number the newest one.
        params: A preset, and what to change of it.
        store: Folder of the store.
        run: Id of the run in the store; empty for a new one.
        resume: Go on with the run from its newest sound snapshot, on the pictures that it has.
        data: Instead of a version, a folder of equal pictures.
        out: Instead of a run in the store, the run's folder anywhere.
        allow_other_dataset: With resume, go on with the pictures named here, even if they are others.
    """
    place = Store(store)
    named = "" if data or (resume and not allow_other_dataset) else dataset
    ending = _ENDING.get(None) or Ending()
    with ending.noting():
        job = plan_training(
            place,
            named,
            params,
            run,
            resume,
            data=Path(data) if data else None,
            out=Path(out) if out else None,
            allow_other_dataset=allow_other_dataset,
        )
        log = get_run_logger()
        for line in job.data.left_out:
            log.warning("left out: %s", line)
        training = open_training(job)
    watcher = TrainingArtifacts(job.folder.name)
    with gpu_slot(), ending.noting():
        ending.made = summarise_training(run_training(training, watcher), job.reference)
    watcher.show_grids(job.folder)
    return ending.made


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


class TrainingArtifacts:
    """A progress bar and a log line per tick on the run's page; warnings with the grid that they speak of.

    A page that cannot be updated, because the server went away, say, is one warning in the log and ends no training.
    Nothing more is sent to it: every try would hold the training up for the minute that Prefect's client tries again.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._log = get_run_logger()
        self._warnings: list[str] = []
        self._measured: dict[str, Mapping[str, float]] = {}  # figures of quality by kimg
        self._page_lost = False
        self._artifact: uuid.UUID | None = None
        self._show(self._create_bar)

    def __call__(self, progress: TrainingProgress) -> None:
        self._log.info("%d of %d pictures, %.1f s per 1000", progress.nimg, progress.total, progress.sec_per_kimg)
        if self._artifact is not None:
            bar, percent = self._artifact, min(100.0, round(100.0 * progress.nimg / progress.total, 1))
            self._show(lambda: update_progress_artifact(bar, percent))
        if progress.events:
            self._show(lambda: self._show_warnings(progress))
        if progress.metrics:
            self._measured[f"{progress.nimg / 1000:g}"] = progress.metrics
            self._show(self._show_metrics)

    def show_grids(self, folder: Path) -> None:
        """The reals and the newest fakes of a run's folder, side by side on the run's page."""
        self._show(lambda: show_grids(folder))

    def _show(self, make: Callable[[], object]) -> None:
        if self._page_lost:
            return
        try:
            make()
        except Exception as error:  # noqa: BLE001 - server, network, a grid: what only shows something may fail
            self._page_lost = True
            said = str(error) or type(error).__name__
            self._log.warning("the run's page could not be updated: %s; the training goes on", said)

    def _create_bar(self) -> None:
        created = create_progress_artifact(0.0, key="training", description=f"{self._run}: pictures seen")
        self._artifact = created if isinstance(created, uuid.UUID) else None

    def _show_warnings(self, progress: TrainingProgress) -> None:
        for event in progress.events:  # the loop has written them to the log
            self._warnings.append(f"* after {progress.nimg / 1000:.1f} kimg: {event}")
        parts = [f"# {self._run}: look at this", "\n".join(self._warnings)]
        if progress.grid is not None:
            parts.append(_draw(f"the newest fakes, {progress.grid.name}", progress.grid))
        create_markdown_artifact(key=WARNINGS_KEY, markdown="\n\n".join(parts), description=self._run)

    def _show_metrics(self) -> None:
        rows = [
            {"kimg": kimg, **{name: f"{value:.4g}" for name, value in figures.items()}}
            for kimg, figures in list(self._measured.items())[-METRICS_SHOWN:]
        ]
        create_table_artifact(key=METRICS_KEY, table=rows, description=self._run)


def show_grids(folder: Path) -> None:
    """The reals and the newest fakes, side by side on the run's page."""
    run = RunFolder(folder)
    grids = {"reals": run.reals_file, "fakes": max(run.fakes.glob("*.png"))}
    parts = [f"# {folder.name}", *(f"## {title}\n\n{_draw(title, path)}" for title, path in grids.items())]
    create_markdown_artifact(key="training-grids", markdown="\n\n".join(parts), description=folder.name)


def _draw(title: str, path: Path) -> str:
    """A grid as markdown, small enough for Prefect's database."""
    with Image.open(path) as grid:
        picture = grid.convert("RGB")
    picture.thumbnail((640, 640), Image.Resampling.LANCZOS)
    return f"![{title}]({encode_data_uri(picture, limit=60_000)})"
