"""Sample: pictures, a grid and a walk from a trained generator."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from datasets.errors import StoreError
from datasets.store import Store
from models.device import best_device
from models.gan.latents import parse_seeds
from models.sampling.images import load_generator, sample_grid, sample_images
from models.sampling.walk import slerp_walk
from tasks.stage import StageParams

NEWEST = "newest"


class SampleParams(StageParams):
    """Which seeds, and what to make of them."""

    seeds: str = Field("0-63", description="Seeds: numbers and ranges, such as 0-63 or 1,5,9-12")
    columns: int = Field(8, ge=1, le=64, description="Pictures in a row of the grid")
    cell: int = Field(128, ge=0, le=1024, description="Side of a picture in the grid, in pixels; 0: as it is made")
    images: bool = Field(False, description="Also write one PNG per seed")
    walk: bool = Field(True, description="Also write a video that walks through the latent space")
    walk_seconds: float = Field(8.0, gt=0, le=600, description="Length of the walk, in seconds")
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


def sample_run(source: Path, params: SampleParams, out: Path | None = None) -> dict[str, str]:
    """Write a grid (and a walk, and single pictures) of a run or snapshot; returns their paths by name."""
    try:
        seeds = parse_seeds(params.seeds)
    except ValueError as error:
        raise StoreError(str(error)) from error
    generator = load_generator(source, params.ema, best_device())
    folder = out or (source if source.is_dir() else source.parent.parent) / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    grid = sample_grid(generator, seeds, params.columns, folder / "grid.png", params.cell or None)
    made = {"grid": grid.as_posix()}
    if params.images:
        sample_images(generator, seeds, folder / "images")
        made["images"] = (folder / "images").as_posix()
    if params.walk:
        keys = 4
        cells = 9 if len(seeds) >= 9 * keys else 1
        chosen = (seeds * keys)[: cells * keys]
        walk = slerp_walk(generator, chosen, folder / "walk.mp4", keys, columns=3, seconds=params.walk_seconds)
        made["walk"] = walk.as_posix()
    return made
