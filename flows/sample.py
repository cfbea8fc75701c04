"""The sample flow: pictures, a grid, figures and a walk from a trained generator."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from pydantic import Field

from datasets.sheets import encode_data_uri
from datasets.store import Store
from tasks.gpu import gpu_slot
from tasks.progress import ProgressLog
from tasks.sample import NEWEST, SampleParams, find_run, sample_run

FIGURES = ("grid", "psi-sweep", "mixing")
SHOWN_BYTES = 100_000  # of all figures together: artifacts lie in Prefect's database
SHOWN_SIDE = 1280  # pixels
SECONDS_BETWEEN_REPORTS = 2.0


@flow(name="sample", flow_run_name="sample-{run}")
def sample(
    run: str = NEWEST,
    params: SampleParams = SampleParams(),  # noqa: B008 - an instance as default is what fills the form in the UI
    store: Path = Path("store"),
    out: Annotated[str, Field(description="Folder for the files; empty: `samples` in the run's folder")] = "",
) -> dict[str, Any]:
    """Sample a trained generator.

    Args:
        run: Id of the run in the store, a run's folder, or a snapshot; newest for the newest run.
        params: Which seeds, and what to make of them.
        store: Folder of the store.
        out: Folder for the files; empty: `samples` in the run's folder.
    """
    source = find_run(Store(store), run)
    with gpu_slot():
        made = sample_run(source, params, Path(out) if out else None, SamplingArtifact())
    figures = [name for name in FIGURES if name in made]
    lines = [f"![{name}]({show_figure(Path(made[name]), SHOWN_BYTES // len(figures))})" for name in figures]
    lines += [f"- {name}: `{path}`" for name, path in made.items()]
    create_markdown_artifact(key="samples", markdown="\n".join(lines), description=f"Samples of {source.name}")
    return made


def show_figure(path: Path, limit: int) -> str:
    """A figure as a data URI of at most about `limit` bytes of picture."""
    with Image.open(path) as figure:
        picture = figure.convert("RGB")
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    return encode_data_uri(picture, limit)


class SamplingArtifact:
    """A progress bar on the run's page for what takes long enough to see it, and lines in its log."""

    def __init__(self) -> None:
        self._lines = ProgressLog(get_run_logger().info)
        self._artifact: uuid.UUID | None = None
        self._reported = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        self._lines(what, done, total)
        if not done:
            return
        now = time.monotonic()
        if now - self._reported < SECONDS_BETWEEN_REPORTS and not (done == total and self._artifact):
            return
        self._reported = now
        if self._artifact is None:
            created = create_progress_artifact(0.0, key="sampling", description="pictures of what is being made")
            self._artifact = created if isinstance(created, uuid.UUID) else None
        if self._artifact is not None:
            update_progress_artifact(self._artifact, round(100.0 * done / total, 1), description=f"{what}: pictures")
