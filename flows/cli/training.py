"""`kaobako train`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, SetOption, StoreOption, print_json, print_table, progress_bars
from flows.errors import say_error

if TYPE_CHECKING:
    from datasets.picture_folder import Report
    from datasets.store import Store
    from tasks.train import TrainingJob, TrainParams

LATEST = "latest"  # what may follow --resume


def train(
    store: StoreOption,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Version to train on: NAME or NAME@V; faces when left out.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Instead: a folder of equal pictures, with those in its folders."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A training that is known to work; --list-presets shows them.")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="The longer side in pixels. Larger pictures are reduced, none is enlarged.")
    ] = None,
    kimg: Annotated[float | None, typer.Option(help="Length, in thousands of real pictures shown.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures per step, over all processes.")] = None,
    gamma: Annotated[
        float | None, typer.Option(help="Weight of R1: more for faces that fall apart, less for faces that look alike.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(metavar="ada|fixed|scheduled|diffaugment|none", help="What the discriminator sees augmented."),
    ] = None,
    transfer: Annotated[
        str | None, typer.Option(metavar="RUN", help="Begin with the weights of another run or snapshot.")
    ] = None,
    metrics_every: Annotated[
        float | None, typer.Option(metavar="KIMG", help="Measure KID and other figures every so often; 0: never.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe whose [training] is used; the one that built the version when left out.")
    ] = None,
    settings: SetOption = [],  # noqa: B006 - typer reads it, nobody changes it
    run: Annotated[str, typer.Option(metavar="ID", help="Id of the run in the store; a new one when left out.")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Instead: the run's folder, anywhere; no store is needed then.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with --run or --out from its newest sound snapshot. `--resume latest` is the same."
        ),
    ] = False,
    allow_other_dataset: Annotated[
        bool, typer.Option("--allow-other-dataset", help="With --resume: go on even if the pictures are others now.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show all settings, the networks' size and the memory needed; no training."),
    ] = False,
    list_presets: Annotated[bool, typer.Option("--list-presets", help="Show all presets.")] = False,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run the same functions without Prefect.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a GAN: on an exact version of a dataset, or on a plain folder of equal pictures.

    kaobako train anime-faces --preset stylegan2-ada --resolution 256

    kaobako train --preset stylegan2-ada --data FOLDER --resolution 64 --kimg 5 --out RUN

    kaobako train --resume latest --out RUN --kimg 50

    kaobako train faces --preset stylegan2-ada --transfer RUN --set freeze_d=4

    kaobako train --data FOLDER --out RUN --set labels=folders --preset stylegan2-ada --dry-run

    torchrun --nproc-per-node 2 --no-python kaobako train --data FOLDER --out RUN --no-prefect

    Everything else is a setting: --set mirror=false, --set micro_batch=8, --set labels=rating, --set seed=1, and any
    setting of the algorithm, such as --set algorithm.path_weight=0. --dry-run lists them all.

    Ctrl-C ends with a snapshot; after a crash or a power cut nothing but the time since the newest one is lost. Where
    --preset is given, what the recipe says about training counts only if --recipe names it.
    """
    if list_presets:
        show_presets(as_json)
        return
    named: dict[str, Any] = {"kimg": kimg, "batch": batch, "resolution": resolution, "r1_gamma": gamma}
    named |= {"preset": preset, "augment": augment, "transfer": transfer, "metrics_kimg": metrics_every}
    asked = {name: value for name, value in named.items() if value is not None}
    dataset = _choose_dataset(dataset, data, resume)
    _check_processes(no_prefect)
    plain = no_prefect or dry_run or (out is not None and not store.is_dir())  # no store is made for Prefect alone
    if not plain:
        from flows.server import server_for

        server = server_for(store, advice="No training was begun: run it again; with --no-prefect it needs no server.")
    from datasets.store import Store
    from flows.recipe import make_training
    from tasks.train import plan_training

    place = Store(store)
    own = resume or data is not None or preset is not None
    params = make_training({**_training_of(place, dataset, recipe, own), **asked}, settings)
    job = plan_training(
        place, dataset, params, run, resume, data=data, out=out, allow_other_dataset=allow_other_dataset
    )
    if resume and preset is not None:
        params.check_preset(job.config)
    if dry_run:
        show_plan(job, as_json)
        return
    if plain:
        made = _train_here(job)
    else:
        with server:
            made = _train_in_prefect(job, params, store, data, out)
    if _speaks():
        _say_result(made, store, as_json)


def _choose_dataset(dataset: str, data: Path | None, resume: bool) -> str:
    """The version that is meant; "" where a folder is, or what a resumed run was trained on."""
    if resume and dataset == LATEST:
        return ""
    if data is not None and dataset:
        raise typer.BadParameter(f"train on one of them: the version {dataset}, or the folder {data}")
    return dataset or ("" if resume or data is not None else "faces")


def _check_processes(no_prefect: bool) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not no_prefect:
        raise typer.BadParameter("several processes train without Prefect: add --no-prefect")


