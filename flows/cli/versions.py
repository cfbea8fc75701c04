"""`kaobako versions`: what was published, what differs, and why each item is in or out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, StoreOption, print_json, print_table, progress_bars

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.progress import Progress

    from datasets.store import Store
    from datasets.version import Version

app = typer.Typer(help="Look at published versions.", no_args_is_help=True)

Reference = Annotated[str, typer.Argument(help="NAME, NAME@V, or a version's folder.")]


@app.command("list")
def list_all(
    store: StoreOption,
    name: Annotated[str | None, typer.Argument(help="One dataset; all when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a store."""
    from datasets.store import Store
    from datasets.version import list_versions

    rows = [
        {
            "version": version.reference,
            "published": published_count(version.lineage),
            "parent": version.lineage["parent"],
            "created_at": version.lineage["created_at"],
            "content_digest": version.content_digest,
        }
        for version in list_versions(Store(store), name)
    ]
    if as_json:
        print_json(rows)
        return
    columns = ["version", "published", "parent", "created_at", "digest"]
    shown = [[*(row[c] for c in columns[:-1]), row["content_digest"][:12]] for row in rows]
    print_table(f"Versions in {store}", columns, shown, right=("published",))


def published_count(lineage: dict[str, Any]) -> int:
    """Samples of a version, by the accounts of its last stage."""
    return int(list(lineage["counts"].values())[-1]["kept"]) if lineage["counts"] else 0


@app.command("show")
def show(reference: Reference, store: StoreOption, as_json: JsonOption = False) -> None:
    """Show a version: its accounts, its lineage, and where its card is."""
    from datasets.store import Store
    from datasets.version import read_version

    version = read_version(Store(store), reference)
    if as_json:
        print_json({**version.lineage, "folder": version.folder.as_posix()})
        return
    rows = []
    for stage, row in version.lineage["counts"].items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in row["dropped"].items())
        rows.append([stage, row["inputs"], row["in"], row["kept"], sum(row["dropped"].values()), reasons])
    columns = ["stage", "inputs", "in", "kept", "dropped", "reasons"]
    print_table(version.reference, columns, rows, right=("inputs", "in", "kept", "dropped"))
    for key in ("content_digest", "parent", "created_at", "source_digest", "git_commit"):
        typer.echo(f"{key + ':':<16}{version.lineage[key]}")
    for name, digest in sorted(version.lineage["weights"].items()):
        typer.echo(f"{'weights:':<16}{name} {digest[:16]}…")
    for note in version.lineage["notes"]:
        typer.echo(f"{'note:':<16}{note}")
    typer.echo(f"{'card:':<16}{version.folder / 'README.md'}")


