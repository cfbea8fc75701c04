"""Labels of a plain folder's pictures: its sub-folders, or a dataset.json as the StyleGAN tools write it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from datasets.labels import NO_CLASS, LabelError
from datasets.picture_folder import PictureFolder
from datasets.sources.files import LINK_OUTSIDE, readable_name

LABEL_FILE = "dataset.json"
MOST_CLASSES = 65_536  # a number beyond is no class: one label would take more room than its picture
_NAMED = 5  # pictures in a message


def subfolder_labels(folder: PictureFolder) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the top folders, sorted, and which of them each picture lies in: int64 (N,).

    NO_CLASS for a picture that lies in none. Raises LabelError where there is no sub-folder.
    """
    tops = [name.partition("/")[0] if "/" in name else None for name in folder.names]
    classes = sorted({top for top in tops if top is not None})
    if not classes:
        raise LabelError(
            f"classes cannot be made of folders: all pictures lie in {folder.root} itself, in no sub-folder."
        )
    places = {name: place for place, name in enumerate(classes)}
    rows = np.array([NO_CLASS if top is None else places[top] for top in tops], np.int64)
    return tuple(readable_name(name) for name in classes), rows


def listed_labels(folder: PictureFolder) -> tuple[tuple[str, ...], np.ndarray]:
    """What dataset.json says: {"labels": [[name, label], ...]}, names relative to the folder.

    Labels are class numbers from 0 on, giving int64 (N,), or equally long lists of numbers, giving float32 (N, L).
    Also returns a name per class or value, "0", "1", …. Entries of pictures that are not there are passed over.
    Raises LabelError for a file that is missing or says something else, and for pictures without a label.
    """
    labels = _read_label_file(folder)
    missing = [name for name in folder.names if name not in labels]
    if missing:
        raise LabelError(
            f"{LABEL_FILE} has no label for {len(missing)} of {len(folder.names)} pictures of {folder.root} "
            f"({_some(missing)}). Add them, or take these pictures out of the folder."
        )
    values = [labels[name] for name in folder.names]
    if all(_is_class(value) for value in values):
        rows = np.array(values, np.int64)
        return tuple(map(str, range(int(rows.max()) + 1))), rows
    length = len(values[0]) if isinstance(values[0], list) else 0
    wrong = [name for name, value in zip(folder.names, values, strict=True) if not _is_vector(value, length)]
    if wrong or not length:
        raise LabelError(
            f"the labels in {LABEL_FILE} must all be class numbers of 0 to {MOST_CLASSES - 1}, or all equally long "
            f"lists of numbers; look at {_some(wrong or list(folder.names))}."
        )
    return tuple(map(str, range(length))), np.array(values, np.float32)


def _read_label_file(folder: PictureFolder) -> Mapping[str, Any]:
    path = folder.root / LABEL_FILE
    if LABEL_FILE in folder.outside:
        raise LabelError(f"{path} is {LINK_OUTSIDE}")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabelError(
            f'there is no {path}: write {{"labels": [["a.png", 0], ...]}} into it, or take folders.'
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise LabelError(f"{path} cannot be read: {error}") from error
    listed = said.get("labels") if isinstance(said, dict) else None
    if not isinstance(listed, list) or not listed:
        raise LabelError(f'{path} has no labels: it must say {{"labels": [["a.png", 0], ...]}}')
    labels: dict[str, Any] = {}
    for entry in listed:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise LabelError(f"{path}: every label must be [name, label], not {json.dumps(entry)[:80]}")
        name = entry[0].replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/"):
            raise LabelError(f"{path}: {name!r} does not lie in the folder: name pictures relative to it")
        if name in labels and labels[name] != entry[1]:
            raise LabelError(f"{path} gives {name!r} two labels: {labels[name]} and {entry[1]}")
        labels[name] = entry[1]
    return labels


def _is_class(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_CLASSES


def _is_vector(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(_is_number(one) for one in value)


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and abs(value) <= float(np.finfo(np.float32).max)


def _some(names: list[str]) -> str:
    return ", ".join(map(readable_name, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")