def _speaks() -> bool:
    """Whether this process is the one that people hear: the first of those that torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


def _training_of(store: Store, dataset: str, recipe: Path | None, own: bool) -> dict[str, Any]:
    """What a recipe says about training: the given one, else the one that built the version; none where `own`."""
    from datasets.version import read_version
    from flows.recipe import load_recipe
    from tasks.train_params import read_algorithm

    training: dict[str, Any] = {}
    if recipe is not None:
        training = load_recipe(recipe).training.model_dump(mode="json", exclude_unset=True)
    elif not own:
        training = dict(read_version(store, dataset).lineage.get("training", {}))
    if "algorithm" in training:
        training["algorithm"] = read_algorithm(training["algorithm"])  # so that --set algorithm.x=… finds a table
    return training


def _train_here(job: TrainingJob) -> dict[str, Any]:
    """Train in this process; with others of it, if torchrun started some."""
    from flows.observers import TrainingConsole
    from flows.train import summarise_training
    from tasks.train import open_training, run_training

    if not _speaks():
        logging.disable(logging.WARNING)  # the first process says the same
        return summarise_training(run_training(open_training(job)), job.reference)
    _say_left_out(job)
    with _checking() as report:
        opened = open_training(job, report)
    with TrainingConsole() as progress:
        return summarise_training(run_training(opened, progress), job.reference)


def _train_in_prefect(
    job: TrainingJob, params: TrainParams, store: Path, data: Path | None, out: Path | None
) -> dict[str, Any]:
    from httpx import TransportError

    from flows.train import keep_ending
    from flows.train import train as train_flow

    with keep_ending() as ending:
        try:
            made: dict[str, Any] = train_flow(
                dataset="" if job.from_folder else job.reference,
                params=params,
                store=store,
                run="" if out else job.folder.name,
                resume=job.resume,
                data="" if data is None else str(data.expanduser().resolve()),
                out="" if out is None else str(job.folder.resolve()),
                allow_other_dataset=job.allow_other_dataset,
            )
        except TransportError as error:  # the server went away, and its page does not show the end
            if ending.error is not None:
                raise ending.error from None
            if ending.made is None:
                raise
            typer.secho(say_error(error), fg="yellow", err=True)
            return ending.made
    return made


@contextmanager
def _checking() -> Iterator[Report]:
    """A bar for the reading of a folder, on a terminal."""
    with progress_bars() as bars:
        task = bars.add_task("looking at the pictures", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _say_left_out(job: TrainingJob) -> None:
    for line in job.data.left_out:
        typer.secho(f"left out: {line}", err=True)


def _say_result(made: dict[str, Any], store: Path, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    run = Path(made["run"])
    inside = run.parent == store / "runs"
    go_on = f"--run {run.name} --store {store}" if inside else f"--out {run}"
    typer.echo(f"{'Stopped' if made['stopped'] else 'Trained'} after {made['images']} pictures, {made['seconds']} s")
    typer.echo(f"Run:     {run}")
    typer.echo(f"Grids:   {run}/fakes")
    if made["stopped"]:
        typer.echo(f"Go on:   kaobako train --resume latest {go_on}")
    typer.echo("Sample:  kaobako sample " + (f"{run.name} --store {store}" if inside else str(run)))


def show_presets(as_json: bool) -> None:
    """All presets, in the table's order."""
    from models.training.presets import PRESETS, resolve_preset

    rows = []
    for name, preset in PRESETS.items():
        config = resolve_preset(name)
        size = f"{config.width}x{config.height}"
        rows.append({"preset": name, "size": size, "batch": config.batch, "kimg": config.kimg, "about": preset.about})
    if as_json:
        print_json(rows)
        return
    columns = ["preset", "size", "batch", "kimg", "about"]
    print_table("Presets", columns, [[_plain(row[name]) for name in columns] for row in rows], ("batch", "kimg"))


def show_plan(job: TrainingJob, as_json: bool) -> None:
    """What a training would do: its data, its settings, its networks' size, the memory that it needs."""
    from models.training.memory import describe_config

    summary = describe_config(job.config)
    config = job.config.model_dump(mode="json")
    dataset = {"dataset": job.reference, "pictures": job.data.count, "run": job.folder.as_posix()}
    labels = [] if job.labels is None else list(job.labels.names)
    if as_json:
        sizes = {
            name: getattr(summary, name) for name in ("generator_parameters", "discriminator_parameters", "peak_gb")
        }
        print_json({**dataset, "label_names": labels, "config": config, **sizes})
        return
    for name, value in dataset.items():
        typer.echo(f"{name:<20} {value}")
    if labels:
        typer.echo(f"{'labels':<20} {', '.join(labels)}")
    typer.echo()
    algorithm = {f"algorithm.{name}": value for name, value in config.pop("algorithm").items()}
    for name, value in {**config, **algorithm}.items():
        typer.echo(f"{name:<28} {_plain(value)}")
    typer.echo()
    for line in summary.lines():
        typer.echo(line)


def _plain(value: Any) -> Any:
    """A setting as people write it."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else value
