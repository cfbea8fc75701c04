"""Figures of quality of one generator against reals, as the lines of metrics.jsonl; also in the midst of a training."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
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
from models.training.networks import resolve_device
from models.training.trainer import Evaluate
from tasks.metric_features import Progress, measure_fakes
from tasks.metric_reference import MetricsError, Reference, choose_reference, draw_labels
from tasks.train_data import LabelTable

METRICS_VERSION = 1  # bump when a figure changes its meaning
FIGURES = ("kid", "fid", "precision", "recall")
FEW = 2000  # pictures of a kind, below which FID says more of their number than of the generator
SUBSET = 50_000  # reals that are compared with, unless more are asked for: 200 MB of features
TRAINING_SAMPLES = 2000  # fakes that --metrics-every looks at

log = logging.getLogger(__name__)


def ignore_progress(what: str, done: int, total: int) -> None:
    """For callers that show none."""


class Comparison:
    """Figures of fakes against reals, and of two halves of the reals; the reals are looked at when first needed."""

    def __init__(self, extractor: Extractor, reference: Reference, progress: Progress) -> None:
        self.extractor = extractor
        self.reference = reference
        self.progress = progress
        self._reals: np.ndarray | None = None
        self._halves: dict[str, Estimate] = {}

    @property
    def reals(self) -> np.ndarray:
        """float32 (N, D)."""
        if self._reals is None:
            self._reals = self.reference.measure(self.extractor, self.progress).features
            half = np.random.default_rng(0).permutation(len(self._reals))[: len(self._reals) // 2 * 2]
            self._halves = compare(*np.split(self._reals[half], 2))
        return self._reals

    @property
    def halves(self) -> dict[str, Estimate]:
        """What two halves of the reals give."""
        assert len(self.reals)
        return self._halves

    def lines(self, fakes: np.ndarray, settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A line for each figure. settings: what is known of them before, by figure."""
        found = compare(self.reals, fakes)
        return [
            {
                **settings[figure],
                "value": found[figure].value,
                "error": found[figure].error,
                "baseline": self.halves[figure].value,
                "baseline_error": self.halves[figure].error,
                "caution": _caution(figure, len(self.reals), len(fakes)),
            }
            for figure in FIGURES
        ]


def compare(reals: np.ndarray, fakes: np.ndarray) -> dict[str, Estimate]:
    """All figures of two sets of features, float (N, D), by name."""
    try:
        precision, recall = precision_recall(reals, fakes)
        kid, fid = kernel_distance(reals, fakes), frechet_distance(reals, fakes)
    except ValueError as error:
        raise MetricsError(f"these pictures cannot be compared: {error}") from error
    return {"kid": kid, "fid": Estimate(fid), "precision": Estimate(precision), "recall": Estimate(recall)}


def _caution(figure: str, reals: int, fakes: int) -> str:
    if figure != "fid" or min(reals, fakes) >= FEW:
        return ""
    return (
        f"FID is biased by {reals} reals and {fakes} fakes: compare it with figures of the same counts only, or use KID"
    )


def sampling_settings(generator: LoadedGenerator, psi: float) -> SamplingSettings:
    """How fakes are drawn: with noise by seed where the network has noise, as in its training."""
    if not generator.has_styles:
        if psi != 1:
            generator.styles("truncation (--psi)")
        return SamplingSettings()
    return SamplingSettings(psi=psi, noise=Noise.RANDOM)


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
) -> dict[str, dict[str, Any]]:
    """What is known of each figure before it is measured."""
    dataset = reference.dataset
    count = "" if weights else str(len(seeds))
    return {
        figure: {
            "name": f"{figure}{count}_{extractor.name}_{dataset}-{dataset.digest[:12]}",
            "figure": figure,
            "metrics_version": METRICS_VERSION,
            "fakes": len(seeds),
            "reals": len(reference.chosen),
            "seeds": f"{seeds[0]}-{seeds[-1]}",
            "psi": 1.0 if sampling.psi is None else sampling.psi,
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
        }
        for figure in FIGURES
    }


def finish_lines(lines: Sequence[Mapping[str, Any]], started: float) -> list[dict[str, Any]]:
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
    comparison = Comparison(extractor, reference, ignore_progress)
    assert len(comparison.reals)
    seeds = range(TRAINING_SAMPLES)
    given = draw_labels(labels, len(seeds))

    def evaluate(network: nn.Module, nimg: int) -> list[dict[str, Any]]:
        started = time.perf_counter()
        generator = LoadedGenerator(network, config, dataset, nimg, Path())
        sampling = sampling_settings(generator, 1.0)
        fakes, _ = measure_fakes(generator, seeds, given, sampling, extractor, ignore_progress)
        stubs = describe_figures(extractor, reference, config, sampling, seeds, True, SUBSET, nimg, None)
        return finish_lines(comparison.lines(fakes.features, stubs), started)

    return evaluate


def load_training_extractor(config: TrainingConfig, folders: Sequence[Path]) -> Extractor | None:
    """The extractor that a training measures with; None for one that does not. Raises WeightError, ExtractorError."""
    if not config.metrics_kimg:
        return None
    return load_extractor(config.metrics_extractor, resolve_device(config.device), folders)
