"""`kaobako gc`: what lies in the store and serves nothing any more."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, StoreOption, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from datasets.gc import GarbageReport


def gc(
    store: StoreOption,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it; without this it is only listed.")] = False,
    grace_hours: Annotated[float, typer.Option(min=0, help="Whatever was changed later than that stays.")] = 24.0,
    unused_caches: Annotated[
        bool, typer.Option("--unused-caches", help="Measurements that no version used may go, and their crops.")
    ] = False,
    wait: Annotated[int, typer.Option(min=0, help="Minutes to wait for builds that run.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """List what the store holds for nothing, and delete it when told to.

    Never touched: what any version names, decisions, runs, weights, and files that Kaobako did not make. What goes is
    made anew when it is needed. Ends with 1 when something is damaged or could not be deleted.
    """
    from datasets.gc import collect_garbage
    from datasets.lock import describe_holder
    from datasets.store import Store

    def say_waiting(holder: dict[str, Any]) -> None:
        typer.echo(f"Waiting for {describe_holder(holder)}.", err=True)

    with progress_bars() as bars:
        shown: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in shown:
                shown[what] = bars.add_task(what)
            bars.update(shown[what], completed=done, total=total)

        report = collect_garbage(Store(store), delete, grace_hours, unused_caches, wait * 60.0, say_waiting, show)
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(report, str(store))
    if report.refused or report.failed:
        raise typer.Exit(1)


def _print_report(report: GarbageReport, store: str) -> None:
    """The table, and what else is to be said."""
    rows = [[kind.kind, kind.count, _size(kind.bytes), kind.loss] for kind in report.kinds]
    total = sum(kind.count for kind in report.kinds)
    rows.append(["together", total, _size(sum(kind.bytes for kind in report.kinds)), ""])
    title = f"Deleted from {store}" if report.deleted else f"What may go from {store}"
    print_table(title, ["kind", "count", "size", "what is lost"], rows, right=("count", "size"))
    if young := sum(kind.young for kind in report.kinds):
        typer.echo(f"Younger than {report.grace_hours:g} hours, so left alone: {young} more.")
    for sentence in (*report.refused, *report.failed):
        typer.secho(sentence, fg="red", err=True)
    if report.unknown_count:
        first = ", ".join(report.unknown) + (", …" if report.unknown_count > len(report.unknown) else "")
        typer.echo(f"Not made by Kaobako, left alone: {report.unknown_count} ({first}).")
    if not report.deleted and total:
        typer.echo("Nothing was deleted. The same command with --delete deletes it.")


def _size(count: int) -> str:
    """Bytes for people, in powers of 1024."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
