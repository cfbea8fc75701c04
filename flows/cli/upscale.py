"""`kaobako upscale`: the enlarging networks alone, on any folder of pictures or on one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, print_json, progress_bars
from models.upscale.noise import Noise

if TYPE_CHECKING:
    from models.upscale.engine import Upscaler
    from models.upscale.plan import Target
    from tasks.upscale_folder import Progress, Summary
    from tasks.upscale_picture import Format, Order

_NAMED = 20  # pictures that are listed on the terminal, of each kind
_FORMATS: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}


class FitChoice(StrEnum):
    """What --size means."""

    KEEP = "keep"
    CROP = "crop"
    LETTERBOX = "letterbox"


class FormatChoice(StrEnum):
    """What is written."""

    PNG = "png"
    JPEG = "jpeg"


class BackendChoice(StrEnum):
    """What computes."""

    AUTO = "auto"
    NCNN = "ncnn"
    TORCH = "torch"


def upscale(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="IN", help="Folder of pictures, with those in its folders, or one picture."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="Folder for the results, made where needed; for one picture also a file."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="How often each side is multiplied; 2 when --size is left out.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Instead: the long side in pixels, see --fit.")] = None,
    fit: Annotated[
        FitChoice,
        typer.Option(help="With --size: keep the form; crop a square from the middle; or a square with black bars."),
    ] = FitChoice.KEEP,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="Network; --list-networks shows them. upconv7 when left out.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead: your own ESRGAN network, .pth or .safetensors.")
    ] = None,
    noise: Annotated[
        Noise, typer.Option(help="JPEG noise to remove; auto: by how hard each file was compressed.")
    ] = Noise.AUTO,
    tta: Annotated[
        bool, typer.Option("--tta", help="Mean of eight turned and mirrored passes: 8 times slower.")
    ] = False,
    form: Annotated[FormatChoice | None, typer.Option("--format", help="Of the results; png when left out.")] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG.")] = 95,
    min_native_scale: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Skip what looks enlarged already: its detail fills less than this share of its side."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or another device of torch.")] = "auto",
    backend: Annotated[
        BackendChoice, typer.Option(help="auto: torch on a GPU; without one ncnn, where it is installed.")
    ] = BackendChoice.AUTO,
    workers: Annotated[int, typer.Option(min=0, help="Threads; 0: as many as the machine is good for.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where another run has been.")] = False,
    list_networks: Annotated[
        bool, typer.Option("--list-networks", help="Show all networks and whether their weights are here.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Enlarge all pictures below a folder into another one, without a store or a recipe.

    kaobako upscale pictures larger --scale 2

    kaobako upscale frames uhd --size 3840 --network cunet --noise 1 --format jpeg

    kaobako upscale faces squares --size 512 --fit crop --min-native-scale 0.6

    kaobako upscale sprite.png sprite-4x.png --scale 4 --model mine.safetensors

    Names and folders are kept; transparency is, too, in PNG. With --scale every picture is enlarged; with --size a
    larger one is reduced, and one that has the size stays as it is. Of a TIFF the first page counts.

    It can be stopped at any time: the same command goes on where it was. OUT/upscale.jsonl says what became of each
    picture. One that cannot be read is named at the end and stops nothing; the exit code is then 1.
    """
    if list_networks:
        show_networks(as_json)
        return
    if source is None or out is None:
        raise typer.BadParameter("name the pictures and a place for the results: kaobako upscale IN OUT")
    from tasks.upscale_folder import SUFFIXES, upscale_file, upscale_folder

    target = choose_target(scale, size, fit)
    one = source.is_file()
    form_name = choose_format(form, out if one else None)
    order = make_order(target, network, model, noise.value, tta, form_name, quality, min_native_scale)
    enlarger = make_enlarger(network, model, order, tta, device, backend.value, workers)
    if one:
        file = out if out.suffix.lower() in _FORMATS and not out.is_dir() else out / (source.stem + SUFFIXES[form_name])
        summary = upscale_file(source, file, enlarger, order, overwrite)
    else:
        with show_progress() as progress:
            summary = upscale_folder(source, out, enlarger, order, overwrite, progress)
    report(summary, as_json)
    if summary.failed:
        raise typer.Exit(1)


def choose_target(scale: float | None, size: int | None, fit: FitChoice) -> Target:
    """The size that is asked for; raises BadParameter where that makes no sense."""
    from models.upscale.plan import Target

    if scale is not None and size is not None:
        raise typer.BadParameter("--scale and --size exclude each other: leave one out", param_hint="--size")
    if size is None and fit is not FitChoice.KEEP:
        raise typer.BadParameter("--fit says what --size means: add --size PIXELS", param_hint="--fit")
    try:
        if size is not None:
            return Target(size=size, fit=fit.value)
        return Target(scale=2.0 if scale is None else scale)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--scale" if size is None else "--size") from error


def choose_format(form: FormatChoice | None, file: Path | None) -> Format:
    """The format of the results: that of the file, where one is named, and else as asked for."""
    named = _FORMATS.get(file.suffix.lower()) if file is not None else None
    asked: Format | None = None if form is None else ("jpeg" if form is FormatChoice.JPEG else "png")
    if named is not None and asked is not None and named != asked:
        raise typer.BadParameter(f"{file} is no name for a {asked} file", param_hint="--format")
    return named or asked or "png"


