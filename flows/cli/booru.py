"""`kaobako booru` and `kaobako evaluate`: the demo board, and how well a build did on it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, print_json, print_table, progress_bars


class SchemaChoice(StrEnum):
    """Danbooru's metadata schemas."""

    TYPED = "2021"
    STRINGS = "2019"


_DETAILS = ("rightly", "here", "earlier", "unlisted", "survivors", "later")  # columns that only --json shows


class VintageChoice(StrEnum):
    """What the rating letters mean: until 2021 s is safe, since 2022 it is sensitive."""

    BEFORE_2022 = "2021"
    SINCE_2022 = "2022"


def draw(
    out: Annotated[Path, typer.Argument(help="Folder to draw into; must be new or empty.")],
    posts: Annotated[int, typer.Option(min=1, help="Posts to draw.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same board, byte for byte.")] = 1,
    schema: Annotated[SchemaChoice, typer.Option(help="Metadata schema: typed (2021) or all strings (2019).")] = (
        SchemaChoice.TYPED
    ),
    ratings: Annotated[
        VintageChoice, typer.Option(help="Rating letters of 2021 (s is safe) or of 2022 (g, and s is sensitive).")
    ] = VintageChoice.BEFORE_2022,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw a small imageboard with planted defects, in Danbooru's layout, and the truth about it."""
    from dataclasses import asdict

    from datasets.booru.board import RatingVintage, Schema, draw_board

    with progress_bars() as progress:
        bar = progress.add_task("drawing", total=posts)
        summary = draw_board(
            out,
            posts,
            seed,
            Schema(schema.value),
            RatingVintage(ratings.value),
            workers=workers or None,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        print_json(asdict(summary))
        return
    typer.echo(f"Drew {posts} posts into {out}: metadata/, original/, truth.parquet")
    typer.echo(f"Curate it: kaobako curate recipes/demo.toml --set source.root={out}")


def evaluate(
    version: Annotated[str, typer.Argument(help="NAME@V, NAME, or a version's folder.")],
    truth: Annotated[Path, typer.Option(help="The board's truth.parquet.")],
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Precision and recall of a build on a demo board, per stage and per planted defect."""
    import pyarrow.parquet as pq

    from datasets.booru.evaluate import evaluate as evaluate_tables
    from datasets.store import Store
    from datasets.version import read_version

    found = read_version(Store(store), version)
    result = evaluate_tables(found.manifest(), found.ledger(), pq.read_table(truth))
    if as_json:
        print_json({"version": found.reference, **result.to_json()})
        return
    for title, rows in result.to_tables().items():
        columns = [name for name in rows[0] if name not in _DETAILS] if rows else []
        shown = [[row[name] for name in columns] for row in rows]
        print_table(title, columns, shown, right=tuple(columns[1:-1] if title == "kinds" else columns[1:]))
