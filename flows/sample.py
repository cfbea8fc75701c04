"""The sample flow: pictures, a grid and a walk from a trained generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from datasets.sheets import encode_data_uri
from datasets.store import Store
from tasks.gpu import gpu_slot
from tasks.sample import NEWEST, SampleParams, find_run, sample_run


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
        made = sample_run(source, params, Path(out) if out else None)
    with Image.open(made["grid"]) as grid:
        picture = encode_data_uri(grid.convert("RGB"))
    lines = [f"![samples]({picture})", *(f"- {name}: `{path}`" for name, path in made.items())]
    create_markdown_artifact(key="samples", markdown="\n".join(lines), description=f"Samples of {source.name}")
    return made