def make_order(
    target: Target,
    network: str | None,
    model: Path | None,
    noise: str,
    tta: bool,
    form: Format,
    quality: int,
    min_native_scale: float | None,
) -> Order:
    """What is wanted of every picture; raises BadParameter for a network or a noise level that does not exist."""
    from models.upscale.catalogue import DEFAULT_NETWORK, get_network
    from tasks.upscale_picture import AUTO, Order

    levels: tuple[str, ...] = ("none",)
    if model is not None:
        if network is not None:
            raise typer.BadParameter("--network and --model exclude each other: leave one out", param_hint="--model")
        if not model.is_file():
            raise typer.BadParameter(f"{model} is no file", param_hint="--model")
        name = model.name
    else:
        try:
            info = get_network(network or DEFAULT_NETWORK)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--network") from error
        name, levels = info.name, info.noise_levels
    if (noise != AUTO and noise not in levels) or (noise == AUTO and "none" not in levels):
        choices = ", ".join((*((AUTO,) if "none" in levels else ()), *levels))
        raise typer.BadParameter(f"{name} has no noise level {noise}: choose one of {choices}", param_hint="--noise")
    return Order(target, name, noise, levels, tta, form, quality, min_native_scale)


def make_enlarger(
    network: str | None, model: Path | None, order: Order, tta: bool, device: str, backend: str, workers: int
) -> Upscaler:
    """The engine, once all weights that may be needed are here; raises WeightError naming those that are not.

    Raises BadParameter for a device that is not there, a file that holds no network, and what does not go together.
    """
    from models.upscale.catalogue import DEFAULT_NETWORK, weight_names
    from models.upscale.engine import Upscaler, UpscaleSettings
    from models.weights import MissingWeightError, weight_status

    if model is None:
        names = sorted({name for level in order.used_levels() for name in weight_names(order.network, level)})
        if absent := [name for name in names if weight_status(name).state == "missing"]:
            raise MissingWeightError(
                f"{order.network} needs weights that are not on this machine: run: kaobako weights fetch "
                f"{' '.join(absent)}"
            )
    settings = UpscaleSettings(
        network=network or DEFAULT_NETWORK,
        tta=tta,
        backend=backend,  # type: ignore[arg-type]  # a choice of BackendChoice
        device=device,
        workers=workers,
        model_file=model,
    )
    try:
        enlarger = Upscaler(settings)
    except ValueError as error:  # no such device, no network in the file, what does not go together
        raise typer.BadParameter(str(error)) from error
    if enlarger.scale == 1 and order.target.scale not in (None, 1):
        raise typer.BadParameter(f"{order.network} keeps the size: add --scale 1")
    return enlarger


@contextmanager
def show_progress() -> Iterator[Progress]:
    """A bar with what is left, and the pictures per second of the whole run."""
    from rich.progress import TextColumn

    with progress_bars() as bars:
        bars.columns = (*bars.columns, TextColumn("{task.fields[rate]}"))
        bar = bars.add_task("enlarging", total=None, rate="")
        begun = time.monotonic()

        def show(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - begun, 1e-9)
            bars.update(bar, completed=done, total=total, rate=f"{done} of {total}, {rate:.2f} per second")

        yield show


def show_networks(as_json: bool) -> None:
    """The catalogue, and of what there are weights on this machine."""
    from models.upscale.catalogue import NETWORKS
    from models.weights import weight_status

    rows: list[dict[str, Any]] = []
    for info in NETWORKS.values():
        states = {level: {weight_status(name).state for name in names} for level, names in info.weights.items()}
        absent = sorted({level for level, found in states.items() if found != {"ok"}})
        here = "yes" if not absent else "no" if len(absent) == len(states) else f"not for noise {', '.join(absent)}"
        rows.append(
            {
                "name": info.name,
                "scale": info.scale,
                "noise": ", ".join(info.noise_levels),
                "licence": info.licence,
                "here": here,
                "about": info.about,
            }
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:  # no table: names that are to be typed must not be folded
        weights = {"yes": "here", "no": "not here"}.get(row["here"], row["here"])
        typer.secho(row["name"], bold=True)
        typer.echo(f"  {row['about']}")
        typer.echo(f"  x{row['scale']}, noise {row['noise']}, {row['licence']}, weights {weights}")
    typer.echo("Weights that are not here: kaobako weights fetch NAME; kaobako weights list shows their names.")


def report(summary: Summary, as_json: bool) -> None:
    """What was enlarged, and what was not and why."""
    if as_json:
        print_json(
            {
                "out": summary.out.as_posix(),
                "pictures": summary.pictures,
                "done_before": summary.done_before,
                "written": summary.written,
                "unchanged": summary.unchanged,
                "skipped": summary.skipped,
                "failed": summary.failed,
                "seconds": round(summary.seconds, 3),
                "pictures_per_second": round(summary.pictures_per_second, 3),
                "engine": summary.engine,
            }
        )
        return
    rate = f", {summary.pictures_per_second:.2f} per second" if summary.written else ""
    typer.echo(f"{summary.written} of {summary.pictures} pictures written to {summary.out} ({summary.engine}{rate})")
    if summary.unchanged:
        typer.echo(f"{summary.unchanged} of them had the size already")
    if summary.done_before:
        typer.echo(f"{summary.done_before} were finished before")
    name_some(summary.skipped, "skipped")
    name_some(summary.failed, "not enlarged")


def name_some(pictures: dict[str, str], what: str) -> None:
    """Pictures and why, as many as fit a screen."""
    if not pictures:
        return
    for name, why in list(pictures.items())[:_NAMED]:
        typer.echo(f"  {name}: {why}", err=True)
    more = f", of which {_NAMED} are named here; --json names all" if len(pictures) > _NAMED else ""
    typer.echo(f"{len(pictures)} {what}{more}.", err=True)
