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
    against_file: Annotated[
        bool, typer.Option("--against-file", help="Compare with the file itself, not with the newest version's recipe.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures and the table of changes; ./tune-DATASET unless given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Examples to print of each kind of change.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show what other settings would change, without publishing and without opening a picture.

    The recipe, with --set, is compared with the newest version's own recipe, or with the file as it stands where there
    is no version yet. Both are judged on the same source and the decisions of today.

    kaobako tune recipes/anime-faces.toml --set clean.min_blur=0.4 --set dedup.radius=6

    Writes histograms of each measurement with both thresholds, a contact sheet of what would cross over, and a Parquet
    table with the cause of every change.
    """
    from datasets.store import Store
    from flows.recipe import load_recipe
    from tasks.tune import compare_plans, write_pictures

    place = Store(store)
    after = load_recipe(recipe, settings)
    before, named = baseline(recipe, settings, after, place, against_file)
    with progress_bars() as progress:
        bar = progress.add_task("judging", total=None)
        tuning = compare_plans(
            before.plan(),
            after.plan(),
            place,
            lambda stage, items: progress.update(bar, description=f"{stage}: {items}"),
        )
        progress.update(bar, description="drawing")
        written, blank = write_pictures(tuning, place, out or Path(f"tune-{after.dataset}"))
    if as_json:
        print_json(as_values(tuning, written))
    else:
        report(tuning, named, written, blank, limit)


def baseline(path: Path, settings: list[str], after: Recipe, store: Store, against_file: bool) -> tuple[Recipe, str]:
    """What is compared with, and its name: the newest version's own recipe, or the file without the settings.

    Where the pictures come from is the same on both sides.
    """
    from datasets.version import read_version
    from flows.recipe import load_recipe, make_recipe

    if against_file or not store.version_numbers(after.dataset):
        where = [text for text in settings if text.partition("=")[0].strip().split(".")[0] in ("source", "dataset")]
        return load_recipe(path, where), str(path)
    version = read_version(store, after.dataset)
    values = {**version.lineage["recipe"], "source": after.source.model_dump(mode="json")}
    return make_recipe(values, f"of {version.reference}"), f"the recipe of {version.reference}"


def as_values(tuning: Tuning, written: list[Path]) -> dict[str, Any]:
    """Everything as plain values."""
    from tasks.tune import count_stages

    return {
        "stages": count_stages(tuning),
        "summary": tuning.summary.to_pylist(),
        "changes": tuning.changes.to_pylist(),
        "unmeasured": tuning.after.unmeasured_counts(),
        "complete": not len(tuning.before.unmeasured) and not len(tuning.after.unmeasured),
        "written": [path.as_posix() for path in written],
    }


def report(tuning: Tuning, named: str, written: list[Path], blank: int, limit: int) -> None:
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
        known = " of what is measured" if len(tuning.after.unmeasured) else ""
        typer.echo(f"Nothing{known} would change.")
    for change in (Change.ADDED, Change.REMOVED):
        for row in tuning.crossing(change).slice(0, limit).to_pylist():
            typer.echo(f"  {explain_change(row)}")
    if unknown := sum(tuning.after.unmeasured_counts().values()):
        typer.echo(
            f"{unknown} items were never measured as far as this recipe needs: a build would open them. Their verdicts "
            "are not foretold, and what is judged by comparison (copies, percentiles of rank) may change with them."
        )
    if blank:
        typer.echo(f"{blank} of the pictures on the contact sheet have no thumbnail any more, and are blank.")
    for path in written:
        typer.echo(f"Wrote {path}")
