"""Options that several commands share, and how they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.environment import default_store

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

StoreOption = Annotated[
    Path,
    typer.Option(
        "--store",
        help="Folder of the store.",
        envvar="KAOBAKO_STORE",
        default_factory=default_store,
        parser=lambda text: Path(text).expanduser(),
        metavar="FOLDER",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as crop.min_size=96. Repeatable."),
]


def print_json(value: Any) -> None:
    """Machine-readable output, on standard output alone."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def progress_bars() -> Progress:
    """Bars on standard error that vanish when done; nothing at all where it is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def phase_bars(bars: Progress) -> Callable[[str, int, int], None]:
    """A bar for each phase that is heard of: call it with what is done, how far it is, and of how many."""
    rows: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in rows:
            rows[what] = bars.add_task(what, total=total)
        bars.update(rows[what], completed=done, total=total)

    return show


def print_table(title: str, columns: list[str], rows: list[list[Any]], right: tuple[str, ...] = ()) -> None:
    """A table for people; the named columns are aligned to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))  # Text: no markup in file names
    Console().print(table)
