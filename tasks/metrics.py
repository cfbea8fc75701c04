"""Metrics: how good a generator's pictures are, against a version or a folder; and whether it learned any by heart.

The reals are read and reduced as a training reads them, and never mirrored, so that only the generator makes a
difference. KID of a perfect generator is 0 but for chance; that of two halves of the reals, beside it, shows how much
chance that is. The other figures depend on the counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from datasets.digests import digest_json
from datasets.store import Store
from models.device import best_device
from models.interchange.imported_run import ORIGIN_FILE
from models.metrics.extractors import Extractor, load_extractor
from models.metrics.figures import CurvePoint, draw_curve
from models.sampling.generator import load_generator
from models.sampling.settings import SamplingSettings
from models.training.config import DatasetRef, TrainingConfig
from models.training.metrics_file import measured_settings, read_metrics, record_metrics
from models.training.run import RunFolder, find_snapshot
from models.training.snapshot import SnapshotError, check_snapshot, read_record, weights_path
from models.weights import digest_file
from tasks.metric_features import measure_fakes
from tasks.metric_lines import (
    FIGURES,
    MEMORISED,
    SUBSET,
    Comparison,
    Line,
    describe_figures,
    describe_memorised,
    finish_lines,
    memorised_lines,
    sampling_settings,
    say_counts,
)
from tasks.metric_reference import (
    MetricsError,
    Reference,
    draw_labels,
    even_labels,
    find_labels,
    find_reference,
    find_trained_on,
    open_reference,
)
from tasks.neighbours import COMPARED, Samples, check_memorisation, find_yardstick
from tasks.progress import Progress, ignore_progress
from tasks.sample import find_home
from tasks.stage import StageParams
from tasks.train_data import LabelTable, TrainingData


class MetricsParams(StageParams):
    """What is measured, and on how many pictures."""

    samples: int = Field(5000, ge=8, description="Fakes to look at; more make KID surer, and take longer")
    seed: int = Field(0, ge=0, description="The first fake's seed; the others follow it")
    extractor: str = Field(
        "hed-vgg4", min_length=1, description="What pictures are compared by: hed-vgg4, or a file .pt, .ts or .onnx"
    )
    psi: float = Field(
        1.0, description="Truncation of the fakes: 1 is what was trained, and what is compared elsewhere"
    )
    subset: int = Field(
        SUBSET, ge=8, description="Real pictures at most; of larger sets a random part is compared with"
    )
    ema: bool = Field(True, description="Use the averaged weights")
    all_snapshots: bool = Field(False, description="Measure every snapshot of the run, and draw KID over the training")
    neighbours: bool = Field(True, description="Look for training pictures that were learned by heart")
    held_out: str = Field(
        "", description="Pictures that were not trained on (NAME, NAME@V or a folder): how near do reals come?"
    )
    again: bool = Field(False, description="Measure anew what was measured with the same settings before")


@dataclass(frozen=True)
class MetricsJob:
    """What is asked for, found and checked before anything is measured."""

    home: Path  # the run's folder
    snapshots: tuple[Path, ...]  # records, or a lone .safetensors; the last one is looked at more closely
    params: MetricsParams
    sampling: SamplingSettings
    extractor: Extractor
    reference: Reference
    trained_on: Reference | None  # None: no neighbours
    held_out: Reference | None
    labels: LabelTable | None  # of the fakes
    caution: str  # what to know of these fakes
    known: dict[str, Line]  # lines of earlier, by what was measured
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricsReport:
    """What was measured."""

    run: Path
    lines: list[Line]  # of metrics.jsonl: the newest snapshot's
    curve: list[Line]  # the KID of every snapshot, oldest first; empty unless all were asked for
    pictures: dict[str, str]  # paths by name
    verdicts: list[str] = field(default_factory=list)  # on memorisation, in sentences
    notes: list[str] = field(default_factory=list)  # what to know when reading the figures

    def summary(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": self.run.as_posix(),
            "metrics": self.lines,
            "curve": self.curve,
            "pictures": self.pictures,
            "verdicts": self.verdicts,
            "notes": self.notes,
        }

    @classmethod
    def from_summary(cls, said: Mapping[str, Any]) -> MetricsReport:
        """The report that `summary` is of."""
        rest = {name: said[name] for name in ("curve", "pictures", "verdicts", "notes")}
        return cls(run=Path(said["run"]), lines=said["metrics"], **rest)


def measure_run(
    store: Store, source: Path, against: str, params: MetricsParams, progress: Progress | None = None
) -> MetricsReport:
    """Measure a run or a snapshot against NAME, NAME@V or a folder; "": against what it was trained on.

    Figures go to metrics.jsonl in the run's folder, pictures to `metrics` beside it. What was measured before with the
    same settings is taken from there. Raises KaobakoError, models' RunError, SnapshotError, ExtractorError or
    WeightError, with what to do.
    """
    told = progress or ignore_progress
    return measure(plan_metrics(store, source, against, params, told), told)


def plan_metrics(
    store: Store, source: Path, against: str, params: MetricsParams, progress: Progress = ignore_progress
) -> MetricsJob:
    """Find and check all that is needed: small things first. Of plain folders all pictures are read once."""
    newest = find_snapshot(source)
    home = find_home(source)
    if params.all_snapshots and not source.is_dir():
        raise MetricsError("--all-snapshots is of a run's folder: name the run, not one of its snapshots")
    earlier = [path for path in RunFolder(home).snapshot_records() if path < newest] if params.all_snapshots else []
    lines = read_metrics(home)
    record = read_record(newest)
    config = record.config
    sampling = sampling_settings(load_generator(newest, params.ema), params.psi)
    trained, missing = _look_for_training_pictures(store, home, record.dataset)
    if trained is None and not against:
        raise MetricsError(f"{missing}. Name what to measure against: --against NAME@V or --against FOLDER")
    chosen = find_reference(store, against) if against else trained
    assert chosen is not None
    labels, caution = _choose_labels(home, config, trained, missing) if config.labels else (None, "")
    held_out = find_reference(store, params.held_out) if params.held_out and params.neighbours and trained else None
    extractor = load_extractor(params.extractor, best_device(), [store.weights])

    notes = [caution] if caution else []
    reference = open_reference(chosen, config, params.subset, home, progress)
    trained_on = None
    if params.neighbours and trained is not None:
        same = trained.describe() == chosen.describe()
        trained_on = reference if same else open_reference(trained, config, params.subset, home, progress)
        notes += _judge_training_pictures(trained_on, record.dataset)
    elif params.neighbours:
        notes.append(f"no training pictures were looked for: {missing}")
    return MetricsJob(
        home=home,
        snapshots=(*earlier, newest),
        params=params,
        sampling=sampling,
        extractor=extractor,
        reference=reference,
        trained_on=trained_on,
        held_out=None if held_out is None else open_reference(held_out, config, COMPARED, home, progress),
        labels=labels,
        caution=caution,
        known={} if params.again else {measured_settings(line): line for line in lines},
        notes=tuple(notes),
    )


def _look_for_training_pictures(store: Store, home: Path, dataset: DatasetRef) -> tuple[TrainingData | None, str]:
    """What a run was trained on, or why it is not there."""
    try:
        return find_trained_on(store, home, dataset), ""
    except MetricsError as error:
        return None, str(error)


def _choose_labels(
    home: Path, config: TrainingConfig, trained: TrainingData | None, missing: str
) -> tuple[LabelTable, str]:
    """Labels for the fakes of a conditional run, and what to know of them."""
    if trained is not None:
        return find_labels(home, trained, config), ""
    if not (home / ORIGIN_FILE).is_file():
        raise MetricsError(f"{home.name} is conditional, and fakes need the labels that it was trained with: {missing}")
    said = f"nobody noted which labels {home.name} was trained with: each of its {config.labels} classes is drawn "
    return even_labels(config.labels), said + "equally often, which the reals may not be"


def _judge_training_pictures(trained_on: Reference, dataset: DatasetRef) -> list[str]:
    notes = []
    if trained_on.dataset.digest != dataset.digest:
        notes.append(f"the pictures of {trained_on.dataset} are not the ones that were trained on: they were changed")
    if not trained_on.complete:
        notes.append(
            f"samples were compared with {len(trained_on.chosen)} of {trained_on.reader.count} training pictures: "
            "a larger --subset looks at more"
        )
    return notes


@dataclass(frozen=True)
class _Work:
    """What is known of one snapshot, and what is to be measured."""

    snapshot: Path
    what: str  # its fakes, for the progress
    stubs: dict[str, Line]  # of all figures that are asked for: what is known before
    known: dict[str, Line]  # those that were measured earlier

    def lacks(self, figures: Sequence[str]) -> bool:
        """Whether one of them is asked for and not known."""
        return any(figure in self.stubs and figure not in self.known for figure in figures)

    @property
    def fakes(self) -> int:
        """How many have to be looked at."""
        asked = [self.stubs[figures[0]]["fakes"] for figures in (FIGURES, MEMORISED) if self.lacks(figures)]
        return max(asked, default=0)


def measure(job: MetricsJob, progress: Progress) -> MetricsReport:
    """Do what was planned."""
    works, damaged = _list_works(job)
    if any(work.fakes for work in works):
        progress("reals", 0, len(job.reference.chosen))
    for work in works:
        if work.fakes:
            progress(work.what, 0, work.fakes)
    comparison = Comparison(job.extractor, job.reference, progress)
    measured = [_measure_snapshot(job, work, comparison) for work in works]
    lines, points = measured[-1], [_line_of(found, "kid") for found in measured]
    pictures = _pictures_of(job, lines)
    if job.params.all_snapshots:
        pictures = {**pictures, **_draw_kid(job, points)}
    memorised = [line for line in lines if line["figure"] in MEMORISED]
    notes = [*job.notes, *damaged, say_counts(points[-1]["reals"], points[-1]["fakes"])]
    notes += memorised[0]["notes"] if memorised else []
    return MetricsReport(
        job.home,
        lines,
        points if job.params.all_snapshots else [],
        {name: path.as_posix() for name, path in pictures.items()},
        [str(line["verdict"]) for line in memorised],
        notes,
    )


def _list_works(job: MetricsJob) -> tuple[list[_Work], list[str]]:
    """One for each snapshot, and what is to be said of those that are damaged."""
    works, damaged = [], []
    for snapshot in job.snapshots:
        newest = snapshot == job.snapshots[-1]
        try:
            if not newest:  # that one was checked when it was found
                check_snapshot(snapshot, with_state=False)
        except SnapshotError as error:
            damaged.append(f"passed over: {error}")
            continue
        works.append(_describe_work(job, snapshot, newest and job.trained_on is not None))
    return works, damaged


def _describe_work(job: MetricsJob, snapshot: Path, neighbours: bool) -> _Work:
    record = read_record(snapshot)
    stubs = describe_figures(
        job.extractor,
        job.reference,
        record.config,
        job.sampling,
        _seeds(job),
        job.params.ema,
        job.params.subset,
        record.nimg,
        record.weights_sha256 or digest_file(weights_path(snapshot)),
        job.labels,
        job.caution,
    )
    if neighbours and job.trained_on is not None:
        seeds = _seeds(job)[:COMPARED]
        stubs |= describe_memorised(stubs["kid"], job.trained_on, job.held_out, record.config, seeds, job.params.subset)
    known = {figure: job.known[key] for figure, stub in stubs.items() if (key := measured_settings(stub)) in job.known}
    for figures in (FIGURES, MEMORISED):  # each group is of one measurement
        found = [known[figure] for figure in figures if figure in known]
        if len(found) < len(figures) or not all(path.is_file() for path in _pictures_of(job, found).values()):
            known = {figure: line for figure, line in known.items() if figure not in figures}
    what = "fakes" if len(job.snapshots) == 1 else f"fakes after {record.nimg / 1000:g} kimg"
    return _Work(snapshot, what, stubs, known)


def _seeds(job: MetricsJob) -> range:
    return range(job.params.seed, job.params.seed + job.params.samples)


def _measure_snapshot(job: MetricsJob, work: _Work, comparison: Comparison) -> list[Line]:
    """The lines of one snapshot: those that are known, and new ones, which are written down. Reals come first."""
    if not work.fakes:
        return list(work.known.values())
    started = time.perf_counter()
    figures, memorised = work.lacks(FIGURES), work.lacks(MEMORISED)
    generator = load_generator(work.snapshot, job.params.ema, best_device())
    if figures:
        comparison.halves()
    yardstick = None
    if memorised and job.trained_on is not None:
        mirror = generator.config.mirror
        yardstick = find_yardstick(job.trained_on, job.held_out, mirror, job.extractor, comparison.progress)
    looked_up = work.stubs[MEMORISED[0]]["fakes"] if memorised else 0
    seeds = _seeds(job)[: work.fakes]
    labels = draw_labels(job.labels, len(seeds))
    mirrored = looked_up if generator.config.mirror else 0
    fakes, flipped = measure_fakes(
        generator, seeds, labels, job.sampling, job.extractor, comparison.progress, mirrored, work.what
    )
    found = dict(work.known)
    if figures:
        lines = finish_lines(comparison.lines(fakes.features, work.stubs), started)
        record_metrics(job.home, lines)
        found |= {line["figure"]: line for line in lines}
    if yardstick is not None and job.trained_on is not None:
        some = None if labels is None else labels[:looked_up]
        samples = Samples(generator, job.sampling, seeds[:looked_up], some, fakes.take(np.arange(looked_up)), flipped)
        stem = f"{generator.nimg:09d}-{digest_json(measured_settings(work.stubs[MEMORISED[0]]))[:8]}"
        report = check_memorisation(
            samples, job.trained_on, yardstick, _pictures_folder(job), stem, comparison.progress
        )
        lines = finish_lines(memorised_lines(report, work.stubs), started)
        record_metrics(job.home, lines)
        found |= {line["figure"]: line for line in lines}
    return [found[figure] for figure in work.stubs]


def _line_of(lines: Sequence[Line], figure: str) -> Line:
    return next(line for line in lines if line["figure"] == figure)


def _pictures_folder(job: MetricsJob) -> Path:
    return job.home / "metrics"


def _pictures_of(job: MetricsJob, lines: Sequence[Line]) -> dict[str, Path]:
    """The pictures that were drawn with these lines; their names are those of the measurement."""
    return {
        str(name): _pictures_folder(job) / str(file)
        for line in lines
        for name, file in line.get("pictures", {}).items()
    }


def _draw_kid(job: MetricsJob, points: Sequence[Line]) -> dict[str, Path]:
    path = job.home / "metrics" / "kid.png"
    curve = [CurvePoint(line["nimg"], 1000 * line["value"], 1000 * line["error"]) for line in points]
    baseline = CurvePoint(0, 1000 * points[-1]["baseline"], 1000 * points[-1]["baseline_error"])
    title = f"{job.home.name}: {points[-1]['fakes']} fakes against {points[-1]['reference']}"
    return {"curve": path} if draw_curve(path, curve, baseline, f"KID x 1000 ({job.extractor.name})", title) else {}
