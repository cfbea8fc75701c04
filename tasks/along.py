"""Measuring along: facts of later stages, found while an earlier stage still holds a crop's pixels.

A crop is decoded, or cut out, once; cleaning, hashing and whatever else looks at crops one by one does so then and
there. Without it each of these stages would read and decode the same file again, which costs more than what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.cache import INPUT, MeasurementCache
from datasets.store import Store
from tasks.stage import Stage, StageParams


@dataclass(frozen=True)
class AlongRef:
    """A later stage, as a task needs it to find its facts too: small and picklable, as stages are not."""

    measure_pixels: Callable[[np.ndarray, Any], dict[str, Any]]
    params: type[StageParams]
    settings: dict[str, Any]  # the measured fields
    facts: pa.Schema
    cache: Path

    def open_cache(self) -> MeasurementCache:
        return MeasurementCache(self.cache, self.facts)


def find_followers(
    stage: Stage, chain: Sequence[tuple[Stage, StageParams]], store: Store, inputs: pa.ChunkedArray
) -> tuple[AlongRef, ...]:
    """The stages behind `stage` in the chain that can be measured along with it.

    inputs: what `stage` is about to measure. Where these are crops, stages that know all of them are left out.
    """
    names = [other.name for other, _ in chain]
    if len(inputs) == 0 or stage.name not in names or not (stage.cuts_crops or stage.measure_pixels):
        return ()
    found = []
    for other, params in chain[names.index(stage.name) + 1 :]:
        if other.measure_pixels is None or other.facts is None or not other.enabled(params):
            continue
        cache = other.cache(params, store)
        if stage.measure_pixels is None or len(cache.lookup(inputs)) < pc.count_distinct(inputs).as_py():
            settings = params.measured_settings()
            found.append(AlongRef(other.measure_pixels, other.params, settings, other.facts, cache.folder))
    return tuple(found)


class Along:
    """The facts of later stages that one shard finds."""

    def __init__(self, refs: Sequence[AlongRef]) -> None:
        self._refs = [(ref, ref.params(**ref.settings).for_measure()) for ref in refs]
        self._rows: list[dict[str, dict[str, Any]]] = [{} for _ in refs]

    def measure(self, pixel_digest: str, rgb: np.ndarray) -> None:
        """Find all facts of one crop, uint8 (H, W, 3); each distinct crop is looked at once."""
        for (ref, params), rows in zip(self._refs, self._rows, strict=True):
            if pixel_digest not in rows:
                rows[pixel_digest] = {INPUT: pixel_digest, **ref.measure_pixels(rgb, params)}

    def keep(self) -> None:
        """Add what was found to the caches."""
        for (ref, _), rows in zip(self._refs, self._rows, strict=True):
            ref.open_cache().add(pa.Table.from_pylist(list(rows.values()), schema=ref.facts))
