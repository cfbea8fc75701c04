"""Sample: pictures, a grid, figures and a walk from a trained generator."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path

from pydantic import Field

from datasets.errors import StoreError
from datasets.store import Store
from models.device import best_device
from models.gan.latents import parse_seeds
from models.sampling.figures import mixing_figure, parse_layers, psi_sweep
from models.sampling.generator import LoadedGenerator, load_generator
from models.sampling.images import Progress, sample_grid, sample_images
from models.sampling.settings import Ground, Noise, SamplingError, SamplingSettings, WalkPath, parse_label, parse_psis
from models.sampling.walk import film_walk, plan_walk
from models.training.run import RunFolder
from tasks.stage import StageParams
from tasks.train_data import DATA_FILE

NEWEST = "newest"
SWEEP_ROWS = 8  # seeds of the psi sweep: as many as are seen at a glance
FILM_CELL = 256  # pixels of a cell in a film of several; one alone is shown as large as it is made, up to FILM_SIDE
FILM_SIDE = 1024
NAMES_SHOWN = 10  # classes in a message

SampleProgress = Callable[[str, int, int], None]
"""Hears what is being made ("grid", ...), how many of its pictures are done, and of how many."""


class SampleParams(StageParams):
    """Which seeds, and what to make of them."""

    seeds: str = Field("0-63", description="Seeds: numbers and ranges, such as 0-63 or 1,5,9-12")
    grid: bool = Field(True, description="Write one picture of all seeds")
    columns: int = Field(8, ge=1, le=64, description="Pictures in a row of the grid")
    cell: int = Field(128, ge=0, le=2048, description="Longer side of a picture in grid and figures; 0: as it is made")
    images: bool = Field(False, description="Also write one PNG per seed")
    trunc: float | None = Field(
        None, description="Truncation psi: 1 as trained, 0 the mean picture; none: 0.7 for StyleGAN2, 1 for others"
    )
    trunc_layers: int | None = Field(None, ge=1, description="Truncate only this many of the first layers; none: all")
    noise: Noise = Field(Noise.CONST, description="Noise maps of StyleGAN2: the stored ones, none, or by seed")
    classes: str = Field(
        "", description="Class of a conditional network, its name or number; several with commas where they go together"
    )
    label: str = Field("", description="Label of a conditional network as its values, such as 0.2,0,1; empty: none")
    psi_sweep: bool = Field(
        False, description=f"Also write a figure of truncation: the first {SWEEP_ROWS} seeds at each of psis"
    )
    psis: str = Field("-1,-0.5,0,0.5,1", description="Columns of the psi sweep")
    mix: str = Field("", description="Also write a style-mixing figure: seeds of rows:columns, such as 0-3:10-15")
    mix_layers: str = Field("coarse", description="Layers taken from the columns: coarse, middle, fine, or 2-5")
    walk: bool = Field(True, description="Also write a video that walks through the latent space")
    walk_path: WalkPath = Field(
        WalkPath.AUTO, description="slerp: from seed to seed; random: a smooth random loop; auto: random for StyleGAN2"
    )
    walk_seconds: float = Field(8.0, gt=0, le=600, description="Length of the walk, in seconds")
    walk_keys: int = Field(4, ge=2, le=1000, description="Key pictures per round, or as much change as so many")
    walk_cells: int = Field(
        0, ge=0, le=64, description="Walks side by side, as far as seeds go; 0: 9 up to 128 pixels, 4 up to 256, else 1"
    )
    walk_even: bool = Field(False, description="Walk so that the picture changes as much in every second")
    fps: int = Field(30, ge=1, le=120, description="Frames per second of the walk")
    ground: Ground = Field(Ground.CHECKER, description="Under transparent pictures in grid, figures and walk")
    ema: bool = Field(True, description="Use the averaged weights")


def find_run(store: Store, run: str) -> Path:
    """A run by its id in the store, or a run's folder or snapshot; or `newest`. Raises StoreError."""
    if run and (store.runs / run).is_dir():
        return store.runs / run
    if run and Path(run).expanduser().exists():
        return Path(run).expanduser()
    runs = [path for path in store.runs.iterdir() if (path / "config.json").exists()] if store.runs.is_dir() else []
    if run in ("", NEWEST) and runs:
        return max(runs, key=lambda path: ((path / "config.json").stat().st_mtime, path.name))
    known = ", ".join(sorted(path.name for path in runs)) or "none"
    raise StoreError(f"no run {run!r} in {store.root} (runs there: {known}). Train one with `kaobako train NAME`.")


@dataclass(frozen=True)
class SampleJob:
    """What is asked for, read and checked against the network before anything is made."""

    generator: LoadedGenerator
    settings: SamplingSettings
    params: SampleParams
    seeds: Sequence[int]
    psis: Sequence[float]  # empty: no sweep
    mix: tuple[Sequence[int], Sequence[int], range] | None  # rows, columns, layers
    folder: Path


