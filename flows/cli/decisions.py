"""`kaobako decisions`: what people decided, into the store and out of it."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, print_json, print_table

app = typer.Typer(help="Human decisions: they beat every automatic verdict.", no_args_is_help=True)
Who = Annotated[str, typer.Option("--who", help="The reviewer.", default_factory=getpass.getuser)]


@app.command("pull")
def pull(
    version: Annotated[str, typer.Argument(help="The version that was reviewed: NAME or NAME@V.")],
    store: StoreOption,
    who: Who,
    note: Annotated[str | None, typer.Option(help="Said with each of these decisions.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the keep, reject and unsure tags of a review into the store. The next build obeys them.

    Tags given while looking at a difference (`kaobako review NAME@V --diff OLDER`) are taken along.
    """
    from datasets.review.commands import pull_review
    from datasets.review.records import review_name
    from datasets.store import Store

    place = Store(store)
    name = review_name(*place.resolve(version))
    pulled = pull_review(place.root / "review", name, place.decisions, who, note)
    if as_json:
        print_json({"review": name, "decisions": len(pulled.rows), "said": pulled.describe()})
        return
    for line in pulled.describe():
        typer.echo(line)


@app.command("list")
def list_all(store: StoreOption, as_json: JsonOption = False) -> None:
    """List the decisions that hold now: the newest for each picture."""
    from datasets.decisions import current_decisions
    from datasets.store import Store

    columns = ["crop_id", "decision", "who", "decided_at", "version", "note", "pixel_digest"]
    rows = current_decisions(Store(store).decisions).select(columns).to_pylist()
    if as_json:
        print_json(rows)
        return
    shown = [[*(row[c] for c in columns[:-1]), row["pixel_digest"][:12] + "…"] for row in rows]
    print_table(f"Decisions in {store}", columns, shown)


@app.command("import")
def import_file(
    path: Annotated[Path, typer.Argument(help="CSV with at least pixel_digest and decision.")],
    store: StoreOption,
    who: Who,
) -> None:
    """Add decisions from a CSV file, such as one made by `kaobako decisions export`."""
    from datasets.decisions import append_decisions, import_csv, read_decisions
    from datasets.store import Store

    rows = import_csv(path, who)
    place = Store(store).decisions
    before = len(read_decisions(place))
    append_decisions(place, rows)
    added = len(read_decisions(place)) - before
    typer.echo(f"{added} decisions added, {len(rows) - added} were known.")


@app.command("export")
def export_file(path: Annotated[Path, typer.Argument(help="CSV file to write.")], store: StoreOption) -> None:
    """Write all decisions ever made to a CSV file."""
    from datasets.decisions import export_csv, read_decisions
    from datasets.store import Store

    rows = read_decisions(Store(store).decisions)
    export_csv(rows, path)
    typer.echo(f"{len(rows)} decisions written to {path}.")
