"""`kaobako versions`: what was published, and why each item is in or out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli.options import JsonOption, StoreOption, print_json, print_table, progress_bars

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
def verify(reference: Reference, store: StoreOption, as_json: JsonOption = False) -> None:
    """Check a version to the last byte: digests, accounts, every blob. Ends with 1 when something is wrong."""
    from datasets.store import Store
    from datasets.version import read_version, store_of, verify_version

    version = read_version(Store(store), reference)
    with progress_bars() as progress:
        bar = progress.add_task("blobs", total=None)
        problems = verify_version(
            store_of(version.folder),
            version,
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        print_json({"version": version.reference, "sound": not problems, "problems": problems})
    else:
        for problem in problems:
            typer.secho(problem, fg="red")
        typer.echo(f"{version.reference} is {'sound' if not problems else f'damaged: {len(problems)} problems'}.")
    if problems:
        raise typer.Exit(1)


@app.command("why")
def why(
    item: Annotated[str, typer.Argument(help="A post_id, or a crop_id such as 1234#0.")],
    store: StoreOption,
    dataset: Annotated[str | None, typer.Option("--dataset", help="One dataset or version; all when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Why an item is in or out, in every version that it was considered for."""
    from datasets.store import Store
    from datasets.trace import trace_item

    traces = trace_item(Store(store), item, dataset)
    if as_json:
        print_json(traces)
        return
    if not traces:
        typer.echo(f"No version in {store} has ever considered {item!r}. Look for ids with `kaobako versions show`.")
        raise typer.Exit(1)
    for trace in traces:
        typer.secho(f"{trace['version']}  {trace['item_id']}: {trace['verdict']}", bold=True)
        for step in trace["stages"]:
            typer.echo(f"  {step['stage']:<10} {step['verdict']:<8} {step['why']}")
