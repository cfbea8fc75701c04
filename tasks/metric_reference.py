"""Which real pictures a generator is measured against: a version or a folder, read as a training of its size does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from datasets.cache import MeasurementCache
from datasets.errors import KaobakoError, StoreError
from datasets.loader import PictureReader
from datasets.picture_folder import list_folder
from datasets.store import Store
from models.metrics.extractors import Extractor
from models.training.config import DatasetRef, TrainingConfig
from tasks.metric_features import FeatureSet, features_cache, measure_reals
from tasks.progress import Progress, ignore_progress
from tasks.train_data import FolderData, LabelTable, TrainingData, VersionData, find_data, read_data
from tasks.train_params import TrainParams

LEAST = 8  # real pictures: two halves of four


class MetricsError(KaobakoError):
    """What cannot be measured; says why, and what to do."""


@dataclass(frozen=True)
class Reference:
    """Real pictures to measure against, all of one size, never mirrored."""

    reader: PictureReader
    dataset: DatasetRef
    chosen: np.ndarray  # int64 (N,), ascending: all pictures, or a random part
    cache: Path  # folder of the cache that their features are kept in
    _measured: dict[str, FeatureSet] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def complete(self) -> bool:
        """Whether all pictures are compared with."""
        return len(self.chosen) == self.reader.count

    def measure(
        self, extractor: Extractor, progress: Progress, chosen: np.ndarray | None = None, mirrored: bool = False
    ) -> FeatureSet:
        """Their features, in order; or those of some of them, or of mirror images.

        Those of all are kept: they are a gigabyte for 300,000 pictures, and several ask for them.
        """
        if chosen is not None or mirrored:
            numbers = self.chosen if chosen is None else chosen
            return self._look(extractor, progress, numbers, mirrored)
        if extractor.digest not in self._measured:
            self._measured[extractor.digest] = self._look(extractor, progress, self.chosen, False)
        return self._measured[extractor.digest]

    def _look(self, extractor: Extractor, progress: Progress, numbers: np.ndarray, mirrored: bool) -> FeatureSet:
        cache: MeasurementCache = features_cache(self.cache, extractor, self.reader)
        return measure_reals(self.reader, numbers, extractor, cache, progress, mirrored)

    def origins(self) -> np.ndarray:
        """What each was derived from: str (N,), equal for a picture and all that were made of it."""
        return np.array([self.reader.origin(k) for k in self.chosen.tolist()])


def find_reference(store: Store, text: str) -> TrainingData:
    """NAME, NAME@V or a folder, as people name them. Raises StoreError or SourceError if it is neither."""
    folder = Path(text).expanduser()
    if folder.is_dir() and ("/" in text or text.partition("@")[0] not in store.dataset_names()):
        return FolderData(list_folder(folder))
    if "/" in text:
        raise StoreError(f"there is no folder {text}. Name a folder of pictures, or a version of the store: NAME@V")
    return find_data(store, text, None)


def find_trained_on(store: Store, home: Path, dataset: DatasetRef) -> TrainingData:
    """What a run was trained on. home: the run's folder. Raises MetricsError that says why it is not there."""
    known = read_data(home)
    if known.get("kind") == "folder":
        folder = Path(known["path"])
        if not folder.is_dir():
            raise MetricsError(f"{home.name} was trained on {folder}, which is gone")
        return FolderData(list_folder(folder))
    try:
        if not dataset.version:
            raise StoreError(f"nobody noted where {dataset} lies")
        found = find_data(store, str(dataset), None)
    except StoreError as error:
        raise MetricsError(f"the pictures that {home.name} was trained on are not here ({error})") from error
    return found


def find_labels(home: Path, data: TrainingData, config: TrainingConfig) -> LabelTable:
    """The labels that a conditional run was trained with, a row for each picture of its data."""
    said = read_data(home).get("labels") or {}
    labels = data.find_labels(said.get("source", "none"), said.get("tags", ()))
    if labels is None or len(labels.names) != config.labels:
        count = 0 if labels is None else len(labels.names)
        raise MetricsError(
            f"{home.name} is conditional, with {config.labels} values per label, and {data.reference} gives {count}: "
            "fakes need the labels that it was trained with"
        )
    return labels


def even_labels(count: int) -> LabelTable:
    """Each of so many classes once: for a network whose training nobody knows."""
    return LabelTable("none", tuple(map(str, range(count))), np.arange(count))


def open_reference(
    data: TrainingData, config: TrainingConfig, subset: int, home: Path, progress: Progress = ignore_progress
) -> Reference:
    """Look at the pictures, at the size of a training. subset: compare with so many at most, drawn at random.

    home: the folder of the run, in which features of plain folders are kept; those of a version are in its store.
    Raises StoreError or SourceError for pictures that do not fit, MetricsError for too few.
    """
    settings = TrainParams(cache_gb=0.0)
    report = partial(progress, f"files of {data.stem}")
    reader, dataset = data.open(config.model_copy(update={"mirror": False}), None, settings, report)
    return choose_reference(reader, dataset, subset, cache_folder(data, home))


def choose_reference(reader: PictureReader, dataset: DatasetRef, subset: int, cache: Path) -> Reference:
    """The same for pictures that were looked at."""
    if min(reader.count, subset) < LEAST:
        raise MetricsError(f"{dataset} gives {min(reader.count, subset)} pictures: figures need at least {LEAST}")
    chosen = np.arange(reader.count)
    if reader.count > subset:
        chosen = np.sort(np.random.default_rng(0).permutation(reader.count)[:subset])
    return Reference(reader, dataset, chosen, cache)


def cache_folder(data: TrainingData, home: Path) -> Path:
    """Where features of these pictures are kept: a folder's need no store."""
    return data.store.cache if isinstance(data, VersionData) else home / "cache"


def draw_labels(labels: LabelTable | None, count: int) -> np.ndarray | None:
    """Labels of fakes, float32 (count, values): those of the dataset in its order, again and again. None: none."""
    if labels is None:
        return None
    rows: Sequence[int] = np.arange(count) % len(labels.rows)  # type: ignore[assignment]
    return labels.encode(labels.rows[rows])
