"""`kaobako doctor`."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import typer

from flows.cli.options import JsonOption, StoreOption, print_json
from flows.environment import prepare_prefect

_SIGNS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("BAD", "red")}


def doctor(store: StoreOption, as_json: JsonOption = False) -> None:
    """Say what works on this machine, and how to mend what does not. Ends with 1 when something must be mended."""
    prepare_prefect(store if store.exists() else Path(tempfile.gettempdir()) / "kaobako-doctor")  # it makes no store
    from flows.doctor import examine

    checks = []
    for check in examine(store):
        checks.append(check)
        if as_json:
            continue
        sign, colour = _SIGNS[check.state]
        typer.echo(f"{typer.style(f'{sign:>4}', fg=colour)}  {check.name:<28} {check.finding}")
        if check.mend:
            typer.echo(f"{'':34} → {check.mend}")
    if as_json:
        print_json([asdict(check) for check in checks])
    if any(check.state == "bad" for check in checks):
        raise typer.Exit(1)
