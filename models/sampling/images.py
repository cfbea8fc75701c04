"""Pictures by seed: one file each, or a grid. A seed gives the same picture alone, in a list, in a grid of a run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from models.gan.latents import BATCH, draw_latents
from models.gan.pictures import write_png
from models.sampling.generator import Code, LoadedGenerator
from models.sampling.layout import cell_size, check_canvas, fit_cell, lay_grid
from models.sampling.settings import Ground, SamplingSettings

Progress = Callable[[int, int], None]
"""Hears how many pictures are made, and of how many."""

PLAIN = SamplingSettings()


def ignore_progress(done: int, total: int) -> None:
    """For callers that show none."""


def report(pictures: Iterable[np.ndarray], total: int, progress: Progress) -> Iterator[np.ndarray]:
    """The same pictures, each told of when it was taken in."""
    for done, picture in enumerate(pictures, start=1):
        yield picture
        progress(done, total)


def seed_codes(generator: LoadedGenerator, seeds: Iterable[int], settings: SamplingSettings = PLAIN) -> Iterator[Code]:
    """The codes of `seeds`, some at a time: there may be any number of them."""
    generator.check(settings)
    rest = iter(seeds)
    while part := list(islice(rest, BATCH)):
        codes = generator.codes(draw_latents(part, generator.z_dim), settings)
        yield from (Code(values, seed) for values, seed in zip(codes, part, strict=True))


def sample(
    generator: LoadedGenerator, seeds: Iterable[int], settings: SamplingSettings = PLAIN
) -> Iterator[np.ndarray]:
    """The pictures of `seeds`, uint8 (H, W, C) each, in order, made as they are taken."""
    yield from generator.draw(seed_codes(generator, seeds, settings), settings.noise)


def sample_images(
    generator: LoadedGenerator,
    seeds: Sequence[int],
    folder: Path,
    settings: SamplingSettings = PLAIN,
    progress: Progress = ignore_progress,
) -> list[Path]:
    """Write one PNG per seed, `seed-00000042.png`, as large as the network makes them; returns the paths in order.

    RGBA where the network makes transparency. Each is written as soon as it is made.
    """
    paths = [folder / f"seed-{seed:08d}.png" for seed in seeds]
    pictures = report(sample(generator, seeds, settings), len(paths), progress)
    for path, picture in zip(paths, pictures, strict=True):
        write_png(path, picture)
    return paths


def sample_grid(
    generator: LoadedGenerator,
    seeds: Sequence[int],  # row by row
    columns: int,
    path: Path,  # the PNG
    cell: int | None = None,  # longer side of each picture in the grid, in pixels; None = as the network makes them
    settings: SamplingSettings = PLAIN,
    ground: Ground = Ground.CHECKER,  # under transparency
    progress: Progress = ignore_progress,
) -> Path:
    """Write the pictures of `seeds` as one PNG grid; returns `path`."""
    height, width = cell_size(generator.height, generator.width, cell)
    columns = min(columns, max(len(seeds), 1))
    check_canvas(-(-len(seeds) // columns) * height, columns * width)
    pictures = report(sample(generator, seeds, settings), len(seeds), progress)
    cells = (fit_cell(picture, height, width, ground) for picture in pictures)
    write_png(path, lay_grid(cells, len(seeds), columns))
    return path
