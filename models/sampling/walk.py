"""A film of walks through latent space: closed loops, several side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.gan.latents import draw_latents
from models.sampling.generator import Code, LoadedGenerator
from models.sampling.images import PLAIN, Progress, ignore_progress
from models.sampling.layout import cell_size, fit_cell, lay_grid
from models.sampling.paths import LatentPath, even_path, random_path, slerp_paths
from models.sampling.settings import Ground, SamplingError, SamplingSettings, WalkPath
from models.sampling.video import write_mp4

MEASURED_SIDE = 128  # pictures are compared at no more than this many pixels a side
MEASURED_PER_KEY = 48  # positions at which an even walk is measured


@dataclass(frozen=True)
class Walk:
    """What one film shows."""

    paths: Sequence[LatentPath]  # one per cell, row by row
    seeds: Sequence[int]  # of the cells' noise, where that is random; it stays the same along the film
    keys: int  # how much happens in a round: key pictures, or as much change as that


def plan_walk(
    generator: LoadedGenerator, seeds: Sequence[int], kind: WalkPath = WalkPath.AUTO, keys: int = 4, cells: int = 9
) -> Walk:
    """The loops of at most `cells` cells.

    slerp: the first `keys` seeds are the first cell's key pictures, and so on; with fewer seeds than that they are
    repeated. random: one seed per cell. auto: random for a network with styles.
    """
    if not seeds or keys < 2 or cells < 1:
        raise SamplingError(f"a walk needs seeds, 2 keys or more and a cell, got {len(seeds)}, {keys} and {cells}")
    if kind is WalkPath.AUTO:
        kind = WalkPath.RANDOM if generator.has_styles else WalkPath.SLERP
    if kind is WalkPath.RANDOM:
        chosen = list(seeds[:cells])
        return Walk([random_path(seed, generator.z_dim, keys) for seed in chosen], chosen, keys)
    count = min(cells, max(len(seeds) // keys, 1))
    used = (list(seeds) * keys)[: count * keys]
    return Walk(slerp_paths(draw_latents(used, generator.z_dim), keys), used[::keys], keys)


def film_walk(
    generator: LoadedGenerator,
    walk: Walk,
    path: Path,  # the MP4
    columns: int = 3,  # cells side by side
    seconds: float = 8.0,  # one round of the loops
    fps: int = 30,
    cell: int | None = 256,  # longer side of a cell in the film, in pixels; None = as the network makes them
    even: bool = False,  # as much change in every second, measured on the pictures
    settings: SamplingSettings = PLAIN,
    ground: Ground = Ground.CHECKER,
    progress: Progress = ignore_progress,
) -> Path:
    """Write the walk as an MP4 that loops without a seam; returns `path`.

    Frame k shows the loops at k / (seconds * fps) of a round: films at several frame rates agree where their times do.
    The same arguments give the same bytes (same device and library versions).
    """
    if not (seconds > 0 and fps > 0 and (cell is None or cell > 0)):
        raise SamplingError(f"seconds, fps and cell must be above 0, got {seconds}, {fps} and {cell}")
    generator.check(settings)
    count = max(round(seconds * fps), 1)
    measured = 2 * MEASURED_PER_KEY * walk.keys * len(walk.paths) if even else 0
    meter = _Meter(count * len(walk.paths) + measured, progress)
    if even:
        walk = Walk(even_paths(generator, walk, settings, meter), walk.seeds, walk.keys)
    write_mp4(path, _frames(generator, walk, count, columns, cell, settings, ground, meter), fps)
    return path


def walk_codes(
    generator: LoadedGenerator, walk: Walk, positions: np.ndarray, settings: SamplingSettings = PLAIN
) -> Iterator[Code]:
    """The codes of all cells at the first position, then at the next, and so on."""
    at_once = max(generator.batch // len(walk.paths), 1)
    for first in range(0, len(positions), at_once):
        part = positions[first : first + at_once]
        latents = np.stack([path(part) for path in walk.paths], axis=1)  # (positions, cells, z_dim)
        codes = generator.codes(latents.reshape(-1, generator.z_dim).astype(np.float32), settings)
        seeds = list(walk.seeds) * len(part)
        yield from (Code(values, seed) for values, seed in zip(codes, seeds, strict=True))


def even_paths(
    generator: LoadedGenerator, walk: Walk, settings: SamplingSettings = PLAIN, progress: "_Meter | None" = None
) -> list[LatentPath]:
    """The walk's loops, each in its own time, so that its picture changes evenly (root mean square, over pixels)."""

    def measure(path: LatentPath, seed: int) -> LatentPath:
        def change(positions: np.ndarray) -> np.ndarray:
            single = Walk([path], [seed], walk.keys)
            pictures = generator.draw(walk_codes(generator, single, positions, settings), settings.noise)
            return rms_steps(pictures, progress)

        return even_path(path, change, MEASURED_PER_KEY * walk.keys)

    return [measure(path, seed) for path, seed in zip(walk.paths, walk.seeds, strict=True)]


def rms_steps(pictures: Iterator[np.ndarray], meter: "_Meter | None" = None) -> np.ndarray:
    """How far each picture, uint8 (H, W, C), is from the next, and the last from the first; float64 (N,)."""
    steps: list[float] = []
    first = last = None
    for picture in pictures:
        reduced = _reduce(picture)
        if last is None:
            first = reduced
        else:
            steps.append(float(np.sqrt(np.mean((reduced - last) ** 2))))
        last = reduced
        if meter is not None:
            meter.step()
    if first is None or last is None:
        raise ValueError("no pictures to compare")
    return np.array([*steps, float(np.sqrt(np.mean((first - last) ** 2)))])


def _reduce(picture: np.ndarray) -> np.ndarray:
    """float32, at most MEASURED_SIDE a side: differences of less than a level count, too."""
    values = picture.astype(np.float32)
    if picture.shape[2] == 4:
        values[:, :, :3] *= values[:, :, 3:] / 255  # what cannot be seen does not change
    height, width = picture.shape[:2]
    if max(height, width) <= MEASURED_SIDE:
        return values
    rows, columns = cell_size(height, width, MEASURED_SIDE)
    reduced: np.ndarray = cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA)
    return reduced


def _frames(
    generator: LoadedGenerator,
    walk: Walk,
    count: int,
    columns: int,
    cell: int | None,
    settings: SamplingSettings,
    ground: Ground,
    meter: "_Meter",
) -> Iterator[np.ndarray]:
    height, width = cell_size(generator.height, generator.width, cell)
    cells: list[np.ndarray] = []
    for picture in generator.draw(walk_codes(generator, walk, np.arange(count) / count, settings), settings.noise):
        cells.append(fit_cell(picture, height, width, ground))
        meter.step()
        if len(cells) == len(walk.paths):
            yield lay_grid(cells, len(cells), columns)
            cells = []


class _Meter:
    """Counts pictures over the parts of one film."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done = 0
        self._total = total
        self._progress = progress

    def step(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)