@app.command("verify")
def verify(
    store: StoreOption,
    reference: Annotated[str | None, typer.Argument(help="NAME, NAME@V, or a folder; all when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check versions to the last byte: digests, accounts, every blob. Ends with 1 when something is wrong."""
    from datasets.store import Store
    from datasets.version import list_versions, read_version

    versions = [read_version(Store(store), reference)] if reference else list_versions(Store(store))
    found: dict[str, list[str]] = {}
    with progress_bars() as progress:
        for version in versions:
            found[version.reference] = _verify_one(version, progress)
    if as_json:
        rows = [{"version": name, "sound": not problems, "problems": problems} for name, problems in found.items()]
        print_json(rows[0] if reference else rows)
    else:
        for name, problems in found.items():
            for problem in problems:
                typer.secho(problem, fg="red")
            typer.echo(f"{name} is {'sound' if not problems else f'damaged: {len(problems)} problems'}.")
    if any(found.values()):
        raise typer.Exit(1)


def _verify_one(version: Version, progress: Progress) -> list[str]:
    from datasets.version import store_of, verify_version

    bar = progress.add_task(version.reference, total=None)
    store = store_of(version.folder)
    return verify_version(store, version, lambda done, total: progress.update(bar, completed=done, total=total))


@app.command("diff")
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="NAME, NAME@V, or a version's folder.")],
    store: StoreOption,
    second: Annotated[
        str | None,
        typer.Argument(metavar="[B]", help="The later version; left out: what A changed against its parent."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write every row to a .parquet or .csv file.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Examples shown of each change and cause.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """What differs between two versions, item by item, and why."""
    from datasets.diff import diff_versions, summarise_diff
    from datasets.diff.table import write_diff
    from datasets.store import Store

    before, after = pick_versions(Store(store), first, second)
    table = diff_versions(before, after)
    if out is not None:
        write_diff(out, table)
    summary = summarise_diff(table).to_pylist()
    if as_json:
        pair = {"before": before.reference, "after": after.reference, "changed": len(table)}
        print_json({**pair, "summary": summary, "rows": table.to_pylist()})
        return
    title = f"{before.reference} -> {after.reference}"
    if not len(table):
        typer.echo(f"{title}: nothing differs.")
        return
    rows = [[row["count"], row["change"], row["cause"], row["parameter"]] for row in summary]
    print_table(title, ["items", "change", "cause", "parameter"], rows, right=("items",))
    for line in list_examples(table, limit):
        typer.echo(line)
    unknown = sum(row["count"] for row in summary if row["cause"] == "unknown")
    if unknown:
        typer.secho(f"{unknown} items changed and the two versions do not say why.", fg="red", bold=True)
    if out is not None:
        typer.echo(f"{len(table)} rows are in {out}.")


def pick_versions(store: Store, first: str, second: str | None) -> tuple[Version, Version]:
    """The versions to compare; without a second one the first is compared with its parent. Raises StoreError."""
    from datasets.errors import StoreError
    from datasets.version import read_version, store_of

    one = read_version(store, first)
    if second is not None:
        return one, read_version(store, second)
    if one.lineage["parent"] is None:
        raise StoreError(f"{one.reference} is the first of its dataset: name the version to compare it with")
    return read_version(store_of(one.folder), one.lineage["parent"]), one


def list_examples(table: pa.Table, limit: int) -> list[str]:
    """Lines for people: of each change, cause and parameter the first `limit` items, a sentence each."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from datasets.diff import explain_change

    if not limit or not len(table):
        return []
    columns = [pc.fill_null(table[name], "").combine_chunks() for name in ("change", "cause", "parameter")]
    groups = pc.binary_join_element_wise(*columns, "\n").dictionary_encode()
    members = groups.indices.to_numpy()
    lines = []
    for number in range(len(groups.dictionary)):
        places = np.flatnonzero(members == number)
        rows = table.take(pa.array(places[:limit])).to_pylist()  # the others stay in the table: a diff may be huge
        parameter = rows[0]["parameter"]
        lines.append(f"{rows[0]['change']}, {rows[0]['cause']}{f' ({parameter})' if parameter else ''}:")
        lines += [f"  {explain_change(row)}" for row in rows]
        if len(places) > limit:
            lines.append(f"  and {len(places) - limit} more")
    return lines


@app.command("why")
def why(
    item: Annotated[str, typer.Argument(help="A post_id, or a crop_id such as 1234#0 or 1234#0+mirror.")],
    store: StoreOption,
    dataset: Annotated[str | None, typer.Option("--dataset", help="One dataset or version; all when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Why an item is in or out, in every version that it was considered for, and since when."""
    from datasets.store import Store
    from datasets.trace import suggest_items, trace_decisions, trace_item

    place = Store(store)
    traces = trace_item(place, item, dataset)
    decisions = trace_decisions(place, traces)
    if as_json:
        said = [
            {**trace, "decisions": [d for d in decisions if d["pixel_digest"] == trace["pixel_digest"]]}
            for trace in traces
        ]
        print_json(said)
        return
    if not traces:
        alike = suggest_items(place, item, dataset)
        hint = f"Near it: {', '.join(alike)}" if alike else "Look for ids with `kaobako versions show`"
        typer.echo(f"No version in {store} has ever considered {item!r}. {hint}.")
        raise typer.Exit(1)
    for trace in traces:
        typer.secho(f"{trace['version']}  {trace['item_id']}: {trace['verdict']}", bold=True)
        if trace["change"]:
            typer.echo(f"  changed here: {trace['change']}")
        for step in trace["stages"]:
            typer.echo(f"  {step['stage']:<10} {step['verdict']:<8} {step['why']}")
    for row in decisions:
        note = f": {row['note']}" if row["note"] else ""
        where = f" of {row['crop_id']}" if row["crop_id"] else ""
        typer.echo(f"decision{where}: {row['decision']} by {row['who']}, {row['decided_at']:%Y-%m-%d %H:%M}{note}")
