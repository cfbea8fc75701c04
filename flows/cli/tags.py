"""`kaobako tags`: which tags a filter lets in and which it keeps out, to help write one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, SetOption, StoreOption, print_json, print_table, progress_bars

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.tag_counts import TagSurvey


def tags(
    recipe: Annotated[Path, typer.Argument(help="Recipe, such as recipes/anime-faces.toml.")],
    store: StoreOption,
    settings: SetOption = [],  # noqa: B006 - typer reads it, nobody changes it
    like: Annotated[str, typer.Option(metavar="PATTERN", help="Only tags such as '*_hair'. Quote it.")] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Tags to list of each kind; 20, or every tag with --csv.")
    ] = None,
    reason: Annotated[
        str,
        typer.Option(help="Compare with the posts that were dropped for this alone, such as score or tag_unwanted."),
    ] = "",
    without_files: Annotated[
        bool, typer.Option("--without-files", help="Judge posts whose file is not there (yet) as if it was.")
    ] = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.")] = False,
) -> None:
    """Count the tags of the posts that the recipe's filter takes, and of those that it drops. Opens no picture.

    Three lists: the commonest tags in, the commonest out, and the most telling ones. `lift` says how many times as
    common a tag is among the taken posts: 2.0 is twice as common in, 0.5 is twice as common out.

    To write a filter, start wide and look at what comes in:

    kaobako tags recipes/anime-faces.toml --set 'filter.tags_none=[]' --set 'filter.ratings=["safe","general"]'

    Then keep out what does not belong, see whether it also takes what you want, and go on:

    kaobako tags recipes/anime-faces.toml --set 'filter.tags_none=["comic","*_cosplay"]' --reason tag_unwanted

    kaobako tags recipes/anime-faces.toml --like '*_hair' --limit 50

    What you settle on goes into the recipe's table `filter` as it stands: tags_none = ["comic", "*_cosplay"].
    """
    from datasets.store import Store
    from flows.recipe import load_recipe
    from tasks.tag_counts import survey_tags

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    loaded = load_recipe(recipe, settings)
    with progress_bars() as progress:
        progress.add_task("reading metadata", total=None)
        survey = survey_tags(loaded.source, loaded.filter, without_files, reason, Store(store).metadata_cache)
    if as_json:
        print_json(as_values(survey, limit or _LIMIT, like))
    elif as_csv:
        print_csv(survey, limit, like)
    else:
        report(survey, limit or _LIMIT, like, reason)


_LIMIT = 20
_LISTS = {"taken": "Commonest in", "dropped": "Commonest out", "telling": "Most telling"}


def as_values(survey: TagSurvey, limit: int, like: str) -> dict[str, Any]:
    """Everything as plain values."""
    from tasks.tag_counts import pick_tags

    return {
        "posts": {"taken": survey.taken, "dropped": survey.dropped, "unusable": survey.unusable},
        "reasons": survey.reasons,
        **{order: pick_tags(survey.tags, order, limit, like).to_pylist() for order in _LISTS},
        "unknown_ids": survey.strangers[1],
        "absent_tags": survey.absent_tags,
        "rating_vintage": survey.vintage,
    }


def print_csv(survey: TagSurvey, limit: int | None, like: str) -> None:
    """One line per tag that is in one of the three lists, each once, in order of the tag."""
    import csv
    import sys

    import pyarrow as pa
    import pyarrow.compute as pc

    from tasks.tag_counts import pick_tags

    listed = pa.concat_tables([pick_tags(survey.tags, order, limit, like) for order in _LISTS])
    rows = survey.tags.filter(pc.is_in(survey.tags["tag"], value_set=listed["tag"].combine_chunks()))
    writer = csv.DictWriter(sys.stdout, rows.column_names, lineterminator="\n")
    writer.writeheader()
    for row in rows.to_pylist():
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})


def report(survey: TagSurvey, limit: int, like: str, reason: str) -> None:
    """The survey for people: what fell why, and the three lists."""
    from tasks.tag_counts import pick_tags

    out = f"dropped for {reason}" if reason else "dropped"
    typer.secho(f"{survey.taken} posts are taken, {survey.dropped} {out}.", bold=True)
    if survey.unusable:
        typer.echo(
            f"{survey.unusable} more could not be judged: no file, no metadata, or a broken row "
            "(--without-files counts those whose file alone is missing)."
        )
    first, count = survey.strangers
    if count:
        typer.echo(f"{count} of the ids that the recipe asks for are not in the source: {', '.join(first)}"[:400])
    if survey.absent_tags:
        typer.echo(f"No post has these tags of the recipe: {', '.join(map(repr, survey.absent_tags))}"[:400])
    for sentence in survey.vintage:
        typer.echo(sentence)
    if survey.reasons:
        rows = [[row["count"], _name_reason(row), row["parameter"]] for row in survey.reasons]
        print_table("Dropped", ["posts", "reason", "setting"], rows, right=("posts",))
    shown = {order: pick_tags(survey.tags, order, limit, like) for order in _LISTS}
    if not any(len(table) for table in shown.values()) and survey.taken + survey.dropped:
        typer.echo(f"No tag is like {like}." if like else "None of these posts has a tag.")
    columns = ["tag", "taken", "dropped", "% of taken", "% of dropped", "lift"]
    for order, title in _LISTS.items():
        if len(shown[order]):
            print_table(title, columns, list_rows(shown[order]), right=tuple(columns[1:]))


def _name_reason(row: dict[str, Any]) -> str:
    return row["reason"] if row["rating"] is None else f"{row['reason']} {row['rating']}"


def list_rows(table: pa.Table) -> list[list[Any]]:
    """Cells of TAG_COUNTS rows."""
    return [
        [
            *(row[name] for name in ("tag", "taken", "dropped")),
            *(f"{100 * row[name]:.2f}" for name in ("taken_share", "dropped_share")),
            None if row["lift"] is None else f"{row['lift']:.2f}",
        ]
        for row in table.to_pylist()
    ]
