"""The order of a training's samples."""

from __future__ import annotations

import numpy as np


class SampleOrder:
    """Which picture sample i is, and whether it is mirrored: a function of (seed, i) alone.

    Each epoch is a permutation of its own, drawn from a generator that is keyed by seed and epoch.
    """

    def __init__(self, count: int, seed: int) -> None:
        """count: pictures. seed: 0 to 2^64 - 1."""
        self.count = count
        self.seed = seed
        self._epoch = -1  # the last one drawn is remembered
        self._order = np.empty(0, np.int64)
        self._coins = np.empty(0, np.bool_)

    def draw(self, start: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples start .. start + batch - 1: int64 pictures in 0..count-1, and bool mirror coins."""
        samples = np.arange(start, start + batch)
        epochs, places = np.divmod(samples, self.count)
        pictures = np.empty(batch, np.int64)
        coins = np.empty(batch, np.bool_)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            inside = epochs == epoch
            self._shuffle(epoch)
            pictures[inside] = self._order[places[inside]]
            coins[inside] = self._coins[places[inside]]
        return pictures, coins

    def _shuffle(self, epoch: int) -> None:
        if epoch != self._epoch:
            key = np.array([self.seed, epoch], np.uint64)  # a list would pass through float64 from a seed of 2^63 on
            rng = np.random.Generator(np.random.Philox(key=key))
            self._order, self._coins = rng.permutation(self.count), rng.random(self.count) < 0.5
            self._epoch = epoch
