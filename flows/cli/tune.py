"""`kaobako tune`: what another setting would change, before it is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, SetOption, StoreOption, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from datasets.store import Store
    from flows.recipe import Recipe
    from tasks.tune import Tuning


def tune(
    recipe: Annotated[Path, typer.Argument(help="Recipe, such as recipes/anime-faces.toml.")],
    store: StoreOption,
    settings: SetOption = [],  # noqa: B006 - typer reads it, nobody changes it
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures and the table of changes; ./tune-DATASET unless given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Examples to print of each kind of change.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show what other settings would change, without publishing and without opening a picture.

    With --set, the recipe as it stands is compared with the recipe so changed. Without, the newest version's own recipe
    is compared with the file as it is now. Both are judged on the source and the decisions of today.

    kaobako tune recipes/anime-faces.toml --set clean.min_blur=90 --set dedup.radius=6

    Writes histograms of each measurement with both thresholds, a contact sheet of what would cross over, and a Parquet
    table with the cause of every change.
    """
    from datasets.store import Store
    from flows.recipe import load_recipe
    from tasks.tune import compare_plans, write_pictures

    place = Store(store)
    after = load_recipe(recipe, settings)
    before, named = baseline(recipe, settings, after, place)
    with progress_bars() as progress:
        bar = progress.add_task("judging", total=None)
        tuning = compare_plans(
            before.plan(),
            after.plan(),
            place,
            lambda stage, items: progress.update(bar, description=f"{stage}: {items}"),
        )
        progress.update(bar, description="drawing")
        written = write_pictures(tuning, place, out or Path(f"tune-{after.dataset}"))
    if as_json:
        print_json(as_values(tuning, written))
    else:
        report(tuning, named, written, limit)


def baseline(path: Path, settings: list[str], after: Recipe, store: Store) -> tuple[Recipe, str]:
    """What is compared with, and its name: the recipe without the settings, or the newest version's own recipe."""
    from datasets.version import read_version
    from flows.recipe import load_recipe, make_recipe

    if settings or not store.version_numbers(after.dataset):
        return load_recipe(path), str(path)
    version = read_version(store, after.dataset)
    return make_recipe(version.lineage["recipe"], f"of {version.reference}"), f"the recipe of {version.reference}"


def as_values(tuning: Tuning, written: list[Path]) -> dict[str, Any]:
    """Everything as plain values."""
    from tasks.tune import count_stages

    return {
        "stages": count_stages(tuning),
        "summary": tuning.summary.to_pylist(),
        "changes": tuning.changes.to_pylist(),
        "unmeasured": tuning.after.unmeasured_counts(),
        "written": [path.as_posix() for path in written],
    }


def report(tuning: Tuning, named: str, written: list[Path], limit: int) -> None:
    """The comparison for people: accounts, causes, examples, and where the pictures are."""
    from datasets.diff import Change, explain_change
    from tasks.tune import count_stages

    rows = []
    for row in count_stages(tuning):
        before, after = row["before"], row["after"]
        kept = [side and side["kept"] for side in (before, after)]
        moved = f"{after['kept'] - before['kept']:+d}" if before and after else None
        rows.append([row["stage"], *kept, moved, row["to_measure"] or None])
    columns = ["stage", "kept before", "kept after", "change", "to measure"]
    print_table(f"Against {named}", columns, rows, right=tuple(columns[1:]))
    counted = [[row["change"], row["cause"], row["parameter"], row["count"]] for row in tuning.summary.to_pylist()]
    if counted:
        print_table("What would change", ["change", "cause", "setting", "count"], counted, right=("count",))
    else:
        typer.echo("Nothing would change.")
    for change in (Change.ADDED, Change.REMOVED):
        for row in tuning.crossing(change).slice(0, limit).to_pylist():
            typer.echo(f"  {explain_change(row)}")
    if unknown := sum(tuning.after.unmeasured_counts().values()):
        typer.echo(
            f"{unknown} items were never measured as far as this recipe needs: a build would open them, and their "
            "verdicts (and those of their copies) are not foretold here."
        )
    for path in written:
        typer.echo(f"Wrote {path}")
