"""`kaobako train` and `kaobako sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, SetOption, StoreOption, print_json
from flows.server import server_for

if TYPE_CHECKING:
    from datasets.store import Store

NoPrefect = Annotated[bool, typer.Option("--no-prefect", help="Run the same functions without Prefect.")]


def train(
    store: StoreOption,
    dataset: Annotated[str, typer.Argument(help="Version to train on: NAME or NAME@V.")] = "faces",
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe whose [training] is used; the one that built the version when left out.")
    ] = None,
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
    from flows.recipe import make_training
    from flows.train import summarise_training
    from flows.train import train as train_flow
    from tasks.train import plan_training, run_training

    place = Store(store)
    params = make_training({} if resume else _training_of(place, dataset, recipe), settings)
    job = plan_training(place, dataset, params, run, resume)
    if no_prefect:
        from flows.observers import TrainingConsole

        with TrainingConsole() as progress:
            made = summarise_training(run_training(place, job, progress), job.version.reference)
    else:
        with server:
            made = train_flow(job.version.reference, params, store, job.folder.name, resume)
    if as_json:
        print_json(made)
        return
    run_id = Path(made["run"]).name
    typer.echo(f"{'Stopped' if made['stopped'] else 'Trained'} after {made['images']} pictures, {made['seconds']} s")
    typer.echo(f"Run:     {made['run']}")
    typer.echo(f"Grids:   {made['run']}/fakes")
    if made["stopped"]:
        typer.echo(f"Go on:   kaobako train --resume --run {run_id} --store {store}")
    typer.echo(f"Sample:  kaobako sample {run_id} --store {store}")


def _training_of(store: Store, dataset: str, recipe: Path | None) -> dict[str, Any]:
    """What the recipe says about training: the given one, else the one that built the version."""
    from datasets.version import read_version
    from flows.recipe import load_recipe

    if recipe is not None:
        return load_recipe(recipe).training.model_dump(mode="json")
    training: dict[str, Any] = read_version(store, dataset).lineage.get("training", {})
    return training


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
