"""Train: a GAN on a version or on a folder of pictures, tied to its digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.atomic import make_folder, write_text
from datasets.errors import StoreError
from datasets.loader import Batch, PictureReader
from datasets.picture_folder import Report, list_folder
from datasets.store import Store
from models.interchange.imported_run import ORIGIN_FILE
from models.metrics.extractors import Extractor
from models.training.atomic import sha256
from models.training.config import DatasetRef, TrainingConfig
from models.training.distributed import find_workers, joined_workers
from models.training.run import RunFolder, find_snapshot
from models.training.snapshot import read_record, weights_path
from models.training.trainer import TrainingProgress, TrainingResult, train
from tasks.metric_lines import load_training_extractor, make_evaluator
from tasks.metric_reference import cache_folder
from tasks.train_data import DATA_FILE, FolderData, LabelTable, TrainingData, VersionData, find_data, read_data
from tasks.train_params import Preset, TrainingError, TrainParams

__all__ = [
    "OpenTraining",
    "Preset",
    "TrainParams",
    "TrainingError",
    "TrainingJob",
    "name_run",
    "open_training",
    "plan_training",
    "run_training",
]


@dataclass(frozen=True)
class TrainingJob:
    """What is trained on what, and where it goes."""

    data: TrainingData
    labels: LabelTable | None
    params: TrainParams
    config: TrainingConfig
    folder: Path
    resume: bool
    transfer: Path | None = None  # run or snapshot that a new run begins with
    allow_other_dataset: bool = False
    weights: tuple[Path, ...] = ()  # folders to look for a metric's network in

    @property
    def reference(self) -> str:
        """The dataset, for people."""
        return self.data.reference

    @property
    def from_folder(self) -> bool:
        """Whether the pictures lie in a plain folder."""
        return isinstance(self.data, FolderData)


@dataclass(frozen=True)
class OpenTraining:
    """A job whose pictures were looked at."""

    job: TrainingJob
    reader: PictureReader
    dataset: DatasetRef
    extractor: Extractor | None = None  # of the metrics, where those are asked for


def plan_training(
    store: Store,
    dataset: str,
    params: TrainParams,
    run: str = "",
    resume: bool = False,
    *,
    data: Path | None = None,
    out: Path | None = None,
    allow_other_dataset: bool = False,
) -> TrainingJob:
    """A new run on a version or a folder, or the rest of an old one. Looks at names and sizes of files only.

    dataset: NAME or NAME@V. data: instead, a folder of pictures. A resumed run has its own data; another is taken if
    named and allowed. run: its id in the store; "" names a new one. out: instead, the run's folder anywhere.
    Raises StoreError, SourceError, LabelError, TrainingError, models' RunError.
    """
    if run and out is not None:
        raise TrainingError("name the run by --run ID (in the store) or by --out FOLDER, not by both")
    if resume:
        folder = _find_run(store, run, out)
        return _plan_resume(store, dataset, params, folder, data, allow_other_dataset)
    world = find_workers().world
    if world > 1 and not run and out is None:
        raise TrainingError("several processes must write into one run: name it by --out FOLDER or --run ID")
    found = find_data(store, dataset, data)
    labels = found.find_labels(params.labels, params.label_tags)
    transfer = _find_transfer(store, params.transfer)
    config = params.resolve(
        len(labels.names) if labels else 0, None if transfer is None else _digest_weights(transfer), world
    )
    folder = out.expanduser() if out is not None else store.run(run or name_run(store, found, params))
    if RunFolder(folder).exists():
        raise TrainingError(f"{folder} holds a run already: go on with it by --resume, or choose another folder")
    if isinstance(found, FolderData) and folder.resolve().is_relative_to(found.folder.root.resolve()):
        raise TrainingError(f"{folder} lies among the pictures, whose number its grids would add to: put it elsewhere")
    return TrainingJob(found, labels, params, config, folder, False, transfer, weights=(store.weights,))


def open_training(job: TrainingJob, report: Report | None = None) -> OpenTraining:
    """Look at the pictures: of a folder at all of them, and `report` is told how far that is.

    Raises StoreError or SourceError for pictures that cannot be trained on, LabelError for such without a class,
    models' WeightError or ExtractorError where metrics are asked for and their network is not there.
    """
    extractor = load_training_extractor(job.config, job.weights)
    reader, dataset = job.data.open(job.config, job.labels, job.params, report)
    return OpenTraining(job, reader, dataset, extractor)


def run_training(training: OpenTraining, progress: Callable[[TrainingProgress], None] | None = None) -> TrainingResult:
    """Train into the job's folder, together with the other processes that torchrun started, if it did.

    progress: told after every tick, in the first process. Raises StoreError or SourceError for pictures that changed
    meanwhile, models' RunError for a folder that cannot be used.
    """
    job, reader, config = training.job, training.reader, training.job.config
    with joined_workers() as workers:
        written = False
        evaluate = None
        if training.extractor is not None and workers.leads:
            cache = cache_folder(job.data, job.folder)
            evaluate = make_evaluator(training.extractor, config, reader, training.dataset, cache, job.labels)

        def data(start_index: int) -> Generator[Batch, None, None]:
            nonlocal written
            if workers.leads and not written:  # asked for once the folder was found fit to be trained in
                _write_data(job, training.dataset)
                written = True
            batches = reader.labelled_batches(config.batch, config.seed, start_index, workers.rank, workers.world)
            return _encode(batches, job.labels)

        return train(
            config,
            data,
            training.dataset,
            job.folder,
            progress if workers.leads else None,
            job.resume,
            transfer=job.transfer,
            workers=workers,
            allow_other_dataset=job.allow_other_dataset,
            evaluate=evaluate,
        )


def name_run(store: Store, data: TrainingData, params: TrainParams) -> str:
    """A free run id that says what is trained on what: `faces-v0001-dcgan-demo-000`."""
    stem = f"{data.stem}-{params.preset.value}"
    taken = {path.name for path in store.runs.glob(f"{stem}-*")}
    return next(name for number in range(len(taken) + 1) if (name := f"{stem}-{number:03d}") not in taken)


def _find_run(store: Store, run: str, out: Path | None) -> Path:
    if out is not None:
        return out.expanduser()
    if run:
        return store.run(run)
    known = ", ".join(sorted(path.name for path in store.runs.glob("*"))) or "none"
    raise StoreError(f"--resume needs the run to go on with: --run ID or --out FOLDER. Runs in {store.root}: {known}")


def _plan_resume(
    store: Store, dataset: str, params: TrainParams, folder: Path, data: Path | None, allow_other: bool
) -> TrainingJob:
    if params.transfer:
        raise TrainingError("a resumed run has weights of its own: --transfer is for new runs")
    if not RunFolder(folder).exists():
        raise TrainingError(f"{folder} holds no run to go on with: start it without --resume")
    if (folder / ORIGIN_FILE).is_file():
        raise TrainingError(
            f"{folder} was imported, so it has weights but nothing to resume from: begin a new run with them, "
            f"kaobako train NAME --transfer {folder}"
        )
    config, trained_on = RunFolder(folder).read_config()
    known = read_data(folder)
    if dataset or data is not None:
        found = find_data(store, dataset, data)
    elif known.get("kind") == "folder":
        found = _reopen_folder(Path(known["path"]), folder)
    else:
        found = find_data(store, str(trained_on), None)
    if isinstance(found, VersionData) and not allow_other and found.version.content_digest != trained_on.digest:
        raise StoreError(
            f"{folder.name} was trained on {trained_on} with another content ({trained_on.digest[:12]}…) than "
            f"{found.reference} has now. --allow-other-dataset goes on all the same."
        )
    before = known.get("labels") or {}
    source = params.labels if params.labels != "none" else before.get("source", "none")
    labels = found.find_labels(source, params.label_tags or before.get("tags", ()))
    _check_labels(folder, before, labels, config, allow_other)
    settings = params.model_copy(
        update={"labels": source, "label_tags": tuple(params.label_tags or before.get("tags", ()))}
    )
    return TrainingJob(
        found,
        labels,
        settings,
        params.resolve_for(config),
        folder,
        True,
        allow_other_dataset=allow_other,
        weights=(store.weights,),
    )


def _reopen_folder(path: Path, run: Path) -> FolderData:
    if not path.is_dir():
        raise TrainingError(
            f"{run.name} was trained on {path}, which is gone. Name the folder where the same pictures are now: --data"
        )
    return FolderData(list_folder(path))


def _check_labels(
    run: Path, before: dict[str, Any], labels: LabelTable | None, config: TrainingConfig, allow_other: bool
) -> None:
    """Raise TrainingError unless the labels are those that the run was trained with so far."""
    count = len(labels.names) if labels else 0
    if count != config.labels:
        raise TrainingError(f"{run.name} has {config.labels} values per label, the data gives {count} now")
    if labels is not None and not allow_other and labels.describe()["digest"] != before.get("digest"):
        raise TrainingError(
            f"the labels are not those that {run.name} was trained with. --allow-other-dataset goes on all the same."
        )


def _find_transfer(store: Store, transfer: str) -> Path | None:
    """The run or snapshot to begin with: a path, or a run's id in the store."""
    if not transfer:
        return None
    path = Path(transfer).expanduser()
    inside = store.runs / transfer
    if not path.exists() and inside.is_dir():
        path = inside
    if not path.exists():
        raise TrainingError(f"--transfer: there is no run or snapshot {transfer}")
    return find_snapshot(path)


def _digest_weights(snapshot: Path) -> str:
    return read_record(snapshot).weights_sha256 or sha256(weights_path(snapshot))


def _encode(batches: Generator[Batch, None, None], labels: LabelTable | None) -> Generator[Batch, None, None]:
    """The same batches with labels as training takes them. Closing it closes the reader."""
    with closing(batches):
        for batch in batches:
            yield batch if labels is None else Batch(batch.images, labels.encode(batch.labels))


def _write_data(job: TrainingJob, dataset: DatasetRef) -> None:
    """Note in the run's folder where its pictures come from; what was noted before of other pictures stays below."""
    before = read_data(job.folder) if job.resume else {}
    labels = None if job.labels is None else {**job.labels.describe(), "tags": list(job.params.label_tags)}
    content: dict[str, Any] = {
        **job.data.describe(),
        "digest": dataset.digest,
        "count": dataset.count,
        "labels": labels,
    }
    earlier = before.pop("before", [])
    if before and before.get("digest") != dataset.digest:
        earlier = [*earlier, before]
    make_folder(job.folder.resolve())
    write_text(job.folder / DATA_FILE, json.dumps({**content, "before": earlier}, indent=2) + "\n")
