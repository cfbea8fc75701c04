"""`kaobako serve`: a Prefect server, its UI, and all deployments, for a five-minute trial."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import SetOption, StoreOption
from flows.server import create_gpu_limit, server_for


def serve(
    store: StoreOption,
    recipe: Annotated[Path | None, typer.Option(help="Recipe that fills the form; the defaults when left out.")] = None,
    settings: SetOption = [],  # noqa: B006 - typer reads it, nobody changes it
    port: Annotated[int, typer.Option(help="Port of the Prefect UI on 127.0.0.1.")] = 4200,
) -> None:
    """Start a Prefect server (unless PREFECT_API_URL names one) and serve curate, train and sample.

    Open the address that is printed, choose a deployment, press Run. Ctrl-C ends everything.
    """
    lost = threading.Event()
    server = server_for(store, port=port, advice="Start kaobako serve again.", lost=lost)
    from prefect.settings import get_current_settings

    from flows.deployments import close_lost_runs, serve_all
    from flows.recipe import apply_overrides, load_recipe, make_recipe

    loaded = load_recipe(recipe, settings) if recipe else make_recipe(apply_overrides({}, settings), "of the defaults")
    with server as address:
        if address:
            for name in close_lost_runs():
                typer.echo(f"Crashed when kaobako serve last ended: {name}")
        else:
            create_gpu_limit()  # on the user's own server
        page = f"{address}/v2/deployments" if address else f"{get_current_settings().ui_url}/deployments"
        serve_all(store, loaded, ready=lambda: typer.echo(f"Prefect UI: {page}"), lost=lost)
