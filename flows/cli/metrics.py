"""`kaobako metrics`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, phase_bars, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from tasks.metrics import MetricsParams, MetricsReport


def metrics(
    store: StoreOption,
    run: Annotated[
        str, typer.Argument(help="Run id, run folder or snapshot; the newest run when left out.")
    ] = "newest",
    against: Annotated[
        str, typer.Option(metavar="NAME@V|FOLDER", help="What to compare with; what it was trained on when left out.")
    ] = "",
    samples: Annotated[int, typer.Option(min=8, help="Fakes to look at.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="The first fake's seed; the others follow it.")] = 0,
    extractor: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="What pictures are compared by: hed-vgg4, or a .pt, .ts or .onnx.")
    ] = "hed-vgg4",
    psi: Annotated[float, typer.Option(help="Truncation of the fakes; figures elsewhere are of psi 1.")] = 1.0,
    subset: Annotated[
        int, typer.Option(min=8, help="Real pictures at most; of larger sets a random part is compared with.")
    ] = 50_000,
    ema: Annotated[bool, typer.Option("--ema/--no-ema", help="Averaged weights, or those of the last step.")] = True,
    all_snapshots: Annotated[
        bool, typer.Option("--all-snapshots", help="Measure every snapshot, and draw KID over the training.")
    ] = False,
    neighbours: Annotated[
        bool, typer.Option("--neighbours/--no-neighbours", help="Look for training pictures learned by heart.")
    ] = True,
    held_out: Annotated[
        str,
        typer.Option(
            metavar="NAME@V|FOLDER", help="Pictures that were not trained on: how near they come is what is usual."
        ),
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what was measured with the same settings before.")
    ] = False,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run the same functions without Prefect.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a trained generator: KID, FID, precision and recall, and whether it learned pictures by heart.

    kaobako metrics RUN --against faces@v7

    kaobako metrics RUN --all-snapshots --no-neighbours

    kaobako metrics RUN --held-out FOLDER

    The reals are read as the training reads them. KID of a perfect generator is 0 but for chance; what two halves of
    the reals give shows how much chance. FID, precision and recall depend on the counts: compare them at equal counts
    only. Figures go to metrics.jsonl in the run's folder, pictures to its folder metrics.
    """
    from tasks.metrics import MetricsParams

    params = MetricsParams(
        samples=samples,
        seed=seed,
        extractor=extractor,
        psi=psi,
        subset=subset,
        ema=ema,
        all_snapshots=all_snapshots,
        neighbours=neighbours,
        held_out=held_out,
        again=again,
    )
    report = (
        _measure_here(store, run, against, params) if no_prefect else _measure_in_prefect(store, run, against, params)
    )
    if as_json:
        print_json(report.summary())
        return
    show_report(report)


def _measure_here(store: Path, run: str, against: str, params: MetricsParams) -> MetricsReport:
    from datasets.store import Store
    from tasks.metrics import measure_run
    from tasks.progress import ProgressLog
    from tasks.sample import find_run

    place = Store(store)
    with progress_bars() as bars:
        shown = not bars.disable

        def say(line: str) -> None:
            if shown:
                bars.console.print(line, highlight=False, markup=False)  # above the bars
            else:
                typer.echo(line, err=True)

        lines, draw = ProgressLog(say, steps=not shown), phase_bars(bars)

        def show(what: str, done: int, total: int) -> None:
            lines(what, done, total)
            draw(what, done, total)

        return measure_run(place, find_run(place, run), against, params, show)


def _measure_in_prefect(store: Path, run: str, against: str, params: MetricsParams) -> MetricsReport:
    from flows.server import server_for

    server = server_for(store)
    from flows.metrics import metrics as metrics_flow
    from tasks.metrics import MetricsReport

    with server:
        made = metrics_flow(run, against, params, store)
    return MetricsReport.from_summary(made)


def show_report(report: MetricsReport) -> None:
    """A small table, what to know of it, and where the pictures are."""
    from flows.metrics import describe_metrics, tabulate_metrics, write_figure

    rows = tabulate_metrics(report)
    columns = list(rows[0])
    print_table(
        describe_metrics(report), columns, [[row[name] for name in columns] for row in rows], tuple(columns[1:])
    )
    if report.curve:
        typer.echo("KID x 1000 of every snapshot:")
        for line in report.curve:
            typer.echo(f"  {line['nimg'] / 1000:>8g} kimg  {write_figure('kid', line['value'], line['error'])}")
    for sentence in (*report.verdicts, *report.notes):
        typer.echo(sentence)
    for name, path in report.pictures.items():
        typer.echo(f"{name + ':':<22} {path}")
