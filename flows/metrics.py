"""The metrics flow: how good a generator's pictures are, and whether it learned any by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import Field

from datasets.store import Store
from flows.sample import SamplingArtifact, show_figure
from tasks.gpu import gpu_slot
from tasks.metrics import MetricsParams, MetricsReport, measure_run
from tasks.sample import NEWEST, find_run

SHOWN_BYTES = 100_000  # of all pictures together: artifacts lie in Prefect's database
TITLES = {"kid": "KID x 1000", "fid": "FID", "precision": "precision", "recall": "recall"}


@flow(name="metrics", flow_run_name="metrics-{run}")
def metrics(
    run: str = NEWEST,
    against: Annotated[
        str, Field(description="NAME, NAME@V or a folder of pictures; empty: what the run was trained on")
    ] = "",
    params: MetricsParams = MetricsParams(),  # noqa: B008 - an instance as default is what fills the form in the UI
    store: Path = Path("store"),
) -> dict[str, Any]:
    """Measure a trained generator: KID, FID, precision and recall, and its nearest training pictures.

    Args:
        run: Id of the run in the store, a run's folder, or a snapshot; newest for the newest run.
        against: The version to compare with, such as faces@v7, or a folder; empty: what it was trained on.
        params: What is measured, and on how many pictures.
        store: Folder of the store.
    """
    place = Store(store)
    with gpu_slot():
        report = measure_run(place, find_run(place, run), against, params, SamplingArtifact())
    create_table_artifact(key="metrics", table=tabulate_metrics(report), description=describe_metrics(report))
    if report.pictures:
        limit = SHOWN_BYTES // len(report.pictures)
        parts = [f"![{name}]({show_figure(Path(path), limit)})" for name, path in report.pictures.items()]
        parts += [f"- {sentence}" for sentence in (*report.verdicts, *report.notes)]
        parts += [f"- {name}: `{path}`" for name, path in report.pictures.items()]
        create_markdown_artifact(key="metrics-pictures", markdown="\n".join(parts), description=report.run.name)
    return report.summary()


def tabulate_metrics(report: MetricsReport) -> list[dict[str, str]]:
    """Two rows: the fakes with KID and its error first, and KID of two halves of the reals.

    The other figures of the halves are left out: they depend on the counts, which are not those of the fakes.
    """
    lines = {line["figure"]: line for line in report.lines if line["figure"] in TITLES}
    kid = lines["kid"]
    fakes = {"": f"{kid['fakes']} fakes against {kid['reals']} reals"}
    fakes |= {title: write_figure(key, lines[key]["value"], lines[key]["error"]) for key, title in TITLES.items()}
    halves = dict.fromkeys(fakes, "") | {"": f"reals against reals, {kid['reals'] // 2} each"}
    halves[TITLES["kid"]] = write_figure("kid", kid["baseline"], kid["baseline_error"])
    return [fakes, halves]


def write_figure(figure: str, value: float, error: float | None) -> str:
    """A figure as people read it; KID times 1000, with its standard error."""
    factor = 1000.0 if figure == "kid" else 1.0
    said = f"{factor * value:.3f}" if figure in ("precision", "recall") else f"{factor * value:.4g}"
    return said if error is None else f"{said} ± {factor * error:.2g}"


def describe_metrics(report: MetricsReport) -> str:
    """What the table is of, in a line."""
    line = report.lines[0]
    return (
        f"{report.run.name} after {line['nimg'] / 1000:g} kimg against {line['reference']} "
        f"({line['reference_digest'][:12]}), {line['extractor']} at {line['width']}x{line['height']}, "
        f"psi {line['psi']:g}{'' if line['ema'] else ', weights of the last step'}"
    )
