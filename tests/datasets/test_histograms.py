"""Histograms: every item is counted once, and a threshold always stands between two bars."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from datasets import histograms
from datasets.histograms import (
    COMES_IN,
    DROPS,
    STAYS_IN,
    STAYS_OUT,
    Panel,
    choose_scale,
    draw_histograms,
    draw_threshold_histograms,
)
from datasets.schema import LEDGER, MANIFEST


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn from now on."""
    made: list[Figure] = []
    original: Callable[..., Figure] = histograms._new_figure

    def remember(*size: float) -> Figure:
        made.append(original(*size))
        return made[-1]

    monkeypatch.setattr(histograms, "_new_figure", remember)
    return made


def panel(before: float | None = 60.0, after: float | None = 40.0, **changes: Any) -> Panel:
    rng = np.random.default_rng(0)
    values = {
        STAYS_IN: rng.uniform(60, 200, 300),
        DROPS: np.empty(0),
        COMES_IN: rng.uniform(40, 60, 20),
        STAYS_OUT: rng.uniform(0, 40, 50),
    }
    return Panel("clean.min_blur", "blur", changes.get("values", values), before, after)


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def labels(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def counted(axes: Axes) -> int:
    return round(sum(patch.get_height() for patch in axes.patches))


def test_a_panel_says_its_key_its_thresholds_and_its_counts(figures: list[Figure]) -> None:
    data = draw_threshold_histograms([panel()])
    (axes,) = figures[0].axes
    assert (axes.get_title(), axes.get_xlabel()) == ("clean.min_blur", "blur")
    assert texts(axes) == ["old 60", "new 40"]
    assert labels(axes) == ["stays in: 300", "would newly drop: 0", "would newly come in: 20", "stays out: 50"]
    assert counted(axes) == 370
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"


def test_no_bar_stands_on_both_sides_of_a_threshold(figures: list[Figure]) -> None:
    draw_threshold_histograms([panel()])
    (axes,) = figures[0].axes
    for patch in axes.patches:
        left, right = patch.get_x(), patch.get_x() + patch.get_width()
        if patch.get_height():
            for limit in (40.0, 60.0):
                assert right <= limit + 1e-9 or left >= limit - 1e-9


@pytest.mark.parametrize("limits", [(3.3,), (3.3, 7.1), (7.1, 3.3), (0.1, 9.7), (5.0, 5.01), (-4.0, 14.0)])
def test_thresholds_near_the_values_are_edges(limits: tuple[float, ...]) -> None:
    scale = choose_scale(np.linspace(0, 10, 500), limits)
    assert limits[-1] in scale.edges
    if abs(limits[0] - limits[-1]) > 0.5:
        assert limits[0] in scale.edges
    assert scale.low <= 0 < 10 <= scale.high
    assert 20 < len(scale.edges) < 200
    assert (np.diff(scale.edges) > 0).all()


def test_a_threshold_of_a_logarithmic_axis_is_an_edge_to_the_last_bit() -> None:
    values = np.geomspace(0.5, 20_000, 2000)
    scale = choose_scale(values, (60.0, 41.3))
    assert scale.logarithmic
    assert {60.0, 41.3} <= set(scale.edges.tolist())
    assert not choose_scale(values, (0.0,)).logarithmic  # zero has no place on it


def test_outliers_do_not_squash_the_rest_and_are_counted(figures: list[Figure]) -> None:
    body = np.random.default_rng(1).uniform(100, 200, 2000)
    values = {STAYS_IN: np.concatenate([body, [1e6, 2e6, 3e6]]), STAYS_OUT: np.array([-5e5])}
    draw_threshold_histograms([panel(120.0, 130.0, values=values)])
    (axes,) = figures[0].axes
    low, high = axes.get_xlim()
    assert (low > 50, high < 250) == (True, True)
    beyond = [int("".join(filter(str.isdigit, text))) for text in texts(axes) if "beyond" in text]
    assert len(beyond) == 2
    assert counted(axes) + sum(beyond) == 2004
    assert labels(axes)[0] == "stays in: 2003"


def test_a_threshold_far_from_all_values_is_told_and_not_drawn(figures: list[Figure]) -> None:
    draw_threshold_histograms([panel(-1e9, 1e9)])
    (axes,) = figures[0].axes
    assert texts(axes) == ["← old -1e+09", "new 1e+09 →"]
    assert axes.get_xlim()[1] < 300


@pytest.mark.parametrize(("before", "after", "said"), [(None, 40.0, ["new 40"]), (60.0, None, ["old 60"])])
def test_a_threshold_that_is_not_set_has_no_line(
    figures: list[Figure], before: float | None, after: float | None, said: list[str]
) -> None:
    draw_threshold_histograms([panel(before, after)])
    assert texts(figures[0].axes[0]) == said


def test_equal_thresholds_are_one_line(figures: list[Figure]) -> None:
    draw_threshold_histograms([panel(60.0, 60.0)])
    assert texts(figures[0].axes[0]) == ["unchanged 60"]


@pytest.mark.parametrize(
    "values",
    [{}, {STAYS_IN: np.array([np.nan, np.inf])}, {STAYS_IN: np.empty(0, np.int32)}],
    ids=["none", "no numbers", "empty"],
)
def test_nothing_measured_is_said(figures: list[Figure], values: dict[str, np.ndarray]) -> None:
    draw_threshold_histograms([panel(values=values)])
    assert "nothing was measured" in texts(figures[0].axes[0])


@pytest.mark.parametrize("values", [[7.0], [0.0], [7.0] * 50, [-3.0, -3.0], [1, 2, 3], [1e-300, 1e-300], [5e12, 5e12]])
def test_few_or_equal_values_are_all_drawn(figures: list[Figure], values: list[float]) -> None:
    draw_threshold_histograms([panel(7.0, 7.0, values={STAYS_IN: np.array(values)})])
    assert counted(figures[0].axes[0]) == len(values)


def test_values_without_a_number_are_not_counted(figures: list[Figure]) -> None:
    draw_threshold_histograms([panel(values={STAYS_IN: np.array([50.0, np.nan, 70.0])})])
    assert labels(figures[0].axes[0])[0] == "stays in: 2"


def test_a_group_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'kept'.*stays in"):
        draw_threshold_histograms([panel(values={"kept": np.ones(3)})])


def test_equal_input_gives_equal_bytes_in_many_threads() -> None:
    panels = [panel(), panel(None, 30.0)]
    with ThreadPoolExecutor(3) as pool:
        drawn = set(pool.map(lambda _: draw_threshold_histograms(panels), range(4)))
    assert len(drawn) == 1


def test_no_text_is_cut_off(figures: list[Figure]) -> None:
    low, high = panel(1.0, 2.0), panel(199.0, 198.0)
    draw_threshold_histograms([low, high, panel(), low, high])
    figure = figures[0]
    for axes in figure.axes:
        box = axes.get_tightbbox()
        if box is not None and axes.get_title():
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1


def test_no_panels_and_empty_versions_are_pictures_too() -> None:
    for data in (draw_threshold_histograms([]), draw_histograms(MANIFEST.empty_table(), LEDGER.empty_table())):
        with Image.open(io.BytesIO(data)) as image:
            image.load()


def test_the_cards_histograms_hold_kept_and_dropped(figures: list[Figure]) -> None:
    base = {"crop_id": "a#0", "post_id": "a", "blob": "b", "pixel_digest": "c"}
    manifest = pa.Table.from_pylist([base | {"blur": 100.0 + k, "colours": k} for k in range(30)], schema=MANIFEST)
    fallen = [{"stage": "clean", "item_id": f"{k}", "reason": "blurred", "blur": 10.0 + k} for k in range(7)]
    draw_histograms(manifest, pa.Table.from_pylist(fallen, schema=LEDGER))
    assert [axes.get_title() for axes in figures[0].axes] == ["blur", "colours"]
    assert [counted(axes) for axes in figures[0].axes] == [37, 30]
