"""Labels out of tags and columns: what a manifest says, as the numbers that training, grouping and exports take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import KaobakoError

NO_CLASS = -1  # none of the tags, or a null
SEVERAL_CLASSES = -2  # more than one of them


class LabelError(KaobakoError):
    """Tags, or a column, that labels cannot be made of; or labels that cannot be trained on."""


def tag_labels(manifest: pa.Table, tags: Sequence[str]) -> np.ndarray:
    """Which of `tags` each row has: float32 (N, len(tags)), 0 or 1, rows and columns in the given order.

    manifest: a table with a `tags` column (list of strings); a null list counts as no tags. A tag that no row has is a
    column of zeros. Raises LabelError when a tag is named twice.
    """
    rows, columns = _find_tags(manifest, tags)
    labels = np.zeros((len(manifest), len(tags)), np.float32)
    labels[rows, columns] = 1.0
    return labels


def class_labels(manifest: pa.Table, tags: Sequence[str]) -> np.ndarray:
    """The one of `tags` that each row has, as its index: int64 (N,); NO_CLASS for none, SEVERAL_CLASSES for several.

    manifest: a table with a `tags` column (list of strings); a null list counts as no tags. Raises LabelError when a
    tag is named twice.
    """
    rows, columns = _find_tags(manifest, tags)
    labels = np.full(len(manifest), NO_CLASS, np.int64)
    labels[rows] = columns
    labels[np.bincount(rows, minlength=len(manifest)) > 1] = SEVERAL_CLASSES
    return labels


def column_labels(manifest: pa.Table, column: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The distinct values of a column of strings, sorted, and which of them each row has.

    The rows are int64 (N,): an index of the values, NO_CLASS where the column is null. Raises LabelError when there is
    no such column, or when it does not hold strings.
    """
    strings = [field.name for field in manifest.schema if pa.types.is_string(field.type)]
    if column not in strings:
        what = "does not hold words" if column in manifest.column_names else "is not in the manifest"
        raise LabelError(f"classes cannot be made of {column}: it {what}. Name one of {', '.join(strings)}.")
    values: list[str] = sorted(pc.unique(manifest[column].drop_null()).to_pylist())
    found = pc.index_in(manifest[column], value_set=pa.array(values, pa.string()), skip_nulls=True)
    return tuple(values), pc.fill_null(found, NO_CLASS).to_numpy().astype(np.int64)


def _find_tags(manifest: pa.Table, tags: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Where the tags occur: int64 row and tag indices, each pair once, by row and tag."""
    twice = sorted(tag for tag, count in Counter(tags).items() if count > 1)
    if twice:
        raise LabelError(f"the tags {', '.join(twice)} are named more than once: name each label once.")
    wanted = pa.array(list(tags), pa.string())
    pairs = [np.empty(0, np.int64)]
    first_row = 0
    for chunk in manifest["tags"].chunks:
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(first_row, first_row + len(chunk)), lengths)
        found = pc.index_in(pc.list_flatten(chunk), value_set=wanted)  # null for every other tag, and for a null
        columns = pc.drop_null(found).to_numpy(zero_copy_only=False)
        pairs.append(rows[pc.is_valid(found).to_numpy(zero_copy_only=False)] * len(tags) + columns)
        first_row += len(chunk)
    unique = np.unique(np.concatenate(pairs))  # a row may name a tag twice
    return np.divmod(unique, max(1, len(tags)))
