"""What a training is fed with: a published version, or a plain folder of pictures; with labels, if asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from datasets.digests import digest_bytes, digest_json
from datasets.folder_labels import listed_labels, subfolder_labels
from datasets.labels import LabelError, class_labels, column_labels, tag_labels
from datasets.loader import FolderReader, PictureReader, VersionReader, usable_cores
from datasets.picture_folder import PictureFolder, Report, list_folder
from datasets.sources.files import LINK_OUTSIDE, readable_name
from datasets.store import Store
from datasets.version import Version, read_version
from models.augment.apply import apply_augmentation
from models.gan.pictures import resize
from models.training.config import DatasetRef, TrainingConfig
from tasks.train_params import LabelSource, TrainingError, TrainParams

DATA_FILE = "data.json"  # in a run's folder: where its pictures and labels come from


@dataclass(frozen=True)
class LabelTable:
    """A label per picture, in the order of the dataset."""

    source: LabelSource
    names: tuple[str, ...]  # of the values of a label: of classes, or of numbers
    rows: np.ndarray  # int64 (N,) of classes, or float32 (N, len(names))

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Some of the rows as training takes them: float32 (n, len(names)); a class is one-hot."""
        if rows.ndim == 2:
            return rows.astype(np.float32)
        labels = np.zeros((len(rows), len(self.names)), np.float32)
        labels[np.arange(len(rows)), rows] = 1.0
        return labels

    def describe(self) -> dict[str, Any]:
        """What a run's folder says of it."""
        digest = digest_json([list(self.names), list(self.rows.shape), digest_bytes(self.rows.tobytes())])
        return {"source": self.source, "names": list(self.names), "digest": digest}


class TrainingData(Protocol):
    """A dataset that was found, and not yet read."""

    @property
    def reference(self) -> str:
        """What it is, for people: faces@v7, or a folder."""

    @property
    def stem(self) -> str:
        """How names of runs on it begin."""

    @property
    def count(self) -> int:
        """Pictures."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of it is not trained on, and why; for people."""

    def find_labels(self, source: LabelSource, tags: Sequence[str]) -> LabelTable | None:
        """Its labels; None for source "none". Raises LabelError."""

    def open(
        self, config: TrainingConfig, labels: LabelTable | None, params: TrainParams, report: Report | None = None
    ) -> tuple[PictureReader, DatasetRef]:
        """A reader of it, and what it is to be called. Raises StoreError or SourceError if it cannot be trained on."""

    def describe(self) -> dict[str, Any]:
        """How it is found again."""


@dataclass(frozen=True)
class VersionData:
    """A published version."""

    store: Store
    version: Version

    @property
    def reference(self) -> str:
        return self.version.reference

    @property
    def stem(self) -> str:
        return f"{self.version.name}-v{self.version.number:04d}"

    @property
    def count(self) -> int:
        return len(self.version.manifest())

    @property
    def left_out(self) -> tuple[str, ...]:
        return ()

    def find_labels(self, source: LabelSource, tags: Sequence[str]) -> LabelTable | None:
        if source == "none":
            return None
        if source in ("folders", "file"):
            raise LabelError(f"labels={source} is for folders; a version has rating, class and tags.")
        manifest = self.version.manifest()
        if source == "rating":
            names, classes = column_labels(manifest, "rating")
            return LabelTable(source, _several(names, f"all of {self.reference} have one rating"), classes)
        if not tags:
            raise LabelError(f'labels={source} needs the tags: --set \'label_tags=["smile", "hat"]\'.')
        shown = tag_labels(manifest, tags)
        unused = [tag for tag, used in zip(tags, shown.sum(axis=0).tolist(), strict=True) if not used]
        if unused:
            raise LabelError(f"no picture of {self.reference} has the tag {', '.join(unused)}: see `kaobako tags`.")
        if source == "tags":
            return LabelTable(source, tuple(tags), shown)
        return LabelTable(source, _several(tuple(tags), "one tag was named"), class_labels(manifest, tags))

    def open(
        self, config: TrainingConfig, labels: LabelTable | None, params: TrainParams, report: Report | None = None
    ) -> tuple[PictureReader, DatasetRef]:
        if config.channels == 4:
            raise TrainingError("a version's pictures have no transparency: train on channels=3, or on a folder.")
        version = self.version
        reader = VersionReader(
            self.store,
            version,
            (config.height, config.width),
            resize,
            config.mirror,
            channels=config.channels,
            labels=None if labels is None else labels.rows,
            derive=apply_augmentation,
            workers=_threads(params),
            prefetch=params.prefetch,
            cache_bytes=round(params.cache_gb * 1e9),
        )
        return reader, DatasetRef(version.name, version.number, version.content_digest, reader.count)

    def describe(self) -> dict[str, Any]:
        return {"kind": "version", "reference": self.reference}


@dataclass(frozen=True)
class FolderData:
    """A plain folder of pictures."""

    folder: PictureFolder

    @property
    def reference(self) -> str:
        return str(self.folder.root)

    @property
    def stem(self) -> str:
        plain = "".join(
            char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in self.folder.name
        )
        return plain.strip("-_")[:60] or "pictures"

    @property
    def count(self) -> int:
        return len(self.folder.names)

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(f"{readable_name(name)}: {LINK_OUTSIDE}" for name in self.folder.outside)

    def find_labels(self, source: LabelSource, tags: Sequence[str]) -> LabelTable | None:
        if source == "none":
            return None
        if source == "folders":
            names, classes = subfolder_labels(self.folder)
            return LabelTable(source, _several(names, f"all of {self.reference} lie in one folder"), classes)
        if source == "file":
            names, rows = listed_labels(self.folder)
            names = _several(names, "dataset.json knows one class") if rows.ndim == 1 else names
            return LabelTable(source, names, rows)
        raise LabelError(f"labels={source} is for versions; a folder has folders and file (dataset.json).")

    def open(
        self, config: TrainingConfig, labels: LabelTable | None, params: TrainParams, report: Report | None = None
    ) -> tuple[PictureReader, DatasetRef]:
        reader = FolderReader(
            self.folder,
            (config.height, config.width),
            resize,
            config.mirror,
            channels=config.channels,
            labels=None if labels is None else labels.rows,
            workers=_threads(params),
            prefetch=params.prefetch,
            cache_bytes=round(params.cache_gb * 1e9),
            report=report,
        )
        return reader, DatasetRef(self.folder.name, 0, reader.digest, reader.count)

    def describe(self) -> dict[str, Any]:
        return {"kind": "folder", "path": str(self.folder.root.resolve())}


def find_data(store: Store, dataset: str, folder: Path | None) -> VersionData | FolderData:
    """The folder if there is one, else the version NAME or NAME@V. Raises StoreError or SourceError."""
    if folder is not None:
        return FolderData(list_folder(folder.expanduser()))
    return VersionData(store, read_version(store, dataset))


def read_data(folder: Path) -> dict[str, Any]:
    """What a run's folder says of where its pictures and labels come from; empty for a folder that says nothing.

    Raises TrainingError if it cannot be read.
    """
    path = folder / DATA_FILE
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read {path}: {error}") from error
    return said


def _several(names: tuple[str, ...], because: str) -> tuple[str, ...]:
    if len(names) < 2:
        raise LabelError(f"{because}: there is nothing to tell apart. Train without labels.")
    return names


def _threads(params: TrainParams) -> int:
    """Threads that decode: as asked, else the cores that this process has among those that torchrun started here."""
    return params.workers or max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
