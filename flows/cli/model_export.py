"""`kaobako models export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import JsonOption, StoreOption, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from tasks.model_export import ExportedModel, ModelFormat


def export(
    store: StoreOption,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, run folder or snapshot.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The new folder.")],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT,...",
            help="safetensors (StyleGAN2 in the published layout), onnx (any generator); both where they apply if "
            "left out.",
            show_default=False,
        ),
    ] = "",
    networks: Annotated[
        str,
        typer.Option("--networks", metavar="NAME,...", help="As safetensors: G_ema, G, D.", show_default="G_ema,D"),
    ] = "",
    licence: Annotated[
        str, typer.Option("--licence", "--license", metavar="SPDX", help="Licence of the weights, such as CC-BY-4.0.")
    ] = "unknown",
    as_json: JsonOption = False,
) -> None:
    """Export a model for use elsewhere, with a card that says what it was made of.

    [bold]safetensors[/bold]: StyleGAN2 with the tensor names of the published PyTorch networks, one file per network.
    [bold]onnx[/bold]: the generator for onnxruntime and others; 16 seeds are compared with torch's pictures, and a
    file that differs is not kept.

        kaobako models export 2026-05-01-faces --out faces-model --licence CC-BY-4.0

        kaobako models export RUN/snapshots/snapshot-000400000.json --out model --format onnx
    """
    from datasets.store import Store
    from tasks.model_export import ModelExport, export_model
    from tasks.sample import find_run

    wish = ModelExport(_read_formats(formats), _read_list(networks), licence)
    source = find_run(Store(store), run)
    with progress_bars() as bars:
        row = bars.add_task("read", total=None)
        made = export_model(source, out, wish, lambda what: bars.update(row, description=what))
    if as_json:
        print_json(_as_json(made, licence))
    else:
        _print(made, licence)


def _read_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_formats(text: str) -> list[ModelFormat]:
    from datasets.errors import StoreError
    from tasks.model_export import ModelFormat

    known = [entry.value for entry in ModelFormat]
    for part in _read_list(text):
        if part not in known:
            raise StoreError(f"--format must be of {', '.join(known)}, got {part!r}")
    return [ModelFormat(part) for part in _read_list(text)]


def _as_json(made: ExportedModel, licence: str) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "folder": made.folder.as_posix(),
        "nimg": made.nimg,
        "licence": licence,
        "onnx": None if made.check is None else asdict(made.check),
        "files": [asdict(file) for file in made.files],
    }


def _print(made: ExportedModel, licence: str) -> None:
    rows = [[file.name, f"{file.size / 1e6:,.1f}", file.content] for file in made.files]
    print_table(f"{made.folder}", ["file", "MB", "what"], rows, ("MB",))
    if made.check is not None:
        typer.echo(
            f"{made.check.runtime} and torch: {made.check.pictures} pictures in -1..1 differ by "
            f"{made.check.largest:.1e} at most."
        )
    if licence == "unknown":
        typer.echo("README.md says that the licence is unknown: --licence CC-BY-4.0 or another, before you publish it.")
