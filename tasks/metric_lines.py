"""Figures of quality of one generator against reals, as the lines of metrics.jsonl; also in the midst of a training."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from datasets.loader import PictureReader
from models.device import device_name
from models.metrics.distances import Estimate, frechet_distance, kernel_distance, precision_recall
from models.metrics.extractors import Extractor, load_extractor
from models.sampling.generator import LoadedGenerator
from models.sampling.settings import Noise, SamplingSettings
from models.training.config import DatasetRef, TrainingConfig
from models.training.evaluation import Evaluate
from models.training.networks import resolve_device
from tasks.metric_features import measure_fakes
from tasks.metric_reference import MetricsError, Reference, choose_reference, draw_labels
from tasks.neighbours import MemorisationReport
from tasks.progress import Progress, ProgressLog
from tasks.train_data import LabelTable

METRICS_VERSION = 2  # bump when a figure changes its meaning
FIGURES = ("kid", "fid", "precision", "recall")
MEMORISED = ("memorised", "memorised_pixels")
Line = dict[str, Any]
"""A line of metrics.jsonl."""

SUBSET = 50_000  # reals that are compared with, unless more are asked for: 200 MB of features
TRAINING_SAMPLES = 2000  # fakes that --metrics-every looks at
MOST_PSI = 10.0  # either way: pictures are noise long before, and further on numbers overflow

log = logging.getLogger(__name__)


class Comparison:
    """Figures of fakes against reals; the reals are looked at when first needed."""

    def __init__(self, extractor: Extractor, reference: Reference, progress: Progress) -> None:
        self.extractor = extractor
        self.reference = reference
        self.progress = progress
        self._halves: Estimate | None = None

    def look_at_reals(self) -> np.ndarray:
        """What the extractor sees in them, float32 (N, D)."""
        return self.reference.measure(self.extractor, self.progress).features

    def halves(self) -> Estimate:
        """KID of one half of the reals against the other: 0 but for chance."""
        if self._halves is None:
            reals = self.look_at_reals()
            chosen = np.random.default_rng(0).permutation(len(reals))[: len(reals) // 2 * 2]
            first, second = np.split(chosen, 2)
            with _comparing():
                self._halves = kernel_distance(reals[first], reals[second])
        return self._halves

    def lines(self, fakes: np.ndarray, settings: Mapping[str, Mapping[str, Any]]) -> list[Line]:
        """A line for each figure. settings: what is known of them before, by figure.

        Only KID has a baseline: the other figures of halves are none of these counts, and tell nothing about them.
        """
        reals = self.look_at_reals()
        found = compare(reals, fakes)
        lines = []
        for figure in FIGURES:
            halves = self.halves() if figure == "kid" else None
            cautions = [settings[figure]["caution"], "" if figure == "kid" else say_counts(len(reals), len(fakes))]
            lines.append(
                {
                    **settings[figure],
                    "value": found[figure].value,
                    "error": found[figure].error,
                    "baseline": halves and halves.value,
                    "baseline_error": halves and halves.error,
                    "caution": ". ".join(filter(None, cautions)),
                }
            )
        return lines


def compare(reals: np.ndarray, fakes: np.ndarray) -> dict[str, Estimate]:
    """All figures of two sets of features, float (N, D), by name."""
    with _comparing():
        precision, recall = precision_recall(reals, fakes)
        kid, fid = kernel_distance(reals, fakes), frechet_distance(reals, fakes)
    return {"kid": kid, "fid": Estimate(fid), "precision": Estimate(precision), "recall": Estimate(recall)}


@contextmanager
def _comparing() -> Iterator[None]:
    """Features that cannot be compared are an error of the pictures."""
    try:
        yield
    except ValueError as error:
        raise MetricsError(f"these pictures cannot be compared: {error}") from error


def say_counts(reals: int, fakes: int) -> str:
    """What to know of all figures but KID."""
    return (
        f"FID, precision and recall depend on the counts, here {reals} reals and {fakes} fakes: compare them with "
        "figures of the same counts only, or use KID"
    )


def sampling_settings(generator: LoadedGenerator, psi: float) -> SamplingSettings:
    """How fakes are drawn: with noise by seed where the network has noise, as in its training."""
    if not abs(psi) <= MOST_PSI:
        raise MetricsError(f"--psi must be -{MOST_PSI:g} to {MOST_PSI:g}, got {psi:g}: 1 is what was trained")
    if not generator.has_styles:
        if psi != 1:
            generator.styles("truncation (--psi)")
        return SamplingSettings()
    return SamplingSettings(psi=psi, noise=Noise.RANDOM)


def name_figure(
    figure: str,
    fakes: int,
    extractor: str,
    config: TrainingConfig,
    dataset: DatasetRef,
    psi: float = 1.0,
    ema: bool = True,
) -> str:
    """Equal for figures that may be compared: kid5000_hed-vgg4_128x128_faces@v7-0123456789ab.

    The count is that of the fakes, the size that of the run's pictures, the digits begin the reference's digest; after
    that stands what is not usual: _psi0.7, _noema.
    """
    unusual = ("" if psi == 1 else f"_psi{psi:g}") + ("" if ema else "_noema")
    return f"{figure}{fakes}_{extractor}_{config.width}x{config.height}_{dataset}-{dataset.digest[:12]}{unusual}"


def describe_figures(
    extractor: Extractor,
    reference: Reference,
    config: TrainingConfig,
    sampling: SamplingSettings,
    seeds: range,
    ema: bool,
    subset: int,
    nimg: int,
    weights: str | None,  # None: during a training
    labels: LabelTable | None,  # of the fakes
    caution: str = "",  # what to know of these fakes
) -> dict[str, Line]:
    """What is known of each figure before it is measured."""
    dataset = reference.dataset
    psi = 1.0 if sampling.psi is None else sampling.psi
    digest = None if labels is None else labels.describe()["digest"]
    return {
        figure: {
            "name": name_figure(figure, len(seeds), extractor.name, config, dataset, psi, ema),
            "figure": figure,
            "metrics_version": METRICS_VERSION,
            "fakes": len(seeds),
            "reals": len(reference.chosen),
            "seeds": f"{seeds[0]}-{seeds[-1]}",
            "psi": psi,
            "noise": sampling.noise.value,
            "ema": ema,
            "subset": None if reference.complete else subset,
            "nimg": nimg,
            "weights_sha256": weights,
            "extractor": extractor.name,
            "extractor_sha256": extractor.digest,
            "reference": str(dataset),
            "reference_digest": dataset.digest,
            "height": config.height,
            "width": config.width,
            "channels": config.channels,
            "labels_digest": digest,
            "caution": caution,
        }
        for figure in FIGURES
    }


def describe_memorised(
    stub: Mapping[str, Any],  # of a figure
    trained_on: Reference,
    held_out: Reference | None,
    config: TrainingConfig,
    seeds: range,  # that are looked up
    subset: int,
) -> dict[str, Line]:
    """What is known of the figures of memorisation before they are measured: what is looked up, and among what."""
    dataset = trained_on.dataset
    same = {
        **stub,
        "fakes": len(seeds),
        "reals": len(trained_on.chosen),
        "seeds": f"{seeds[0]}-{seeds[-1]}",
        "subset": None if trained_on.complete else subset,
        "reference": str(dataset),
        "reference_digest": dataset.digest,
        "held_out": None if held_out is None else str(held_out.dataset),
        "held_out_digest": None if held_out is None else held_out.dataset.digest,
    }
    return {
        figure: {
            **same,
            "figure": figure,
            "name": name_figure(figure, len(seeds), stub["extractor"], config, dataset, stub["psi"], stub["ema"]),
        }
        for figure in MEMORISED
    }


def memorised_lines(report: MemorisationReport, stubs: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """A line for each figure of memorisation."""
    found = zip(MEMORISED, (report.by_features, report.by_pixels), report.verdicts(), strict=True)
    return [
        {
            **stubs[figure],
            "value": judged.share,
            "error": judged.error,
            "expected": judged.expected,
            "limit": judged.limit,
            "threshold": judged.threshold,
            "threshold_reals": judged.reals,
            "yardstick": report.reals_said,
            "verdict": verdict,
            "notes": list(report.notes),
            "pictures": {name: path.name for name, path in report.pictures.items()},
        }
        for figure, judged, verdict in found
    ]


def finish_lines(lines: Sequence[Mapping[str, Any]], started: float) -> list[Line]:
    """What is said of a measurement once it is done."""
    done = {
        "device": device_name(),
        "libraries": {"torch": torch.__version__, "numpy": np.__version__},
        "seconds": round(time.perf_counter() - started, 2),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return [{**line, **done} for line in lines]


def make_evaluator(
    extractor: Extractor,
    config: TrainingConfig,
    reader: PictureReader,
    dataset: DatasetRef,
    cache: Path,  # where features of the reals are kept
    labels: LabelTable | None,
) -> Evaluate:
    """What measures a training's averaged generator on TRAINING_SAMPLES fakes. The reals are looked at now."""
    reference = choose_reference(reader, dataset, SUBSET, cache)
    log.info("metrics: looking at %d real pictures", len(reference.chosen))
    comparison = Comparison(extractor, reference, ProgressLog(log.info))
    comparison.halves()
    seeds = range(TRAINING_SAMPLES)
    given = draw_labels(labels, len(seeds))

    def evaluate(network: nn.Module, nimg: int) -> list[Line]:
        started = time.perf_counter()
        generator = LoadedGenerator(network, config, dataset, nimg, Path())
        sampling = sampling_settings(generator, 1.0)
        fakes, _ = measure_fakes(generator, seeds, given, sampling, extractor, ProgressLog(log.info))
        stubs = describe_figures(extractor, reference, config, sampling, seeds, True, SUBSET, nimg, None, labels)
        return finish_lines(comparison.lines(fakes.features, stubs), started)

    return evaluate


def load_training_extractor(config: TrainingConfig, folders: Sequence[Path]) -> Extractor | None:
    """The extractor that a training measures with; None for one that does not. Raises WeightError, ExtractorError."""
    if not config.metrics_kimg:
        return None
    return load_extractor(config.metrics_extractor, resolve_device(config.device), folders)
