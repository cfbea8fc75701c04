"""Tune: what another setting would change, item by item, before anybody builds it. Opens no picture."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.atomic import write_bytes, write_parquet
from datasets.diff import Change, diff_versions, summarise_diff
from datasets.histograms import COMES_IN, DROPS, STAYS_IN, STAYS_OUT, Panel, draw_threshold_histograms
from datasets.schema import MANIFEST
from datasets.sheets import Cell, Section, draw_sections, save_sheet
from datasets.store import Store
from tasks.forecast import Forecast, forecast_build
from tasks.plan import BuildPlan

HISTOGRAMS_FILE = "thresholds.png"
SHEET_FILE = "crossing.jpg"
CHANGES_FILE = "changes.parquet"
_CELLS = 48  # pictures of a section: a sheet is for looking at


@dataclass(frozen=True)
class Tuning:
    """Two forecasts from one source, and what differs between them."""

    before: Forecast
    after: Forecast
    changes: pa.Table  # datasets.diff.DIFF; of items whose verdict is open in either, no row
    summary: pa.Table  # datasets.diff.SUMMARY

    def crossing(self, change: Change) -> pa.Table:
        """The items that would come in (added) or drop (removed), the nearest to its threshold first."""
        rows = self.changes.filter(pc.equal(self.changes["change"], change))
        gap = pc.abs(pc.subtract(rows["value"], rows["threshold_after"]))
        return rows.append_column("gap", gap).sort_by([("gap", "ascending"), ("item_id", "ascending")])


def compare_plans(
    before: BuildPlan, after: BuildPlan, store: Store, told: Callable[[str, int], None] | None = None
) -> Tuning:
    """Judge the source as it is now by two plans, with the facts that the cache has.

    told(stage, items): progress, through both. Raises KaobakoError when the source or the weights are not there.
    """
    forecasts = forecast_build(before, store, told), forecast_build(after, store, told)
    with tempfile.TemporaryDirectory(prefix="kaobako-tune-") as folder:
        drafts = [
            forecast.write_draft(Path(folder) / name / "datasets" / plan.dataset / "v0000", plan.dataset)
            for forecast, name, plan in zip(forecasts, ("before", "after"), (before, after), strict=True)
        ]
        changes = diff_versions(drafts[0], drafts[1])
    for forecast in forecasts:
        changes = changes.filter(pc.invert(_is_open(changes, forecast.unmeasured)))
    return Tuning(*forecasts, changes, summarise_diff(changes))


def _is_open(changes: pa.Table, unmeasured: pa.Table) -> pa.ChunkedArray:
    """Which rows speak of an item, or of a crop of a post, that was never measured far enough for a verdict."""
    names = pc.unique(unmeasured["item_id"])  # of a post without crops the item is the post
    parents = pc.replace_substring_regex(changes["item_id"], r"(#\d+)\+.*$", r"\1")  # of 12#0+mirror: 12#0
    return pc.or_(pc.is_in(parents, value_set=names), pc.is_in(changes["post_id"], value_set=names))


def count_stages(tuning: Tuning) -> list[dict[str, Any]]:
    """One row per stage: in, kept and dropped before and after, and what it would have to measure first."""
    before, after = tuning.before.lineage["counts"], tuning.after.lineage["counts"]
    open_work = tuning.after.unmeasured_counts()
    rows = []
    for stage in [*before, *(name for name in after if name not in before)]:
        row: dict[str, Any] = {"stage": stage}
        for name, counts in (("before", before), ("after", after)):
            row[name] = {key: counts[stage][key] for key in ("in", "kept", "dropped")} if stage in counts else None
        to_measure = open_work.get(stage, 0) + (open_work.get("fingerprint", 0) if stage == "crop" else 0)
        rows.append({**row, "to_measure": to_measure})
    return rows


def write_pictures(tuning: Tuning, store: Store, folder: Path) -> tuple[list[Path], int]:
    """The histograms, the contact sheet and the table of changes, as files in a folder.

    Returns their paths, and how many pictures of the sheet are blank because nobody kept their thumbnails.
    """
    write_parquet(folder / CHANGES_FILE, tuning.changes)
    written = [folder / CHANGES_FILE]
    if panels := make_panels(tuning):
        write_bytes(folder / HISTOGRAMS_FILE, draw_threshold_histograms(panels))
        written.append(folder / HISTOGRAMS_FILE)
    sections = [
        _section("would come in", tuning.crossing(Change.ADDED), store),
        _section("would drop", tuning.crossing(Change.REMOVED), store),
    ]
    save_sheet(draw_sections(sections), folder / SHEET_FILE)
    blank = sum(cell.path is None for section in sections for cell in section.cells)
    return [*written, folder / SHEET_FILE], blank


def make_panels(tuning: Tuning) -> list[Panel]:
    """One panel per threshold that is set before or after, those that differ first."""
    before, after = (_limits(forecast) for forecast in (tuning.before, tuning.after))
    states = _states(tuning)
    keys = sorted(before.keys() | after.keys(), key=lambda key: (before.get(key) == after.get(key), key))
    panels = []
    for stage, column, parameter in keys:
        if column not in MANIFEST.names:
            continue  # what the metadata says of a post; its effect is in the counts
        values = {group: _values(table, column, stage, tuning) for group, table in states.items()}
        if any(len(found) for found in values.values()):
            key = (stage, column, parameter)
            panels.append(Panel(parameter, column, values, before.get(key), after.get(key)))
    return panels


def _limits(forecast: Forecast) -> dict[tuple[str, str, str], float]:
    return {(row["stage"], row["column"], row["parameter"]): row["value"] for row in forecast.lineage["thresholds"]}


def _states(tuning: Tuning) -> dict[str, pa.Table]:
    """Every item that the later plan has judged, in four groups by what becomes of it."""
    names = tuning.before.manifest["crop_id"].combine_chunks()
    published, fallen = tuning.after.manifest, tuning.after.ledger
    was_in = pc.is_in(published["crop_id"], value_set=names)
    dropped = pc.is_in(fallen["item_id"], value_set=names)
    return {
        STAYS_IN: published.filter(was_in),
        COMES_IN: published.filter(pc.invert(was_in)),
        DROPS: fallen.filter(dropped),
        STAYS_OUT: fallen.filter(pc.invert(dropped)),
    }


def _values(table: pa.Table, column: str, stage: str, tuning: Tuning) -> np.ndarray:
    """The measured values of the items that reached a stage: float64."""
    if "stage" in table.column_names:
        stages = list(tuning.after.lineage["counts"])
        reached = stages[stages.index(stage) :] if stage in stages else []
        table = table.filter(pc.is_in(table["stage"], value_set=pa.array(reached, pa.string())))
    return np.asarray(pc.drop_null(table[column]).cast(pa.float64()).to_numpy())


def _section(title: str, rows: pa.Table, store: Store) -> Section:
    cells = []
    for row in rows.slice(0, _CELLS).to_pylist():
        digest = row["pixel_digest_after"] or row["pixel_digest_before"]
        path = store.thumbnails.path(digest) if digest else None
        cells.append(Cell(path, (row["item_id"], _caption(row)), mirrored=row["item_id"].endswith("+mirror")))
    shown = f", the nearest {_CELLS} shown" if len(rows) > _CELLS else ""
    return Section(f"{title}: {len(rows)}{shown}", cells)


def _caption(row: dict[str, Any]) -> str:
    if row["value"] is None or row["parameter"] is None:
        return str(row["cause"]).replace("_", " ")
    return f"{row['parameter'].rpartition('.')[2]}: {row['value']:.4g}"
