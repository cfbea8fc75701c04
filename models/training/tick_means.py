"""Means of a training's statistics over a tick, kept on the device so that a GPU need not wait at every step."""

from collections.abc import Mapping
from typing import Any

import torch

from models.training.distributed import Workers


class TickMeans:
    """Sums since the last tick. A value that is not finite is left out: one overflow, whose gradients were mended, must
    not spoil the mean of a tick."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}  # of the steps that gave each a finite value: some come now and then

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Scalars of one step."""
        nothing = torch.zeros((), device=self._device)
        for name, value in values.items():
            good = torch.isfinite(value)
            self._sums[name] = self._sums.get(name, nothing) + torch.where(good, value, nothing)
            self._counts[name] = self._counts.get(name, nothing) + good

    def take(self, workers: Workers) -> dict[str, float]:
        """The means over all processes, NaN where no value was finite; begins anew."""
        values = [total / self._counts[name] for name, total in self._sums.items()]
        workers.average(values)
        means = {name: value.item() for name, value in zip(self._sums, values, strict=True)}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave, perhaps among other things."""
        self._sums = {name: total.to(self._device) for name, total in state["sums"].items()}
        # before, every statistic came with every step, and one number did
        counts = state["counts"] if "counts" in state else dict.fromkeys(self._sums, state["steps"])
        self._counts = {
            name: torch.as_tensor(count, dtype=torch.float32, device=self._device) for name, count in counts.items()
        }
