"""A plain folder: pictures and manifest.csv, for people, spreadsheets and everything that has no format of its own."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from datasets.atomic import write_atomically
from datasets.exports.base import Job, finish_folder, label_columns, metadata_rows, to_json
from datasets.exports.pictures import PictureFolder
from datasets.exports.plan import ExportPlan

MANIFEST_CSV = "manifest.csv"


class PlainFolder(PictureFolder):
    """Pictures, manifest.csv (column `file` first) and kaobako.json."""

    def write(self, job: Job) -> Path:
        plan, content = job.plan, job.staging.content
        places = self.write_pictures(job)
        write_atomically(content / MANIFEST_CSV, lambda path: _write_csv(plan, places, path))
        return finish_folder(job, self, places)


def _write_csv(plan: ExportPlan, places: list[str], path: Path) -> None:
    extra = [] if plan.labels is None else ["label" if plan.labels.kind == "classes" else "labels"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["file", *plan.manifest.column_names, *extra], lineterminator="\n")
        writer.writeheader()
        for row, columns in enumerate(metadata_rows(plan.manifest)):
            cells = {"file": places[row], **columns, **label_columns(plan.labels, row)}
            writer.writerow({name: _as_cell(value) for name, value in cells.items()})


def _as_cell(value: Any) -> Any:
    """A value as one CSV cell: tags with spaces between, landmarks as JSON."""
    if isinstance(value, list):
        return " ".join(value) if all(isinstance(item, str) for item in value) else to_json(value)
    return value