def plan_sampling(source: Path, params: SampleParams, out: Path | None = None) -> SampleJob:
    """Load the generator of a run or snapshot and check all of `params`. Raises StoreError or SamplingError."""
    seeds = _read_seeds(params.seeds)
    mix = _read_mix(params.mix) if params.mix else None
    if not (params.grid or params.images or params.psi_sweep or params.mix or params.walk):
        raise StoreError("nothing to make: ask for a grid, images, a psi sweep, mixing or a walk")
    generator = load_generator(source, params.ema, best_device())
    run = find_home(source)
    label = _read_label(generator, params, run)
    settings = SamplingSettings(params.trunc, params.trunc_layers, label, params.noise)
    generator.check(settings)
    psis: Sequence[float] = ()
    if params.psi_sweep:
        generator.styles("the psi sweep (--psi-sweep)")
        psis = parse_psis(params.psis)
    mixing = None
    if mix is not None:
        generator.styles("style mixing (--mix)")
        mixing = (*mix, parse_layers(params.mix_layers, generator.layer_sizes))
    return SampleJob(generator, settings, params, seeds, psis, mixing, out or run / "samples")


def sample_run(
    source: Path, params: SampleParams, out: Path | None = None, progress: SampleProgress | None = None
) -> dict[str, str]:
    """Write what `params` ask for of a run or snapshot; returns the paths by name, pictures first, the walk last."""
    job = plan_sampling(source, params, out)
    g, settings, folder, cell, ground = job.generator, job.settings, job.folder, params.cell or None, params.ground

    def tell(what: str) -> Progress:
        return lambda done, total: None if progress is None else progress(what, done, total)

    made: dict[str, str] = {}
    if params.grid:
        grid = sample_grid(g, job.seeds, params.columns, folder / "grid.png", cell, settings, ground, tell("grid"))
        made["grid"] = grid.as_posix()
    if params.images:
        sample_images(g, job.seeds, folder / "images", settings, tell("images"))
        made["images"] = (folder / "images").as_posix()
    if job.psis:
        rows, path = job.seeds[:SWEEP_ROWS], folder / "psi-sweep.png"
        psi_sweep(g, rows, job.psis, path, cell, settings, ground, tell("psi sweep"))
        made["psi-sweep"] = path.as_posix()
    if job.mix is not None:
        path = folder / "mixing.png"
        mixing_figure(g, *job.mix, path, cell, settings, ground, tell("mixing"))
        made["mixing"] = path.as_posix()
    if params.walk:
        made["walk"] = _film(job, tell("walk")).as_posix()
    return made


def find_home(source: Path) -> Path:
    """The run's folder of a snapshot; the snapshot's own folder if it lies in no run."""
    if source.is_dir():
        return source
    run = source.absolute().parent.parent
    return run if RunFolder(run).exists() else source.parent


def _film(job: SampleJob, progress: Progress) -> Path:
    params, generator = job.params, job.generator
    longer = max(generator.height, generator.width)
    cells = params.walk_cells or (9 if longer <= 128 else 4 if longer <= 256 else 1)
    walk = plan_walk(generator, job.seeds, params.walk_path, params.walk_keys, cells)
    return film_walk(
        generator,
        walk,
        job.folder / "walk.mp4",
        columns=ceil(sqrt(len(walk.paths))),
        seconds=params.walk_seconds,
        fps=params.fps,
        cell=FILM_CELL if len(walk.paths) > 1 else min(max(longer, FILM_CELL), FILM_SIDE),
        even=params.walk_even,
        settings=job.settings,
        ground=params.ground,
        progress=progress,
    )


def _read_seeds(text: str) -> list[int]:
    try:
        return parse_seeds(text)
    except ValueError as error:
        raise StoreError(str(error)) from error


def _read_mix(text: str) -> tuple[list[int], list[int]]:
    rows, colon, columns = text.partition(":")
    if not colon:
        raise StoreError(f"cannot read mix {text!r}: write the seeds of rows and of columns, such as 0-3:10-15")
    return _read_seeds(rows), _read_seeds(columns)


def _read_label(generator: LoadedGenerator, params: SampleParams, run: Path) -> tuple[float, ...] | None:
    if params.label and params.classes:
        raise SamplingError("give a class or a label, not both")
    if params.label:
        return parse_label(params.label)
    names = read_class_names(run) if generator.config.labels else []
    if params.classes:
        return generator.class_label(*find_classes(params.classes, names))
    if names:
        raise SamplingError(f"this network is conditional: give --class, {_list_names(names)}")
    return None


def read_class_names(run: Path) -> list[str]:
    """What the values of a label are called, as the run's folder says; empty where it says nothing."""
    try:
        said = json.loads((run / DATA_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read the names of the classes in {run / DATA_FILE}: {error}") from error
    return list((said.get("labels") or {}).get("names", []))


def find_classes(text: str, names: Sequence[str]) -> list[int]:
    """The numbers of classes given by name or number, with commas between several. A name goes before a number."""
    if text in names:
        return [names.index(text)]
    parts = [part.strip() for part in text.split(",")]
    unknown = [part for part in parts if part not in names and not part.isdecimal()]
    if unknown:
        known = f"it is {_list_names(names)}" if names else "this run knows no names: give numbers"
        raise StoreError(f"no class {unknown[0]!r}: {known}")
    return [names.index(part) if part in names else int(part) for part in parts]


def _list_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"one of {shown}" + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")
