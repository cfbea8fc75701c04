"""The card of a version: what is in it, what is out and why, in figures and pictures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import KaobakoError
from datasets.pictures import Defect
from datasets.sheets import Cell, draw_sheet, save_sheet
from datasets.sources.config import Problem
from datasets.sources.read import locate
from datasets.store import Store

SHEETS = "sheets"
_SAMPLES = 64
_PER_REASON = 8
_WITHOUT_PICTURE = frozenset({*Defect, *Problem} - {Defect.ANIMATED, Problem.NO_METADATA})
_HISTOGRAMS = ("blur", "colours", "saturation", "detector_score", "box_w", "d_score")


@dataclass(frozen=True)
class CardWriter:
    """Writes README.md and its pictures into a version's folder."""

    store: Store
    source_root: Path

    def __call__(self, folder: Path, manifest: pa.Table, ledger: pa.Table, lineage: dict[str, Any]) -> None:
        sections = [_header(lineage), _count_table(lineage["counts"])]
        for title, name, cells in self.sheets(manifest, ledger, list(lineage["counts"])):
            if cells:
                save_sheet(draw_sheet(cells), folder / SHEETS / f"{name}.jpg")
                sections.append(f"## {title}\n\n![{title}]({SHEETS}/{name}.jpg)")
        if len(manifest):
            (folder / SHEETS).mkdir(exist_ok=True)
            (folder / SHEETS / "measurements.png").write_bytes(draw_histograms(manifest, ledger))
            sections.append(f"## Measurements\n\nKept in blue, dropped in red.\n\n![]({SHEETS}/measurements.png)")
        sections.append(_how_made(lineage))
        (folder / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")

    def sheets(self, manifest: pa.Table, ledger: pa.Table, stages: list[str]) -> list[tuple[str, str, list[Cell]]]:
        """(title, file name, cells) of every contact sheet; empty ones included. stages: in pipeline order."""
        sheets = [("Published pictures", "kept", self.kept_cells(spread(manifest, _SAMPLES), ()))]
        if manifest["d_score"].null_count < len(manifest):
            originals = manifest.filter(pc.is_null(manifest["augmentation"]))
            ranked = originals.sort_by([("d_score", "ascending"), ("crop_id", "ascending")])
            lowest, highest = ranked.slice(0, _SAMPLES), ranked.slice(max(0, len(ranked) - _SAMPLES))
            sheets.append(("Lowest ranked", "lowest", self.kept_cells(lowest, ("d_score",))))
            sheets.append(("Highest ranked", "highest", self.kept_cells(highest, ("d_score",))))
        sheets.append(("Dropped, by stage and reason", "dropped", self.dropped_cells(ledger, stages)))
        return sheets

    def kept_cells(self, rows: pa.Table, captions: tuple[str, ...]) -> list[Cell]:
        cells = []
        for row in rows.to_pylist():
            caption = tuple(f"{row[name]:.3g}" for name in captions if row[name] is not None)
            cells.append(Cell(self.blob_path(row["blob"]), caption))
        return cells

    def dropped_cells(self, ledger: pa.Table, stages: list[str]) -> list[Cell]:
        """A few items of each stage and reason, the borderline ones first where there is a threshold.

        Of files that give no picture, one of each reason is enough.
        """
        cells: list[Cell] = []
        keys = sorted(set(zip(ledger["stage"].to_pylist(), ledger["reason"].to_pylist(), strict=True)))
        for stage, reason in sorted(keys, key=lambda key: (stages.index(key[0]), key[1])):
            chosen = ledger.filter(pc.and_(pc.equal(ledger["stage"], stage), pc.equal(ledger["reason"], reason)))
            count = 1 if reason in _WITHOUT_PICTURE else _PER_REASON
            for row in spread(borderline_first(chosen), count).to_pylist():
                cells.append(Cell(self.dropped_path(row), (f"{stage}: {reason}", explain(row))))
        return cells

    def blob_path(self, digest: str | None) -> Path | None:
        try:
            return self.store.blobs.path(digest) if digest else None
        except KaobakoError:
            return None

    def dropped_path(self, row: dict[str, Any]) -> Path | None:
        """The crop of a dropped item, or its source picture when it never became a crop."""
        blob = self.blob_path(row["blob"]) or self.blob_path(row["crop_blob"])
        if blob is not None or not row["source_path"] or row["reason"] in _WITHOUT_PICTURE:
            return blob
        try:
            return locate(self.source_root, row["source_path"])
        except KaobakoError:
            return None


def explain(row: dict[str, Any]) -> str:
    """A ledger row's figures or words, short enough for a caption: `2.38, limit 60`, `of 123#0, 2 bits`."""
    if row["related"]:
        return f"of {row['related']}" + ("" if row["value"] is None else f", {row['value']:.0f} bits")
    if row["value"] is not None and row["threshold"] is not None:
        return f"{row['value']:.4g}, limit {row['threshold']:.4g}"
    return row["detail"] or ""


def borderline_first(rows: pa.Table) -> pa.Table:
    """Rows in order of their distance from the threshold; those without one by name."""
    gap = pc.abs(pc.subtract(rows["value"], rows["threshold"]))
    return rows.append_column("gap", gap).sort_by([("gap", "ascending"), ("item_id", "ascending")])


def spread(rows: pa.Table, count: int) -> pa.Table:
    """At most `count` rows, evenly spaced over the table, the first one included."""
    if len(rows) <= count:
        return rows
    return rows.take(pa.array([index * len(rows) // count for index in range(count)]))


def draw_histograms(manifest: pa.Table, ledger: pa.Table) -> bytes:
    """Histograms of the measurements over kept and dropped items, as PNG."""
    from matplotlib.figure import Figure

    names = [name for name in _HISTOGRAMS if manifest[name].null_count < len(manifest)]
    figure = Figure(figsize=(3.2 * max(1, len(names)), 2.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, max(1, len(names)), squeeze=False)[0], names, strict=False):
        kept = pc.drop_null(manifest[name]).to_numpy()
        dropped = pc.drop_null(ledger[name]).to_numpy()
        axes.hist([kept, dropped], bins=30, stacked=True, color=["#4472c4", "#c44e52"])
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90, metadata={"Software": None})
    return buffer.getvalue()


def _header(lineage: dict[str, Any]) -> str:
    published = list(lineage["counts"].values())[-1]["kept"] if lineage["counts"] else 0
    return (
        f"# {lineage['version']}\n\n"
        f"{published} pictures from {lineage['posts']} posts. Parent: {lineage['parent'] or 'none'}.\n\n"
        f"Content digest `{lineage['content_digest']}`."
    )


def _count_table(counts: dict[str, dict[str, Any]]) -> str:
    lines = ["## Stages", "", "| stage | in | kept | dropped | reasons |", "|---|---:|---:|---:|---|"]
    for stage, row in counts.items():
        split = f" (from {row['inputs']})" if row["inputs"] != row["in"] else ""
        reasons = ", ".join(f"{reason} {count}" for reason, count in row["dropped"].items())
        lines.append(f"| {stage} | {row['in']}{split} | {row['kept']} | {sum(row['dropped'].values())} | {reasons} |")
    return "\n".join(lines)


def _how_made(lineage: dict[str, Any]) -> str:
    weights = "\n".join(f"| {name} | `{digest[:16]}…` |" for name, digest in sorted(lineage["weights"].items()))
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(lineage["libraries"].items()))
    notes = "\n".join(f"- {note}" for note in lineage["notes"])
    table = f"| weights | SHA-256 |\n|---|---|\n{weights}\n\n" if weights else ""
    return f"## How it was made\n\n{table}{notes}\n\nLibraries: {libraries}. Everything else is in `version.json`."
