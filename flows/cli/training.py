"""`kaobako train` and `kaobako sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import JsonOption, SetOption, StoreOption, print_json
from flows.server import server_for

NoPrefect = Annotated[bool, typer.Option("--no-prefect", help="Run the same functions without Prefect.")]


def train(
    dataset: Annotated[str, typer.Argument(help="Version to train on: NAME or NAME@V.")],
    store: StoreOption,
    recipe: Annotated[Path | None, typer.Option(help="Recipe whose [training] is used.")] = None,
    settings: SetOption = [],  # noqa: B006 - typer reads it, nobody changes it
    run: Annotated[str, typer.Option(help="Id of the run; a new one when left out.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --run from its newest snapshot.")] = False,
    no_prefect: NoPrefect = False,
    as_json: JsonOption = False,
) -> None:
    """Train a GAN on an exact version of a dataset.

    Settings: --set preset=dcgan-demo, --set kimg=20, --set batch=32, --set seed=1, --set mirror=false.
    Ctrl-C ends with a snapshot; --resume --run ID goes on from it.
    """
    server = server_for(store, no_prefect)
    from datasets.store import Store
    from datasets.version import read_version
    from flows.recipe import load_recipe, make_training
    from flows.train import summarise_training
    from flows.train import train as train_flow
    from tasks.train import name_run, train_on_version

    base = load_recipe(recipe).training.model_dump(mode="json") if recipe else {}
    params = make_training(base, settings)
    if no_prefect:
        from flows.observers import TrainingConsole

        place = Store(store)
        version = read_version(place, dataset)
        folder = place.runs / (run or name_run(place, version, params))
        with TrainingConsole() as progress:
            result = train_on_version(place, version, params, folder, progress, resume)
        made = summarise_training(result, version.reference)
    else:
        with server:
            made = train_flow(dataset, params, store, run, resume)
    if as_json:
        print_json(made)
        return
    run_id = Path(made["run"]).name
    typer.echo(f"{'Stopped' if made['stopped'] else 'Trained'} after {made['images']} pictures, {made['seconds']} s")
    typer.echo(f"Run:     {made['run']}")
    typer.echo(f"Grids:   {made['run']}/fakes")
    if made["stopped"]:
        typer.echo(f"Go on:   kaobako train {dataset} --store {store} --run {run_id} --resume")
    typer.echo(f"Sample:  kaobako sample {run_id} --store {store}")


def sample(
    store: StoreOption,
    run: Annotated[
        str, typer.Argument(help="Run id, run folder or snapshot; the newest run when left out.")
    ] = "newest",
    seeds: Annotated[str, typer.Option(help="Numbers and ranges, such as 0-63 or 1,5,9-12.")] = "0-63",
    columns: Annotated[int, typer.Option(min=1, help="Pictures in a row of the grid.")] = 8,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; `samples` in the run when left out.")] = None,
    images: Annotated[bool, typer.Option("--images", help="Also write one PNG per seed.")] = False,
    walk: Annotated[bool, typer.Option("--walk/--no-walk", help="Also write a video of a walk.")] = True,
    no_prefect: NoPrefect = False,
    as_json: JsonOption = False,
) -> None:
    """Sample a trained generator: a grid, a walk through its latent space, single pictures."""
    server = server_for(store, no_prefect)
    from datasets.store import Store
    from flows.sample import sample as sample_flow
    from tasks.sample import SampleParams, find_run, sample_run

    params = SampleParams(seeds=seeds, columns=columns, images=images, walk=walk)
    if no_prefect:
        made = sample_run(find_run(Store(store), run), params, out)
    else:
        with server:
            made = sample_flow(run, params, store, str(out) if out else "")
    if as_json:
        print_json(made)
        return
    for name, path in made.items():
        typer.echo(f"{name + ':':<8} {path}")
