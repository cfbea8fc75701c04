"""`kaobako models`: networks from elsewhere, and what becomes of ours elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.model_export import export
from flows.cli.options import JsonOption, StoreOption, phase_bars, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from models.interchange.description import ModelDescription
    from models.training.config import TrainingConfig

_OF_PRESETS = ("mapping_layers", "channel_base")  # settings that presets choose, whatever the default is
_COLOUR = 3  # channels
_OF_FILES = (".pkl", ".pickle", ".pt", ".pth", ".safetensors", ".json")  # what is so called is no run's id

app = typer.Typer(help="Networks from elsewhere, and ours for use elsewhere.", no_args_is_help=True)
app.command("export")(export)


@app.command("import")
def import_file(
    file: Annotated[
        Path,
        typer.Argument(help="A StyleGAN2 .pkl (StyleGAN2-ADA, StyleGAN3) or .pt (rosinality), or what `export` wrote."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    as_json: JsonOption = False,
) -> None:
    """Make a run of a StyleGAN2 file, without running anything in it.

    The run can be sampled from (`kaobako sample RUN`), ranked by (`rank.run`), and trained on from (`kaobako train NAME
    --transfer RUN`).
    """
    from dataclasses import asdict

    from models.interchange.imported_run import import_model

    with progress_bars() as bars:
        run = import_model(file.expanduser(), out.expanduser(), phase_bars(bars))
    origin, config = run.origin, run.config
    if as_json:
        said = {"run": run.folder.as_posix(), "snapshot": run.snapshot.as_posix(), "grid": run.grid.as_posix()}
        print_json({**said, "origin": asdict(origin)})
        return
    networks = ", ".join(f"{name} ({count / 1e6:.2f} M)" for name, count in origin.parameters.items())
    lines = {"kind": origin.kind, "networks": networks, "licence": origin.licence}
    for name, text in {**lines, "run": run.folder, "grid": run.grid}.items():
        typer.echo(f"{name + ':':<10} {text}")
    for note in origin.notes:
        typer.echo(f"{'note:':<10} {note}")
    typer.echo(f"Sample:  kaobako sample {run.folder}")
    typer.echo(f"Go on:   kaobako train NAME --transfer {run.folder} {' '.join(network_options(config))}")


def network_options(config: TrainingConfig) -> list[str]:
    """Options of `kaobako train` for networks of just these sizes: a transfer takes over what fits."""
    algorithm, usual = (settings.model_dump(mode="json") for settings in (config.algorithm, type(config.algorithm)()))
    told = {name: value for name, value in algorithm.items() if value != usual[name] or name in _OF_PRESETS}
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}
    options = ["--preset", "stylegan2-ada", "--resolution", str(config.resolution)]
    options += [f"--set channels={config.channels}"] if config.channels != _COLOUR else []
    return [*options, *(f"--set algorithm.{name}={value}" for name, value in values.items())]


@app.command("show")
def show(
    model: Annotated[
        str, typer.Argument(metavar="FILE|RUN|SNAPSHOT|EXPORT", help="A model file, a run or snapshot, or an export.")
    ],
    store: StoreOption,
    tensors: Annotated[bool, typer.Option("--tensors", help="List all tensors with their shapes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is in a model file, a run or a snapshot. Nothing in a file is run; one that is refused says why.

    Ends with 1 for a file that cannot be imported.
    """
    from datasets.errors import StoreError
    from datasets.store import Store
    from models.interchange.description import describe_model
    from tasks.sample import find_run

    path = Path(model).expanduser()
    if not path.exists() and path.suffix in _OF_FILES:
        raise StoreError(f"there is no file or run {model}")
    found = describe_model(path if path.exists() else find_run(Store(store), model))
    if as_json:
        print_json(found.as_json())
    else:
        _print_model(found, tensors)
    if found.problem is not None:
        raise typer.Exit(1)


def _print_model(found: ModelDescription, tensors: bool) -> None:
    typer.echo(f"{found.path}: {found.kind}, {found.bytes:,} bytes, SHA-256 {found.sha256 or 'not said'}")
    if found.networks:
        rows = [[n.name, n.kind, len(n.tensors), f"{n.values:,}", f"{n.source_length:,}"] for n in found.networks]
        columns = ["network", "class", "tensors", "numbers", "characters of code, not run"]
        print_table("Networks", columns, rows, right=("tensors", "numbers", "characters of code, not run"))
    for title, values in (("Settings", found.settings), ("About", found.about)):
        if values:
            print_table(title, ["name", "value"], [[name, value] for name, value in values.items()])
    if found.asks_for:
        asked = [[name, "yes" if allowed else "NO"] for name, allowed in found.asks_for.items()]
        print_table("Names that its pickle asks for", ["name", "on the list"], asked)
    if tensors:
        listed = [
            [f"{network.name}.{name}", " x ".join(map(str, shape))]
            for network in found.networks
            for name, shape in network.tensors.items()
        ]
        print_table("Tensors", ["tensor", "shape"], listed)
    for note in found.notes:
        typer.echo(f"note: {note}")
    if found.problem is not None:
        typer.secho(f"error: {found.problem}", fg="red", err=True)
