"""Histograms of measurements: what was kept and what was dropped, and what another threshold would change."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAYS_IN = "stays in"
DROPS = "would newly drop"
COMES_IN = "would newly come in"
STAYS_OUT = "stays out"
# Okabe and Ito's colours, which are told apart with any kind of colour vision; what changes is the strongest
_COLOURS = {STAYS_IN: "#56b4e9", DROPS: "#d55e00", COMES_IN: "#006b4e", STAYS_OUT: "#c4c4c4"}
_KEPT_DROPPED = {"kept": "#4472c4", "dropped": "#c44e52"}
_SHOWN = ("blur", "colours", "saturation", "detector_score", "box_w", "d_score")
_BINS = 40
_OUTLIERS = 0.5  # percent at either end that may be left out of the picture
_COLUMNS = 3
_MOST_MARKS = 60  # items of a group that are marked one by one


@dataclass(frozen=True)
class Panel:
    """One measurement, and what two thresholds make of it.

    values: the measured values of each group (STAYS_IN, DROPS, COMES_IN, STAYS_OUT; absent ones are empty), NaN where
    an item has none. before, after: the threshold of the version and the one that is tried; None for no threshold.
    """

    key: str  # the recipe's: clean.min_blur
    column: str  # what is measured: blur
    values: Mapping[str, np.ndarray]
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Scale:
    """The stretch of values that a panel shows, cut into bins."""

    edges: np.ndarray  # float64, ascending
    logarithmic: bool = False

    @property
    def low(self) -> float:
        return float(self.edges[0])

    @property
    def high(self) -> float:
        return float(self.edges[-1])

    def fraction(self, value: float) -> float:
        """Where a value lies on the axis, 0..1; one beyond it lies at its end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def draw_threshold_histograms(panels: Sequence[Panel]) -> bytes:
    """One histogram per panel, stacked by what the new threshold changes, as PNG. Equal input gives equal bytes.

    Raises ValueError for a group that is not one of the four.
    """
    columns = max(1, min(_COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = _new_figure(4.3 * columns, 3.5 * rows)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells[len(panels) :]:
        axes.axis("off")
    if not panels:
        cells[0].text(0.5, 0.5, "no threshold was changed", ha="center", va="center", fontsize=9)
    for axes, panel in zip(cells, panels, strict=False):
        _draw_panel(axes, panel)
    return _encode(figure)


def draw_histograms(manifest: pa.Table, ledger: pa.Table) -> bytes:
    """Histograms of a version's measurements over kept and dropped items, as PNG."""
    names = [name for name in _SHOWN if manifest[name].null_count < len(manifest)]
    figure = _new_figure(3.2 * max(1, len(names)), 2.6)
    for axes, name in zip(figure.subplots(1, max(1, len(names)), squeeze=False)[0], names, strict=False):
        values = {group: _numbers(table[name]) for group, table in (("kept", manifest), ("dropped", ledger))}
        _draw_stack(axes, values, _KEPT_DROPPED, ())
        axes.set_title(name, fontsize=9)
    return _encode(figure)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    if unknown := sorted(panel.values.keys() - _COLOURS.keys()):
        raise ValueError(f"{unknown} are not groups of a panel: use {list(_COLOURS)}")
    values = {group: _finite(panel.values.get(group, np.empty(0))) for group in _COLOURS}
    limits = [limit for limit in (panel.before, panel.after) if limit is not None]
    scale = _draw_stack(axes, values, _COLOURS, limits)
    axes.set_title(panel.key, fontsize=10, fontweight="bold", pad=26)
    axes.set_xlabel(panel.column, fontsize=8, labelpad=1)
    if scale is None:
        axes.text(0.5, 0.5, "nothing was measured", ha="center", va="center", fontsize=9, transform=axes.transAxes)
        return
    axes.tick_params(axis="x", pad=9)
    for place, group in ((-0.025, DROPS), (-0.06, COMES_IN)):  # a handful would not be seen among thousands
        seen = values[group][(values[group] >= scale.low) & (values[group] <= scale.high)]
        if 0 < len(seen) <= _MOST_MARKS:
            marks = np.full(len(seen), place)
            axes.plot(
                seen, marks, "|", color=_COLOURS[group], ms=4, clip_on=False, transform=axes.get_xaxis_transform()
            )
    _draw_limits(axes, scale, panel.before, panel.after)
    axes.legend(
        handles=[_patch(group, f"{group}: {len(values[group])}") for group in _COLOURS],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.22),
        ncols=2,
        frameon=False,
        fontsize=8,
        handlelength=1.2,
    )


def _draw_stack(
    axes: Axes, values: Mapping[str, np.ndarray], colours: Mapping[str, str], limits: Sequence[float]
) -> Scale | None:
    """Stacked bars of each group, the first one at the bottom; None when there is nothing to draw."""
    axes.tick_params(labelsize=7)
    everything = np.concatenate(list(values.values()))
    if not len(everything):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        return None
    axes.locator_params(axis="y", integer=True, nbins=6)
    scale = choose_scale(everything, limits)
    if scale.logarithmic:
        _label_decades(axes)
    bottom = np.zeros(len(scale.edges) - 1)
    for group, numbers in values.items():
        counts = np.histogram(numbers, scale.edges)[0]
        axes.bar(
            scale.edges[:-1], counts, np.diff(scale.edges), bottom, align="edge", color=colours[group], linewidth=0
        )
        bottom += counts
    axes.set_xlim(scale.low, scale.high)
    axes.set_ylim(0, max(1.0, bottom.max() * 1.12))
    axes.spines[["top", "right"]].set_visible(False)
    _note_beyond(axes, everything, scale)
    return scale


def choose_scale(values: np.ndarray, limits: Sequence[float] = ()) -> Scale:
    """What a histogram shows of values (float64, finite, at least one), so that outliers do not squash the rest.

    A long tail is left out; where even the rest spans decades, the axis is logarithmic. A threshold that lies near
    the values is always within.
    """
    low, high = float(values.min()), float(values.max())
    inner = [float(value) for value in np.percentile(values, (_OUTLIERS, 100 - _OUTLIERS))]
    body = np.percentile(values, (5, 95))
    logarithmic = bool(body[0] > 0 and body[1] / body[0] > 30 and all(limit > 0 for limit in limits))
    if logarithmic:
        low, high = max(inner[0], float(values[values > 0].min())), max(inner[1], inner[0])
    elif high - low > 2 * (inner[1] - inner[0]) > 0:
        low, high = inner
    span = high - low
    for limit in limits:
        if logarithmic and low / 10 <= limit <= high * 10:
            low, high = min(low, limit / 1.1), max(high, limit * 1.1)
        elif not logarithmic and low - span <= limit <= high + span:
            low, high = min(low, limit - 0.04 * span), max(high, limit + 0.04 * span)
    if high <= low:
        margin = 0.5 * abs(low) or 0.5
        low, high, logarithmic = low - margin, high + margin, False
    inside = [limit for limit in limits if low <= limit <= high]
    if not logarithmic:
        return Scale(_cut_bins(low, high, inside))
    edges = np.exp(_cut_bins(math.log(low), math.log(high), [math.log(limit) for limit in inside]))
    return Scale(_snap(edges, inside), logarithmic=True)


def _cut_bins(low: float, high: float, limits: Sequence[float]) -> np.ndarray:
    """Edges of about _BINS equal bins that cover low..high, so that each of up to two limits is an edge.

    Else a bar would stand on both sides of a threshold. (Two limits within one bin: the last one is an edge.)
    """
    step = (high - low) / _BINS
    if not limits:
        return np.linspace(low, high, _BINS + 1)
    apart = abs(limits[-1] - limits[0])
    if apart > step / 2:
        step = apart / round(apart / step + 1e-9)
    anchor = limits[-1]
    first, last = math.floor((low - anchor) / step), math.ceil((high - anchor) / step)
    return _snap(anchor + step * np.arange(first, last + 1), limits if apart > step / 2 else limits[-1:])


def _snap(edges: np.ndarray, limits: Sequence[float]) -> np.ndarray:
    """Edges with those that a limit should be exactly equal to it: what measures as much as the limit is beyond it."""
    for limit in limits:
        nearest = int(np.abs(edges - limit).argmin())
        if math.isclose(edges[nearest], limit, rel_tol=1e-6, abs_tol=1e-12):
            edges[nearest] = limit
    return edges


def _label_decades(axes: Axes) -> None:
    """A logarithmic axis with plain numbers: 100, 200, 500, 1000."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _note_beyond(axes: Axes, values: np.ndarray, scale: Scale) -> None:
    """Say how many values lie outside the picture."""
    for side, count, text in (
        (0.01, int((values < scale.low).sum()), "← {} beyond"),
        (0.99, int((values > scale.high).sum()), "{} beyond →"),
    ):
        if count:
            align = "left" if side < 0.5 else "right"
            text = text.format(count)
            axes.text(side, 0.99, text, ha=align, va="top", fontsize=7, color="#555555", transform=axes.transAxes)


def _draw_limits(axes: Axes, scale: Scale, before: float | None, after: float | None) -> None:
    """A dashed line for the old threshold, a solid one for the new; their values above the panel, a row for each."""
    lines = [("old", before, "--", "#666666", 1.085), ("new", after, "-", "#000000", 1.01)]
    if before == after:
        lines = [("unchanged", after, "-", "#000000", 1.01)]
    for name, value, style, colour, height in lines:
        if value is None:
            continue
        text = f"{name} {value:.4g}"
        if value < scale.low:
            text = f"← {text}"
        elif value > scale.high:
            text = f"{text} →"
        else:
            axes.axvline(value, color=colour, linestyle=style, linewidth=1.2)
        at = scale.fraction(value)
        align = "left" if at < 0.25 else "right" if at > 0.75 else "center"
        axes.text(at, height, text, ha=align, va="bottom", fontsize=8, color=colour, transform=axes.transAxes)


def _patch(group: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=_COLOURS[group], label=label)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return _finite(pc.drop_null(column).to_numpy())


def _finite(values: np.ndarray) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]


def _new_figure(width: float, height: float) -> Figure:
    """Not pyplot: its list of open figures is shared by all threads."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(
        figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, hspace=0.04, wspace=0.02)
    )


def _encode(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90, metadata={"Software": None})
    return buffer.getvalue()
