"""Image folder of Hugging Face (metadata.jsonl) and torchvision (one folder per class)."""

from __future__ import annotations

from pathlib import Path

from datasets.atomic import write_atomically, write_text
from datasets.exports.base import Job, finish_folder, label_columns, metadata_rows, to_json
from datasets.exports.card import CARD, LOAD, one_split, write_export_card
from datasets.exports.pictures import PictureFolder
from datasets.exports.plan import ExportPlan, safe_name

METADATA = "metadata.jsonl"


class ImageFolder(PictureFolder):
    """Pictures, below a folder per class if there are classes; metadata.jsonl, README.md, kaobako.json."""

    def stem(self, plan: ExportPlan, row: int) -> str:
        name = super().stem(plan, row)
        if plan.labels is None or plan.labels.kind != "classes":
            return name
        return f"{class_folder(plan.labels.names[plan.labels.values[row]])}/{name}"

    def write(self, job: Job) -> Path:
        plan, content = job.plan, job.staging.content
        places = self.write_pictures(job)
        write_atomically(content / METADATA, lambda path: _write_metadata(plan, places, path))
        write_text(content / CARD, write_export_card(plan, LOAD, one_split("**")))
        return finish_folder(job, self, places)


def _write_metadata(plan: ExportPlan, places: list[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        for row, columns in enumerate(metadata_rows(plan.manifest)):
            stream.write(to_json({"file_name": places[row], **columns, **label_columns(plan.labels, row)}) + "\n")


def class_folder(name: str) -> str:
    """A class as a folder's name: tags such as `blue_hair` as they are, anything else made safe."""
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() and name.islower() and len(name) < 100 else safe_name(name)
