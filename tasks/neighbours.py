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
from models.metrics.memorisation import Memorisation, judge_memorisation, most_suspicious
from models.metrics.neighbours import (
    Nearest,
    Scale,
    find_nearest,
    group_twins,
    mirror_pixels,
    scale_pixels,
    twin_limit,
)
from models.sampling.generator import LoadedGenerator
from models.sampling.settings import SamplingSettings
from tasks.metric_features import FeatureSet, draw_fakes, to_rgb
from tasks.metric_reference import MetricsError, Reference
from tasks.progress import Progress

COMPARED = 2000  # samples, and reals, that are looked up: the share of 1 % is then known to .3 %
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
    mirrored: FeatureSet | None  # where the training mirrored: features need not be near those of a mirror image


@dataclass(frozen=True)
class Yardstick:
    """The training pictures, and how near to them other real pictures come."""

    trained: FeatureSet
    scale: Scale  # of their features
    features: np.ndarray  # float32 (N,): of each of those reals to the nearest training picture that it is no copy of
    pixels: np.ndarray  # float32 (N,)
    leave_one_out: bool  # the reals are training pictures themselves
    said: str  # which reals those are
    notes: tuple[str, ...] = ()


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


def find_yardstick(
    trained_on: Reference,
    held_out: Reference | None,  # None: training pictures are compared with each other
    mirror: bool,  # the training mirrored: mirror images of training pictures count, too
    extractor: Extractor,
    progress: Progress,
) -> Yardstick:
    """How near real pictures come to the training pictures, where neither is a copy of the other.

    Raises MetricsError where there is nothing to compare with.
    """
    trained = trained_on.measure(extractor, progress)
    if held_out is None:
        return _leave_one_out(trained_on, trained, mirror, extractor, progress)
    return _hold_out(held_out, trained, mirror, extractor, progress)


def check_memorisation(
    samples: Samples,
    trained_on: Reference,
    yardstick: Yardstick,
    folder: Path,  # for the pictures
    stem: str,  # that their names end in
    progress: Progress,
) -> MemorisationReport:
    """See whether samples lie nearer to the training pictures than other reals do. Writes pictures."""
    by_features = _search_features(samples.seen, samples.mirrored, yardstick.trained, yardstick.scale)
    progress("neighbours", 3, 4)
    by_pixels = _search_pixels(samples.seen, samples.mirrored is not None, yardstick.trained)
    progress("neighbours", 4, 4)
    judged, judged_pixels = (
        judge_memorisation(found.distances, usual, yardstick.leave_one_out)
        for found, usual in ((by_features, yardstick.features), (by_pixels, yardstick.pixels))
    )
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
        Distances("features", by_features.distances, yardstick.features, judged.threshold, judged.share),
        Distances("pixels", by_pixels.distances, yardstick.pixels, judged_pixels.threshold, judged_pixels.share),
    ]
    if draw_distances(histogram, panels, "reals", f"Nearest training picture: samples, and {yardstick.said}"):
        pictures["neighbours-histogram"] = histogram
    return MemorisationReport(judged, judged_pixels, yardstick.said, pictures, yardstick.notes)


def _search_features(
    queries: FeatureSet,
    mirrored: FeatureSet | None,
    trained: FeatureSet,
    scale: Scale,
    own: np.ndarray | None = None,  # groups of copies, of the queries
    groups: np.ndarray | None = None,  # and of the training pictures
) -> Nearest:
    flipped = None if mirrored is None else mirrored.features
    return find_nearest(queries.features, trained.features, scale.apply, flipped, own, groups)


def _search_pixels(
    queries: FeatureSet,
    mirror: bool,
    trained: FeatureSet,
    own: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Nearest:
    flipped = mirror_pixels(queries.pixels) if mirror else None
    return find_nearest(queries.pixels, trained.pixels, scale_pixels, flipped, own, groups)


def _leave_one_out(
    trained_on: Reference, trained: FeatureSet, mirror: bool, extractor: Extractor, progress: Progress
) -> Yardstick:
    """Each training picture among those that it is no copy of; of pictures that are copies of one, one is taken."""
    origins = trained_on.origins()
    order = np.random.default_rng(SEED).permutation(len(trained))
    rows = order[_first_of_each(origins[order])][:COMPARED]
    groups = group_twins(origins, trained.pixels, rows, twin_limit(trained.pixels))
    rows = np.sort(rows[_first_of_each(groups[rows])])
    copied = int((np.bincount(groups)[groups[rows]] > 1).sum())
    mirrored = trained_on.measure(extractor, progress, trained_on.chosen[rows], mirrored=True) if mirror else None
    scale, queries, own = Scale.of(trained.features), trained.take(rows), groups[rows]
    try:
        features = _search_features(queries, mirrored, trained, scale, own, groups).distances
        progress("neighbours", 1, 4)
        pixels = _search_pixels(queries, mirror, trained, own, groups).distances
        progress("neighbours", 2, 4)
    except ValueError as error:
        raise MetricsError(
            f"how near reals come to the pictures of {trained_on.dataset} cannot be told: {error}. Name pictures that "
            "were not trained on by --held-out, or leave neighbours out by --no-neighbours"
        ) from error
    said = f"each of {len(rows)} training pictures among the others (no pictures were held out)"
    notes = (f"{copied} of {len(rows)} training pictures have copies, which they were not compared with",)
    return Yardstick(trained, scale, features, pixels, True, said, notes if copied else ())


def _hold_out(
    held_out: Reference, trained: FeatureSet, mirror: bool, extractor: Extractor, progress: Progress
) -> Yardstick:
    """Pictures that were held out, but for those that are copies of training pictures, or of each other."""
    chosen = held_out.chosen[np.sort(np.random.default_rng(SEED).permutation(len(held_out.chosen))[:COMPARED])]
    seen = held_out.measure(extractor, progress, chosen)
    limit = twin_limit(trained.pixels)
    known = np.isin(seen.pixel_digests, trained.pixel_digests)
    copies = ~known & (_search_pixels(seen, True, trained).distances <= limit)
    groups = group_twins(seen.pixel_digests, seen.pixels, np.arange(len(seen)), limit)
    new = np.setdiff1d(_first_of_each(groups), np.flatnonzero(known | copies))
    if not len(new):
        raise MetricsError(
            f"all pictures of {held_out.dataset} were trained on: --held-out needs pictures that were not, or leave it "
            "out to compare each training picture with the others"
        )
    mirrored = held_out.measure(extractor, progress, chosen[new], mirrored=True) if mirror else None
    scale, queries = Scale.of(trained.features), seen.take(new)
    features = _search_features(queries, mirrored, trained, scale).distances
    progress("neighbours", 1, 4)
    pixels = _search_pixels(queries, mirror, trained).distances
    progress("neighbours", 2, 4)
    left_out = {
        "were trained on": int(known.sum()),
        "are copies of training pictures": int(copies.sum()),
        "are copies of others": len(chosen) - len(new) - int((known | copies).sum()),
    }
    notes = tuple(
        f"{count} of {len(chosen)} held-out pictures {what}, and left out" for what, count in left_out.items() if count
    )
    return Yardstick(
        trained, scale, features, pixels, False, f"{len(new)} held-out pictures of {held_out.dataset}", notes
    )


def _first_of_each(groups: np.ndarray) -> np.ndarray:
    """Where each value occurs first, ascending: int64."""
    return np.sort(np.unique(groups, return_index=True)[1])


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
