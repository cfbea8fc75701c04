"""`kaobako curate`: build the next version of a dataset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, SetOption, StoreOption, print_json
from flows.server import server_for

if TYPE_CHECKING:
    from flows.recipe import Recipe
    from flows.runners import Runner


class RunnerChoice(StrEnum):
    """flows.runners.Runner, without importing Prefect for --help."""

    THREADS = "threads"
    PROCESSES = "processes"
    RAY = "ray"


def curate(
    recipe: Annotated[Path, typer.Argument(help="Recipe, such as recipes/anime-faces.toml.")],
    store: StoreOption,
    settings: SetOption = [],  # noqa: B006 - typer reads it, nobody changes it
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run the same functions without Prefect.")] = False,
    runner: Annotated[RunnerChoice, typer.Option(help="Where the work runs.")] = RunnerChoice.THREADS,
    workers: Annotated[int, typer.Option(min=0, help="How many at once; 0: one per core.")] = 0,
    wait: Annotated[int, typer.Option(min=0, help="Minutes to wait for another build of the same dataset.")] = 0,
    everything: Annotated[
        bool, typer.Option("--everything", help="Judge all again even when nothing is new since the last build.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the next version of a dataset from a recipe.

    Ends at once when nothing is new: files, metadata, recipe, decisions, weights. Else only what was never measured is
    opened, so a second build costs what changed. On your own pictures:

    kaobako curate recipes/anime-faces.toml --set source.kind=folder --set source.root=~/pictures
    """
    server = server_for(store, no_prefect)
    from flows.recipe import load_recipe
    from flows.runners import Runner

    loaded = load_recipe(recipe, settings)
    with server:
        made = _build(loaded, store, Runner(runner.value), workers, wait, no_prefect, everything)
    if as_json:
        print_json(made)
        return
    report(made, store)


def _build(
    recipe: Recipe, store: Path, runner: Runner, workers: int, wait: int, no_prefect: bool, everything: bool
) -> dict[str, Any]:
    from flows.curate import curate as curate_flow
    from flows.curate import curate_without_prefect, summarise

    if not no_prefect:
        made: dict[str, Any] = curate_flow(recipe, store, runner, workers, wait, everything)
        return made
    from flows.observers import ConsoleObserver

    with ConsoleObserver() as observer:
        return summarise(curate_without_prefect(recipe, store, observer, runner, workers, wait * 60.0, everything))


def report(made: dict[str, Any], store: Path) -> None:
    """The outcome of a build for people: the accounts, and what to do next."""
    from flows.cli.options import print_table

    reference = made["version"]
    rows = [
        [
            stage,
            row["in"],
            row["kept"],
            sum(row["dropped"].values()),
            ", ".join(f"{reason} {count}" for reason, count in row["dropped"].items()),
            made["opened"].get(stage, 0),
        ]
        for stage, row in made["counts"].items()
    ]
    columns = ["stage", "in", "kept", "dropped", "reasons", "opened"]
    print_table(reference, columns, rows, right=("in", "kept", "dropped", "opened"))
    if not made["published"]:
        typer.echo(f"Nothing differs from {reference}: no new version was published.")
        if not made["opened"]:
            typer.echo("(No input is new since the last build, so nothing was judged again; --everything does it.)")
    if made["unread"]:
        typer.echo(f"{made['unread']} files could not be read just now; the next build tries again.")
    typer.echo(f"Card:    {made['folder']}/README.md")
    typer.echo(f"Digest:  {made['content_digest']}")
    typer.echo(f"Review:  kaobako review {reference} --store {store}")
    typer.echo(f"Train:   kaobako train {reference} --store {store}")
