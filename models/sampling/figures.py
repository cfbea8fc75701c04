"""Two figures of a network with styles: what truncation does, and what the layers' styles do."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.gan.latents import draw_latents
from models.gan.pictures import write_png
from models.sampling.generator import Code, LoadedGenerator
from models.sampling.images import PLAIN, Progress, ignore_progress, report
from models.sampling.layout import cell_size, check_canvas, draw_labels, fit_cell
from models.sampling.settings import Ground, SamplingError, SamplingSettings

LAYER_RANGES = {"coarse": (0, 8), "middle": (9, 32), "fine": (33, 1 << 20)}
"""Longer sides of the maps in pixels, ends included (Karras et al. 2019, arXiv:1812.04948, section 3.1)."""

GAP = 8  # pixels between the sources of a mixing figure and its mixtures


def parse_layers(text: str, sizes: Sequence[int]) -> range:
    """Layers whose maps have `sizes`: `coarse`, `middle` or `fine` ones, or numbers from 0 such as 2-5 or 7."""
    smallest, largest = LAYER_RANGES.get(text.strip(), (0, 0))
    if largest:
        chosen = [k for k, size in enumerate(sizes) if smallest <= size <= largest]
        if not chosen:
            raise SamplingError(f"this network has no {text.strip()} layers: its largest map has {max(sizes)} pixels")
        return range(chosen[0], chosen[-1] + 1)
    start, dash, end = text.strip().partition("-")
    if not start.isdecimal() or (dash and not end.isdecimal()):
        raise SamplingError(f"cannot read layers {text!r}: write coarse, middle, fine, or numbers such as 2-5")
    first, last = int(start), int(end or start)
    if first > last or last >= len(sizes):
        raise SamplingError(f"layers must rise and lie in 0 to {len(sizes) - 1} for this network, got {text!r}")
    return range(first, last + 1)


def psi_sweep(
    generator: LoadedGenerator,
    seeds: Sequence[int],  # rows
    psis: Sequence[float],  # columns
    path: Path,  # the PNG
    cell: int | None = None,  # longer side of each picture, in pixels; None = as the network makes them
    settings: SamplingSettings = PLAIN,  # its psi is not used
    ground: Ground = Ground.CHECKER,
    progress: Progress = ignore_progress,
) -> Path:
    """Write a figure of truncation: each seed in a row, from its opposite (-1) over the mean (0) to itself (1)."""
    generator.styles("the psi sweep (--psi-sweep)")
    if not seeds or not psis:
        raise SamplingError("the psi sweep needs at least one seed and one psi")
    height, width = cell_size(generator.height, generator.width, cell)
    font = max(10, min(height // 8, 24))
    top, left = 2 * font, max(2, *(len(str(seed)) for seed in seeds)) * font
    shape = (top + len(seeds) * height, left + len(psis) * width)
    check_canvas(*shape)
    latents = draw_latents(seeds, generator.z_dim)
    columns = [generator.codes(latents, replace(settings, psi=psi)) for psi in psis]
    codes = (Code(column[row], seed) for row, seed in enumerate(seeds) for column in columns)
    pictures = report(generator.draw(codes, settings.noise), len(seeds) * len(psis), progress)
    labels = [(left / 2, top / 2, "psi")]
    labels += [(left + (k + 0.5) * width, top / 2, f"{psi:g}") for k, psi in enumerate(psis)]
    labels += [(left / 2, top + (k + 0.5) * height, str(seed)) for k, seed in enumerate(seeds)]
    figure = _begin(draw_labels(shape, labels, font), generator)
    for k, picture in enumerate(pictures):
        y, x = top + k // len(psis) * height, left + k % len(psis) * width
        figure[y : y + height, x : x + width] = fit_cell(picture, height, width, ground)
    write_png(path, figure)
    return path


def mixing_figure(
    generator: LoadedGenerator,
    rows: Sequence[int],  # seeds whose pictures are changed
    columns: Sequence[int],  # seeds that give the styles of `layers`
    layers: range,  # of parse_layers
    path: Path,  # the PNG
    cell: int | None = None,  # longer side of each picture, in pixels; None = as the network makes them
    settings: SamplingSettings = PLAIN,
    ground: Ground = Ground.CHECKER,
    progress: Progress = ignore_progress,
) -> Path:
    """Write a style-mixing figure: each row's seed with the styles of each column's in `layers`.

    Karras et al. 2019, figure 3. The sources stand in the margins, and are truncated like their mixtures.
    """
    generator.styles("style mixing (--mix)")
    if not rows or not columns:
        raise SamplingError("style mixing needs at least one seed for the rows and one for the columns")
    height, width = cell_size(generator.height, generator.width, cell)
    shape = (GAP + (len(rows) + 1) * height, GAP + (len(columns) + 1) * width)
    check_canvas(*shape)
    codes = mix_codes(generator, rows, columns, layers, settings)
    total = (len(rows) + 1) * (len(columns) + 1) - 1
    pictures = report(generator.draw(codes, settings.noise), total, progress)
    font = max(8, min(height, width) // 9)
    text = (
        f"rows with the\ncolumns' layers\n{layers[0]} to {layers[-1]}"
        if len(layers) > 1
        else (f"rows with the\ncolumns' layer\n{layers[0]}")
    )
    figure = _begin(draw_labels(shape, [(width / 2, height / 2, text)], font), generator)
    for k, picture in enumerate(pictures, start=1):  # place 0 is the corner
        row, column = divmod(k, len(columns) + 1)
        y, x = row * height + GAP * (row > 0), column * width + GAP * (column > 0)
        figure[y : y + height, x : x + width] = fit_cell(picture, height, width, ground)
    write_png(path, figure)
    return path


def mix_codes(
    generator: LoadedGenerator,
    rows: Sequence[int],
    columns: Sequence[int],
    layers: range,
    settings: SamplingSettings = PLAIN,
) -> Iterator[Code]:
    """The codes of a mixing figure row by row, without its corner: sources first, in both directions."""
    across = generator.codes(draw_latents(columns, generator.z_dim), settings)
    down = generator.codes(draw_latents(rows, generator.z_dim), settings)
    yield from (Code(values, seed) for values, seed in zip(across, columns, strict=True))
    for source, seed in zip(down, rows, strict=True):
        yield Code(source, seed)
        for given in across:
            mixed = source.copy()
            mixed[layers.start : layers.stop] = given[layers.start : layers.stop]
            yield Code(mixed, seed)


def _begin(labels: np.ndarray, generator: LoadedGenerator) -> np.ndarray:
    """A writable figure with the labels on it, in grey where the pictures are, else in RGB."""
    return np.repeat(labels, 1 if generator.channels == 1 else 3, axis=2)
