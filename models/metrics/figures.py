"""Pictures that say what figures of quality mean: nearest training pictures, distances, and KID over a training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.gan.pictures import resize, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

_CELL = 112  # pixels of the longer side of a picture beside its neighbours
_GAP = 14  # pixels between groups of three
_FONT = 11
_INK = (40, 40, 40)
_GROUPS = 4  # samples in a row
# Okabe and Ito's colours, told apart with any kind of colour vision
_SAMPLES, _REALS, _LIMIT = "#d55e00", "#56b4e9", "#000000"


@dataclass(frozen=True)
class Neighbour:
    """A training picture beside a sample."""

    picture: np.ndarray  # uint8 (H, W, 3), mirrored already where its mirror image is meant
    distance: float


@dataclass(frozen=True)
class Suspect:
    """A sample and its nearest training pictures."""

    seed: int
    picture: np.ndarray  # uint8 (H, W, 3)
    by_features: Neighbour
    by_pixels: Neighbour


@dataclass(frozen=True)
class Distances:
    """Distances of one kind to the nearest training picture."""

    kind: str  # "features", "pixels"
    samples: np.ndarray  # float (N,)
    reals: np.ndarray  # float (M,)
    threshold: float  # nearer is suspicious
    share: float  # of the samples that are


@dataclass(frozen=True)
class CurvePoint:
    """A figure after so much training."""

    nimg: int
    value: float
    error: float | None


def draw_neighbours(path: Path, sections: Sequence[tuple[str, Sequence[Suspect]]]) -> None:
    """Write groups of three as PNG: the sample, its nearest training picture by features, and by pixels.

    sections: a title and the samples beneath it, the nearest first.
    """
    shown = [(title, suspects) for title, suspects in sections if suspects]
    height, width = _cell_size(shown[0][1][0].picture)
    line, heading = _FONT + 4, 24
    group = 3 * (width + 2) + _GAP
    columns = min(_GROUPS, max(len(suspects) for _, suspects in shown))
    rows = [-(-len(suspects) // columns) for _, suspects in shown]
    row = height + line + 6
    sheet = Image.new("RGB", (columns * group + _GAP, sum(heading + count * row for count in rows) + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    font, bold = ImageFont.load_default(size=_FONT), ImageFont.load_default(size=_FONT + 3)
    top = 4
    for (title, suspects), count in zip(shown, rows, strict=True):
        pen.text((_GAP, top + 4), title, fill=_INK, font=bold)
        for k, suspect in enumerate(suspects):
            x, y = _GAP + k % columns * group, top + heading + k // columns * row
            for number, (picture, caption) in enumerate(_captioned(suspect)):
                left = x + number * (width + 2)
                sheet.paste(Image.fromarray(resize(picture, width, height)), (left, y))
                pen.text((left, y + height + 1), caption, fill=_INK, font=font)
        top += heading + count * row
    write_png(path, np.asarray(sheet))


def _captioned(suspect: Suspect) -> Iterator[tuple[np.ndarray, str]]:
    yield suspect.picture, f"seed {suspect.seed}"
    yield suspect.by_features.picture, f"features {suspect.by_features.distance:.3g}"
    yield suspect.by_pixels.picture, f"pixels {suspect.by_pixels.distance:.3g}"


def _cell_size(picture: np.ndarray) -> tuple[int, int]:
    height, width = picture.shape[:2]
    scale = _CELL / max(height, width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def draw_distances(path: Path, kinds: Sequence[Distances], reals_said: str, title: str) -> bool:
    """Write histograms of samples over reals as PNG, one panel for each kind of distance; False without matplotlib.

    reals_said: which real pictures those are.
    """
    figure = _new_figure(5.2 * len(kinds), 3.6)
    if figure is None:
        return False
    for axes, distances in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        both = np.concatenate([distances.samples, distances.reals])
        edges = np.linspace(min(float(both.min()), distances.threshold), float(np.percentile(both, 99.5)), 46)
        if edges[-1] <= edges[0]:
            edges = np.linspace(edges[0], edges[0] + 1.0, 46)
        for values, colour, name in (
            (distances.reals, _REALS, f"{reals_said} ({len(distances.reals)})"),
            (distances.samples, _SAMPLES, f"samples ({len(distances.samples)})"),
        ):
            weights = np.full(len(values), 100.0 / len(values))
            axes.hist(values, edges, weights=weights, color=colour, alpha=0.6, label=name)
        axes.axvline(distances.threshold, color=_LIMIT, linewidth=1, linestyle="--")
        axes.set_title(f"{distances.kind}: {distances.share:.1%} of the samples up to the line", fontsize=9)
        axes.set_xlabel("distance to the nearest training picture", fontsize=8)
        axes.set_ylabel("% of pictures", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)
    return True


def draw_curve(path: Path, points: Sequence[CurvePoint], baseline: CurvePoint | None, name: str, title: str) -> bool:
    """Write a figure over thousands of pictures seen as PNG, with two standard errors; False without matplotlib.

    baseline: what two halves of the reals give; its nimg is not used. name: of the figure, on the axis.
    """
    figure = _new_figure(6.4, 3.8)
    if figure is None:
        return False
    axes = figure.subplots()
    kimg = [point.nimg / 1000 for point in points]
    axes.errorbar(
        kimg,
        [point.value for point in points],
        yerr=[2 * (point.error or 0.0) for point in points],
        color=_SAMPLES,
        marker="o",
        markersize=3.5,
        capsize=2,
        linewidth=1.2,
        label="samples, ± 2 standard errors",
    )
    if baseline is not None:
        axes.axhline(baseline.value, color=_REALS, linewidth=1.2, label="reals against reals")
        if baseline.error:
            low, high = baseline.value - 2 * baseline.error, baseline.value + 2 * baseline.error
            axes.axhspan(low, high, color=_REALS, alpha=0.25, linewidth=0)
    axes.set_xlabel("thousand pictures seen", fontsize=8)
    axes.set_ylabel(name, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _save(figure, path)
    return True


def _new_figure(width: float, height: float) -> Figure | None:
    """A figure of its own, without pyplot's state; None, with a warning, on a machine that has no matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        log.warning("matplotlib is not installed: no curves and histograms are drawn")
        return None
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(temporary, format="png", metadata={"Software": None})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
