"""Chance for large maps, drawn on the device and yet the same however a batch is cut.

A synthesis draws a noise map per layer and picture: too much to draw on the CPU for a whole batch and copy. Each group
of 4 consecutive pictures has a generator of its own on the device instead, seeded by (seed, number of the group), so
that gradient accumulation, or several processes, see the noise that one large batch would have seen.
"""

from collections.abc import Sequence

import numpy as np
import torch

GROUP = 4  # pictures that share a generator: a quarter of the kernel launches, and micro-batches in steps of 4


class SampleNoise:
    """Normal values for pictures first .. first + count - 1 of a batch.

    A picture's values depend on (seed, its number in the batch, which call of `draw` it is, that call's shape) and the
    kind of device: not on first or count. One seed per pass: draw it from the run's generator.
    """

    def __init__(self, seed: int, first: int, count: int, device: torch.device | str = "cpu") -> None:
        if seed < 0 or first < 0 or count < 1:
            raise ValueError(f"need a seed and a first of 0 or more and at least one picture: {seed}, {first}, {count}")
        self.count = count
        self.device = torch.device(device)
        groups = range(first // GROUP, (first + count - 1) // GROUP + 1)
        self._skipped = first % GROUP  # pictures of the first group that are not asked for
        self._generators = [torch.Generator(self.device).manual_seed(_mix(seed, group)) for group in groups]

    def draw(self, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal float32 (count, *shape) on the device: the next values of each picture."""
        parts = [
            torch.randn((GROUP, *shape), generator=generator, device=self.device) for generator in self._generators
        ]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole[self._skipped : self._skipped + self.count]


def _mix(seed: int, group: int) -> int:
    """One seed of 63 bits from two numbers, so that neighbouring seeds and groups share nothing."""
    low, high = np.random.SeedSequence([seed, group]).generate_state(2, np.uint32)
    return int(low) | (int(high) >> 1) << 32
