"""README.md of the exports for Hugging Face: a YAML head that its hub reads, and where the pictures come from."""

from __future__ import annotations

import json
from typing import Any

from datasets.exports.plan import ExportPlan

CARD = "README.md"
LOAD = 'load_dataset("PATH/OF/THIS/FOLDER", split="train")'
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def one_split(path: str) -> list[dict[str, Any]]:
    """Configs that say which files are the data, all of them for training.

    Unsaid, Hugging Face would look for splits in the names of files and folders, where `test` or `dev` is a tag.
    """
    return [{"config_name": "default", "data_files": [{"split": "train", "path": path}]}]


def write_export_card(plan: ExportPlan, load: str, configs: list[dict[str, Any]] | None = None) -> str:
    """The card's text. load: the expression that opens the export. configs: which files are which split."""
    labelled = plan.labels is not None
    head: dict[str, Any] = {
        "pretty_name": plan.version.name,
        "size_categories": [next((text for limit, text in _SIZES if len(plan) < limit), "10M<n<100M")],
        "task_categories": ["image-classification" if labelled else "unconditional-image-generation"],
        "tags": ["kaobako"],
    }
    if configs:
        head["configs"] = configs
    # JSON values are YAML values, so nothing needs to be quoted by hand
    yaml = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items())
    lines = [
        f"---\n{yaml}\n---",
        f"# {plan.version.name}",
        f"{len(plan)} pictures: version `{plan.version.reference}` of a Kaobako store, "
        f"content digest `{plan.version.content_digest}`.",
        "Pictures are the published ones, byte by byte; `blob` is the SHA-256 of a picture's file, `crop_id` names it "
        "in the store. No licence is given here: the pictures belong to their authors.",
        f"```python\nfrom datasets import load_dataset\n\ndataset = {load}\n```",
    ]
    if plan.labels is not None:
        lines.append(f"Labels ({plan.labels.kind}): " + ", ".join(f"`{name}`" for name in plan.labels.names))
    return "\n\n".join(lines) + "\n"
