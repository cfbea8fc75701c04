"""Memorisation: how near the samples of a generator lie to the pictures that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.loader import PictureReader
from models.metrics.extractors import Extractor
from models.metrics.figures import Distances, Neighbour, Suspect, draw_distances, draw_neighbours
from models.metrics.neighbours import (
    Memorisation,
    Nearest,
    Scale,
    find_nearest,
    judge_memorisation,
    most_suspicious,
    scale_pixels,
)
from models.sampling.generator import LoadedGenerator
from models.sampling.settings import SamplingSettings
from tasks.metric_features import FeatureSet, Progress, draw_fakes, to_rgb
from tasks.metric_reference import MetricsError, Reference

COMPARED = 2000  # samples, and held-out reals, that are looked up: the share of 1 % is then known to .2 %
SHOWN = 12  # samples in the picture that are nearest to a training picture, and as many random ones
SEED = 0  # of which reals are compared, and of the random samples that are shown


@dataclass(frozen=True)
class Samples:
    """Fakes that are looked up."""

    generator: LoadedGenerator
    settings: SamplingSettings
    seeds: Sequence[int]
    labels: np.ndarray | None  # float32 (N, labels)
    seen: FeatureSet
    mirrored: FeatureSet | None  # where the training mirrored


@dataclass(frozen=True)
class MemorisationReport:
    """What was found, and which pictures show it."""

    by_features: Memorisation
    by_pixels: Memorisation
    reals_said: str  # which real pictures say what is near
    pictures: dict[str, Path]
    notes: tuple[str, ...]

    def verdicts(self) -> list[str]:
        """A sentence each."""
        return [f"By features, {self.by_features.verdict()}", f"By pixels, {self.by_pixels.verdict()}"]


@dataclass(frozen=True)
class _Yardstick:
    """Real pictures whose distances to the training pictures say what is near."""

    seen: FeatureSet
    mirrored: FeatureSet | None
    leave_one_out: bool  # they are training pictures themselves: none is compared with itself or its exact copies
    said: str
    notes: tuple[str, ...] = ()


def check_memorisation(
    samples: Samples,
    trained_on: Reference,
    held_out: Reference | None,
    extractor: Extractor,
    folder: Path,  # for the pictures
    stem: str,  # that their names end in
    progress: Progress,
) -> MemorisationReport:
    """Compare samples with the training pictures, and see whether they are nearer than other reals. Writes pictures.

    Raises MetricsError where there is nothing to compare with.
    """
    trained = trained_on.measure(extractor, progress)
    mirror = samples.mirrored is not None
    reals = (
        _leave_one_out(trained_on, trained, mirror, extractor, progress)
        if held_out is None
        else _hold_out(held_out, trained, mirror, extractor, progress)
    )
    scale = Scale.of(trained.features)
    found = []
    for step, kind in enumerate(("features", "pixels"), start=1):
        references = scale.apply(trained.features) if kind == "features" else scale_pixels(trained.pixels)
        near = _look_up(kind, scale, samples.seen, samples.mirrored, references)
        identities = (reals.seen.pixel_digests, trained.pixel_digests) if reals.leave_one_out else None
        usual = _look_up(kind, scale, reals.seen, reals.mirrored, references, identities)
        found.append((near, usual.distances, judge_memorisation(near.distances, usual.distances)))
        progress("neighbours", step, 2)
    (by_features, usual_features, judged), (by_pixels, usual_pixels, judged_pixels) = found

    pictures = {"neighbours": folder / f"neighbours-{stem}.png"}
    suspects = most_suspicious([(by_features.distances, judged), (by_pixels.distances, judged_pixels)], SHOWN)
    rest = np.setdiff1d(np.arange(len(samples.seeds)), suspects)
    at_random = np.sort(np.random.default_rng(SEED).permutation(rest)[:SHOWN])
    draw_neighbours(
        pictures["neighbours"],
        [
            (title, _show(samples, rows, by_features, by_pixels, trained_on))
            for title, rows in (
                ("Nearest to a training picture: sample, nearest by features, nearest by pixels", suspects),
                ("Samples at random", at_random),
            )
        ],
    )
    histogram = folder / f"neighbours-histogram-{stem}.png"
    panels = [
        Distances("features", by_features.distances, usual_features, judged.threshold, judged.share),
        Distances("pixels", by_pixels.distances, usual_pixels, judged_pixels.threshold, judged_pixels.share),
    ]
    if draw_distances(histogram, panels, "reals", f"Nearest training picture: samples, and {reals.said}"):
        pictures["neighbours-histogram"] = histogram
    return MemorisationReport(judged, judged_pixels, reals.said, pictures, reals.notes)


def _look_up(
    kind: str,
    scale: Scale,
    queries: FeatureSet,
    mirrored: FeatureSet | None,
    references: np.ndarray,
    digests: tuple[np.ndarray, np.ndarray] | None = None,  # of queries and references, where none is its own nearest
) -> Nearest:
    def scaled(seen: FeatureSet) -> np.ndarray:
        return scale.apply(seen.features) if kind == "features" else scale_pixels(seen.pixels)

    own = identities = None
    if digests is not None:
        numbers = np.unique(np.concatenate(digests), return_inverse=True)[1].reshape(-1)
        own, identities = numbers[: len(digests[0])], numbers[len(digests[0]) :]
    flipped = None if mirrored is None else scaled(mirrored)
    try:
        return find_nearest(scaled(queries), references, flipped, own, identities)
    except ValueError as error:
        raise MetricsError(f"the nearest training pictures cannot be told: {error}") from error


def _leave_one_out(
    trained_on: Reference, trained: FeatureSet, mirror: bool, extractor: Extractor, progress: Progress
) -> _Yardstick:
    rows = _choose(len(trained))
    mirrored = trained_on.measure(extractor, progress, trained_on.chosen[rows], mirrored=True) if mirror else None
    said = f"each of {len(rows)} training pictures among the others (no pictures were held out)"
    return _Yardstick(trained.take(rows), mirrored, True, said)


def _hold_out(
    held_out: Reference, trained: FeatureSet, mirror: bool, extractor: Extractor, progress: Progress
) -> _Yardstick:
    chosen = held_out.chosen[_choose(len(held_out.chosen))]
    seen = held_out.measure(extractor, progress, chosen)
    new = np.flatnonzero(~np.isin(seen.pixel_digests, trained.pixel_digests))
    if not len(new):
        raise MetricsError(
            f"all pictures of {held_out.dataset} were trained on: --held-out needs pictures that were not, or leave it "
            "out to compare each training picture with the others"
        )
    mirrored = held_out.measure(extractor, progress, chosen[new], mirrored=True) if mirror else None
    known = len(chosen) - len(new)
    notes = (f"{known} of {len(chosen)} held-out pictures were trained on, and left out",) if known else ()
    return _Yardstick(seen.take(new), mirrored, False, f"{len(new)} held-out pictures of {held_out.dataset}", notes)


def _choose(count: int) -> np.ndarray:
    """At most COMPARED of `count`, at random, ascending."""
    return np.sort(np.random.default_rng(SEED).permutation(count)[:COMPARED])


def _show(
    samples: Samples, rows: np.ndarray, by_features: Nearest, by_pixels: Nearest, trained_on: Reference
) -> list[Suspect]:
    """The pictures of some samples, drawn again, and their neighbours."""
    seeds = [samples.seeds[row] for row in rows]
    labels = None if samples.labels is None else samples.labels[rows]
    fakes = list(draw_fakes(samples.generator, seeds, labels, samples.settings))
    beside = [_open_neighbours(found.take(rows), trained_on) for found in (by_features, by_pixels)]
    return [Suspect(*shown) for shown in zip(seeds, fakes, *beside, strict=True)]


def _open_neighbours(found: Nearest, trained_on: Reference) -> list[Neighbour]:
    reader: PictureReader = trained_on.reader
    with closing(reader.pictures(trained_on.chosen[found.references].tolist())) as pictures:
        shown = [to_rgb(picture) for picture in pictures]
    return [
        Neighbour(np.ascontiguousarray(picture[:, ::-1]) if flipped else picture, float(distance))
        for picture, distance, flipped in zip(shown, found.distances, found.mirrored, strict=True)
    ]
