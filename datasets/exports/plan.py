"""What is to be exported: a version, its pictures' names and labels, the format's settings, and where to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import KaobakoError
from datasets.exports.format import Format
from datasets.labels import class_labels, column_labels, tag_labels
from datasets.splits import assign_splits
from datasets.store import Store
from datasets.version import MANIFEST_FILE, Version

LAYOUT = 2  # raised when an export's bytes change, so that an unfinished one of an older layout is not continued

# A crop_id of a booru, or of a file with a plain name, reads well as it is. With every other character as "_" it still
# says what it was: dots are before the number, "#" right before it, "+" and letters after it.
_PLAIN = re.compile(r"[a-z0-9][a-z0-9.-]{0,66}#\d{1,6}(\+[a-z]{1,20})?", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9-]")


class ExportError(KaobakoError):
    """An export cannot be made, or was stopped by something that must be mended first."""


def safe_name(crop_id: str) -> str:
    """A crop_id as a file name without a suffix: letters, digits, - and _ alone, at most 95 long.

    With a suffix it fits into the 100 bytes that the oldest kind of tar has for a name.
    A function of the crop_id alone: `123#0` is `123_0` in every version. Two crop_ids do not share a name, case told
    apart or not: what is not plain carries 64 bits of its SHA-256.
    """
    text = _UNSAFE.sub("_", crop_id)
    if _PLAIN.fullmatch(crop_id):
        return text
    return f"{text.lstrip('-')[:78] or 'crop'}-{hashlib.sha256(crop_id.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class ExportSettings:
    """How an export is cut up. Only sharded formats look at the shards, only those of plain pictures at `link`.

    shard_pictures, shard_bytes: a shard is full when one of them is reached; bytes count pictures alone.
    link: hard links to the store's blobs where the file system allows it, else copies.
    """

    shard_pictures: int = 10_000
    shard_bytes: int = 500_000_000
    link: bool = False  # safe: an editor that writes in place would change the store's own file

    def __post_init__(self) -> None:
        if self.shard_pictures < 1 or self.shard_bytes < 1:
            raise ExportError(
                f"a shard must hold at least 1 picture and 1 byte, not {self.shard_pictures} and {self.shard_bytes}"
            )


@dataclass(frozen=True)
class Labels:
    """One label per picture: a class, or a vector of tags.

    names: the classes, or the tags, in the order of their indices.
    values: int64 (N,) for classes (-1 none, -2 several), float32 (N, len(names)) for tags.
    column: of the manifest, whose values the classes are; None for classes that are tags.
    unused: the names that no picture of the whole version has; a part of a split may lack others.
    """

    kind: str  # "classes" | "tags"
    names: tuple[str, ...]
    values: np.ndarray
    column: str | None = None
    unused: tuple[str, ...] = ()

    @classmethod
    def make(cls, kind: str, names: tuple[str, ...], values: np.ndarray, column: str | None = None) -> Labels:
        """Labels of a whole version."""
        used = np.any(values, axis=0) if kind == "tags" else np.isin(np.arange(len(names)), values)
        unused = tuple(name for name, seen in zip(names, used.tolist(), strict=True) if not seen)
        return cls(kind, names, values, column, unused)

    def of(self, row: int) -> int | list[float]:
        """A picture's label as StyleGAN's dataset.json has it: a class, or a list of 0.0 and 1.0."""
        label: int | list[float] = self.values[row].tolist()
        return label

    def vectors(self) -> np.ndarray:
        """float32 (N, len(names)): tags as they are, classes one-hot."""
        if self.kind == "tags":
            return self.values.astype(np.float32)
        return np.eye(len(self.names), dtype=np.float32)[self.values]

    def indices(self, row: int) -> list[int]:
        """The tags that a picture has, as indices of `names`."""
        found: list[int] = np.flatnonzero(self.values[row]).tolist()
        return found


def make_labels(
    manifest: pa.Table, tags: tuple[str, ...] = (), classes: tuple[str, ...] = (), column: str | None = None
) -> Labels | None:
    """Labels from the tags of a manifest, or from a column of strings; None when none of them is named.

    Raises ExportError when several are named, LabelError for a tag that is named twice and a column without strings.
    """
    if bool(tags) + bool(classes) + (column is not None) > 1:
        raise ExportError("labels are tags or classes: give one of --labels-tag, --classes, --classes-from, not both")
    if column is not None:
        return Labels.make("classes", *column_labels(manifest, column), column)
    if tags:
        return Labels.make("tags", tags, tag_labels(manifest, list(tags)))
    if classes:
        return Labels.make("classes", classes, class_labels(manifest, list(classes)))
    return None


@dataclass(frozen=True)
class Part:
    """One side of a split (datasets.splits): its name, and the draw that it is of."""

    name: str
    fractions: Mapping[str, float]
    seed: int = 0

    def place(self, out: Path) -> Path:
        """Where this part goes, beside the others: faces-train.zip for faces.zip."""
        return out.with_name(f"{out.stem}-{self.name}{out.suffix}")


@dataclass(frozen=True)
class ExportPlan:
    """Everything that an export's bytes depend on, and where they go."""

    store: Store
    version: Version
    format: Format
    out: Path
    manifest: pa.Table
    labels: Labels | None = None
    settings: ExportSettings = field(default_factory=ExportSettings)
    part: Part | None = None  # the manifest and the labels are this part's alone

    def __len__(self) -> int:
        return len(self.manifest)

    @cached_property
    def crop_ids(self) -> list[str]:
        ids: list[str] = self.manifest["crop_id"].to_pylist()
        return ids

    @cached_property
    def blobs(self) -> list[str]:
        digests: list[str] = self.manifest["blob"].to_pylist()
        return digests

    @cached_property
    def names(self) -> list[str]:
        """File names without suffix, one per row; unique unless the manifest's crop_ids are not."""
        return [safe_name(crop_id) for crop_id in self.crop_ids]

    def describe(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What makes two exports the same: it travels with the export, and an unfinished one is resumed by it.

        settings: those that the format's bytes depend on.
        """
        labels: dict[str, Any] | None = None
        if self.labels is not None:
            labels = {"kind": self.labels.kind, "names": list(self.labels.names), "column": self.labels.column}
        part = {} if self.part is None else {"part": asdict(self.part)}
        return {
            "made_by": "kaobako",
            "layout": LAYOUT,
            "format": self.format.value,
            "version": self.version.reference,
            "content_digest": self.version.content_digest,
            "manifest_digest": self.version.lineage.get("files", {}).get(MANIFEST_FILE),
            "pictures": len(self),
            "labels": labels,
            "settings": settings,
            **part,
        }


def plan_export(
    store: Store,
    version: Version,
    file_format: Format,
    out: Path,
    tags: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
    settings: ExportSettings | None = None,
    column: str | None = None,
    part: Part | None = None,
) -> ExportPlan:
    """A plan for a version of `store`. tags: a vector label of these; classes: one class of these per picture.

    column: the values of this column are the classes. part: that side of a split alone, at its own place beside `out`;
    classes have the same numbers in all parts. Raises ExportError for labels that contradict each other, for a part
    that no picture falls to, and for an `out` without a name, SplitError for fractions that cannot be used, StoreError
    when the version's manifest was changed or cannot be read.
    """
    out = Path(out).expanduser().absolute()
    if out.name in ("", ".."):
        raise ExportError(f"{out} is no name for something new: give --out a folder or a file that is to be made")
    manifest = version.sound_manifest()
    labels = make_labels(manifest, tags, classes, column)
    if part is not None:
        out = part.place(out)
        mask = pc.equal(assign_splits(manifest, part.fractions, part.seed), part.name)
        manifest = manifest.filter(mask)
        if labels is not None:
            labels = replace(labels, values=labels.values[mask.to_numpy(zero_copy_only=False)])
        if len(manifest) == 0:
            raise ExportError(f"no picture falls to {part.name!r}: make its fraction larger, or leave it out")
    return ExportPlan(store, version, file_format, out, manifest, labels, settings or ExportSettings(), part)
