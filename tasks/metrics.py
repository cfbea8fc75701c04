"""Metrics: how good a generator's pictures are, against a version or a folder; and whether it learned any by heart.

The reals are read and reduced as a training reads them, and never mirrored, so that only the generator makes a
difference. What the same figures give between two halves of the reals stands beside: no generator can do better.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from datasets.store import Store
from models.device import best_device
from models.metrics.extractors import Extractor, load_extractor
from models.metrics.figures import CurvePoint, draw_curve
from models.metrics.neighbours import PERCENT
from models.sampling.generator import load_generator
from models.training.config import DatasetRef
from models.training.metrics_file import measured_settings, read_metrics, record_metrics
from models.training.run import RunFolder, find_snapshot
from models.training.snapshot import SnapshotError, check_snapshot, read_record, weights_path
from models.weights import digest_file
from tasks.metric_features import Progress, measure_fakes
from tasks.metric_lines import SUBSET, Comparison, describe_figures, finish_lines, ignore_progress, sampling_settings
from tasks.metric_reference import (
    MetricsError,
    Reference,
    draw_labels,
    find_labels,
    find_reference,
    find_trained_on,
    open_reference,
)
from tasks.neighbours import COMPARED, MemorisationReport, Samples, check_memorisation
from tasks.sample import find_home
from tasks.stage import StageParams
from tasks.train_data import LabelTable

MEMORISED = ("memorised", "memorised_pixels")


class MetricsParams(StageParams):
    """What is measured, and on how many pictures."""

    samples: int = Field(5000, ge=8, description="Fakes to look at; more make the figures surer, and take longer")
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
    extractor: Extractor
    reference: Reference
    trained_on: Reference | None  # None: no neighbours
    held_out: Reference | None
    labels: LabelTable | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricsReport:
    """What was measured."""

    run: Path
    lines: list[dict[str, Any]]  # of metrics.jsonl: the newest snapshot's
    curve: list[dict[str, Any]]  # the KID of every snapshot, oldest first; empty unless all were asked for
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
    return measure(plan_metrics(store, source, against, params), progress or ignore_progress)


def plan_metrics(store: Store, source: Path, against: str, params: MetricsParams) -> MetricsJob:
    """Find and check all that is needed. Of plain folders all pictures are read once."""
    newest = find_snapshot(source)
    home = find_home(source)
    if params.all_snapshots and not source.is_dir():
        raise MetricsError("--all-snapshots is of a run's folder: name the run, not one of its snapshots")
    earlier = [path for path in RunFolder(home).snapshot_records() if path < newest] if params.all_snapshots else []
    record = read_record(newest)
    config = record.config
    extractor = load_extractor(params.extractor, best_device(), [store.weights])
    sampling_settings(load_generator(newest, params.ema), params.psi)
    notes: list[str] = []
    trained = None
    if not against or params.neighbours or config.labels:
        try:
            trained = find_trained_on(store, home, record.dataset)
        except MetricsError as error:
            if not against or config.labels:
                raise
            notes.append(f"no training pictures were looked for: {error}")
    chosen = find_reference(store, against) if against else trained
    assert chosen is not None
    labels = None if trained is None else find_labels(home, trained, config)
    reference = open_reference(chosen, config, params.subset, home)
    trained_on = held_out = None
    if params.neighbours and trained is not None:
        same = trained.describe() == chosen.describe()
        trained_on = reference if same else open_reference(trained, config, params.subset, home)
        notes += _judge_training_pictures(trained_on, record.dataset)
        if params.held_out:
            held_out = open_reference(find_reference(store, params.held_out), config, COMPARED, home)
    return MetricsJob(
        home, (*earlier, newest), params, extractor, reference, trained_on, held_out, labels, tuple(notes)
    )


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


def measure(job: MetricsJob, progress: Progress) -> MetricsReport:
    """Do what was planned."""
    known = {} if job.params.again else {measured_settings(line): line for line in read_metrics(job.home)}
    comparison = Comparison(job.extractor, job.reference, progress)
    points: list[dict[str, Any]] = []
    notes = list(job.notes)
    for snapshot in job.snapshots[:-1]:
        try:
            check_snapshot(snapshot, with_state=False)
        except SnapshotError as error:
            notes.append(f"passed over: {error}")
            continue
        lines, _ = _measure_snapshot(job, snapshot, comparison, known, False)
        points.append(_line_of(lines, "kid"))
    lines, memorised = _measure_snapshot(job, job.snapshots[-1], comparison, known, job.trained_on is not None)
    points.append(_line_of(lines, "kid"))
    pictures = memorised.pictures if memorised else _known_pictures(job, lines)
    if job.params.all_snapshots:
        pictures = {**pictures, **_draw_kid(job, points)}
    notes += [caution for caution in dict.fromkeys(str(line["caution"]) for line in lines) if caution]
    notes += memorised.notes if memorised else ()
    return MetricsReport(
        job.home,
        lines,
        points if job.params.all_snapshots else [],
        {name: path.as_posix() for name, path in pictures.items()},
        [str(line["verdict"]) for line in lines if line["figure"] in MEMORISED],
        notes,
    )


def _measure_snapshot(
    job: MetricsJob,
    snapshot: Path,
    comparison: Comparison,
    known: Mapping[tuple[Any, ...], dict[str, Any]],
    neighbours: bool,
) -> tuple[list[dict[str, Any]], MemorisationReport | None]:
    """The lines of one snapshot: those that are known, or new ones, which are written down."""
    started = time.perf_counter()
    generator = load_generator(snapshot, job.params.ema, best_device())
    sampling = sampling_settings(generator, job.params.psi)
    seeds = range(job.params.seed, job.params.seed + job.params.samples)
    weights = read_record(snapshot).weights_sha256 or digest_file(weights_path(snapshot))
    stubs = describe_figures(
        job.extractor,
        job.reference,
        generator.config,
        sampling,
        seeds,
        job.params.ema,
        job.params.subset,
        generator.nimg,
        weights,
    )
    stubs |= _describe_memorised(job, stubs["kid"]) if neighbours else {}
    old = [known[key] for stub in stubs.values() if (key := measured_settings(stub)) in known]
    if len(old) == len(stubs) and all(path.is_file() for path in _known_pictures(job, old).values()):
        return old, None
    looked_up = min(COMPARED, len(seeds)) if neighbours else 0
    labels = draw_labels(job.labels, len(seeds))
    mirrored = looked_up if generator.config.mirror else 0
    fakes, flipped = measure_fakes(generator, seeds, labels, sampling, job.extractor, comparison.progress, mirrored)
    lines = comparison.lines(fakes.features, stubs)
    report = None
    if job.trained_on is not None and neighbours:
        some = None if labels is None else labels[:looked_up]
        samples = Samples(generator, sampling, seeds[:looked_up], some, fakes.take(np.arange(looked_up)), flipped)
        report = check_memorisation(
            samples, job.trained_on, job.held_out, job.extractor, *_pictures(job, generator.nimg), comparison.progress
        )
        lines += _memorised_lines(report, stubs)
    finished = finish_lines(lines, started)
    record_metrics(job.home, finished)
    return finished, report


def _describe_memorised(job: MetricsJob, stub: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    assert job.trained_on is not None
    dataset = job.trained_on.dataset
    where = f"{dataset}-{dataset.digest[:12]}"
    same = {
        **stub,
        "fakes": min(COMPARED, stub["fakes"]),
        "reference": str(dataset),
        "reference_digest": dataset.digest,
        "reals": len(job.trained_on.chosen),
        "held_out": None if job.held_out is None else str(job.held_out.dataset),
        "held_out_digest": None if job.held_out is None else job.held_out.dataset.digest,
    }
    named = {"memorised": f"memorised_{stub['extractor']}_{where}", "memorised_pixels": f"memorised-pixels_{where}"}
    return {figure: {**same, "figure": figure, "name": name} for figure, name in named.items()}


def _memorised_lines(report: MemorisationReport, stubs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **stubs[figure],
            "value": found.share,
            "error": found.error,
            "baseline": PERCENT / 100,
            "baseline_error": None,
            "threshold": found.threshold,
            "yardstick": report.reals_said,
            "verdict": verdict,
            "caution": "",
        }
        for figure, found, verdict in zip(
            MEMORISED, (report.by_features, report.by_pixels), report.verdicts(), strict=True
        )
    ]


def _line_of(lines: Sequence[dict[str, Any]], figure: str) -> dict[str, Any]:
    return next(line for line in lines if line["figure"] == figure)


def _pictures(job: MetricsJob, nimg: int) -> tuple[Path, str]:
    """Where pictures of neighbours go, and what their names end in."""
    return job.home / "metrics", f"{nimg:09d}"


def _known_pictures(job: MetricsJob, lines: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    """The pictures that belong to lines of earlier."""
    found = {line["figure"]: line for line in lines}
    if "memorised" not in found:
        return {}
    folder, stem = _pictures(job, int(found["memorised"]["nimg"]))
    return {name: folder / f"{name}-{stem}.png" for name in ("neighbours", "neighbours-histogram")}


def _draw_kid(job: MetricsJob, points: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    path = job.home / "metrics" / "kid.png"
    curve = [CurvePoint(line["nimg"], 1000 * line["value"], 1000 * line["error"]) for line in points]
    baseline = CurvePoint(0, 1000 * points[-1]["baseline"], 1000 * points[-1]["baseline_error"])
    title = f"{job.home.name}: {points[-1]['fakes']} fakes against {points[-1]['reference']}"
    return {"curve": path} if draw_curve(path, curve, baseline, f"KID x 1000 ({job.extractor.name})", title) else {}
