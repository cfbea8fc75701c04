"""The card of a version: what is in it, what is out and why, in figures and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from datasets.derived import find_derived
from datasets.errors import KaobakoError
from datasets.histograms import draw_histograms
from datasets.pictures import Defect
from datasets.sheets import Cell, draw_sheet, reduce_picture, save_sheet
from datasets.sources.read import locate
from datasets.store import Store
from datasets.thumbnails import SIDE

SHEETS = "sheets"
_SAMPLES = 64
_PER_REASON = 8
_WITHOUT_PICTURE = frozenset(set(Defect) - {Defect.ANIMATED})
_UNSEEN = "filter"  # the stage that judges metadata alone: nobody ever opened what it dropped
_MIRROR = "mirror"


@dataclass
class CardWriter:
    """Writes README.md and its pictures into a version's folder.

    Pictures are drawn from the store's thumbnails. Where one is missing (a store from before there were any, or they
    were deleted), the picture itself is opened, once: its thumbnail is kept from then on.
    """

    store: Store
    source_root: Path
    opened: int = 0  # pictures that had no thumbnail

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
        kept = manifest.filter(pa.array(~find_derived(manifest)))
        sheets = [("Published pictures", "kept", self.kept_cells(spread(kept, _SAMPLES), ()))]
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
            cells.append(self.kept_cell(row, caption))
        return cells

    def kept_cell(self, row: dict[str, Any], caption: tuple[str, ...] = ()) -> Cell:
        """A MANIFEST row as the thumbnail of its crop; a mirror image as that of its parent, turned round."""
        if row["augmentation"] not in (None, _MIRROR):  # the crop's thumbnail does not show it, nor it the crop
            return Cell(self.open_instead(None, self.blob_path(row["blob"])), (*caption, row["augmentation"]))
        digest, mirrored = row["pixel_digest"], row["augmentation"] == _MIRROR
        path = self.store.thumbnails.path(digest)
        if path is None:
            blob = self.blob_path(row["blob"])
            if not shows_whole_crop(row):  # then it may be drawn, but is not the crop's thumbnail
                return Cell(self.open_instead(None, blob), caption)
            path = self.open_instead(digest, blob, mirrored)
        return Cell(path, caption, mirrored)

    def dropped_cells(self, ledger: pa.Table, stages: list[str]) -> list[Cell]:
        """A few items of each stage and reason, the borderline ones first where there is a threshold.

        Of files that give no picture, one of each reason is enough. What fell by its metadata alone is left out: to
        show it, files would have to be opened that the recipe does not want.
        """
        cells: list[Cell] = []
        keys = sorted(set(zip(ledger["stage"].to_pylist(), ledger["reason"].to_pylist(), strict=True)))
        for stage, reason in sorted(keys, key=lambda key: (stages.index(key[0]), key[1])):
            if stage == _UNSEEN:
                continue
            chosen = ledger.filter(pc.and_(pc.equal(ledger["stage"], stage), pc.equal(ledger["reason"], reason)))
            count = 1 if reason in _WITHOUT_PICTURE else _PER_REASON
            for row in spread(borderline_first(chosen), count).to_pylist():
                cells.append(Cell(self.dropped_path(row), (f"{stage}: {reason}", explain(row))))
        return cells

    def dropped_path(self, row: dict[str, Any]) -> Path | None:
        """What is drawn of a LEDGER row: its crop, or its source picture when it never became a crop."""
        digest = row["pixel_digest"] or row.get("file_digest")  # versions of old have no file_digest
        if (path := self.store.thumbnails.path(digest)) is not None or row["reason"] in _WITHOUT_PICTURE:
            return path
        if row["pixel_digest"]:
            return self.open_instead(digest, self.blob_path(row["crop_blob"]))
        if not row["source_path"]:
            return None
        try:
            return self.open_instead(digest, locate(self.source_root, row["source_path"]))
        except KaobakoError:
            return None

    def open_instead(self, digest: str | None, picture: Path | None, mirrored: bool = False) -> Path | None:
        """Open a picture for want of a thumbnail, and return the one made of it; without a digest, the picture.

        mirrored: the file holds the mirror image of what the digest names. None: the file cannot be read.
        """
        if picture is None or not picture.is_file():
            return None
        self.opened += 1
        if digest is None:
            return picture
        reduced = reduce_picture(picture, SIDE)
        if reduced is None:
            return None
        if mirrored:
            reduced = reduced.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        self.store.thumbnails.put(digest, np.asarray(reduced))
        return self.store.thumbnails.path(digest)

    def blob_path(self, digest: str | None) -> Path | None:
        try:
            return self.store.blobs.path(digest) if digest else None
        except KaobakoError:
            return None


def shows_whole_crop(row: dict[str, Any]) -> bool:
    """Whether a published picture has the shape of its crop; else upscaling took its middle, or added bars."""
    sizes = [row[name] for name in ("width", "height", "box_w", "box_h")]
    return None not in sizes and sizes[0] * sizes[3] == sizes[1] * sizes[2]


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
