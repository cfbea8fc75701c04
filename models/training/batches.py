"""Real pictures on their way into a training, held against what its config says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from models.training.config import TrainingConfig

Data = Callable[[int], Iterator[Any]]
"""Batches from sample index n on, for ever: uint8 (batch, C, H, W), 0..255, or objects with such `images` and float
`labels` (batch, labels). The same n gives the same batches. Of several processes each is given its own part."""


class Reals(NamedTuple):
    """One process's part of a batch."""

    images: torch.Tensor  # uint8 (n, C, H, W), 0..255
    labels: torch.Tensor | None  # float32 (n, labels); None where the training has none


class RealBatches:
    """The batches of a training's data, checked one by one."""

    def __init__(
        self,
        data: Data,
        config: TrainingConfig,
        count: int,  # pictures of each batch that are this process's
    ) -> None:
        self._data = data
        self._labels = config.labels
        self._shape = (count, config.channels, config.height, config.width)

    @contextmanager
    def read_from(self, index: int) -> Iterator[Iterator[Reals]]:
        """Batches from sample `index` on. The reader is closed at the end, whatever happens: one that reads ahead has
        threads and pictures of its own. Taking a batch raises ValueError for one of another shape or type, or none."""
        batches = self._data(index)
        try:
            yield self._check_all(batches)
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()

    def read_first(self, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The first samples: uint8 (count, H, W, C), and their labels, float32 (count, labels), if there are any."""
        images: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        with self.read_from(0) as batches:
            while len(images) < count:
                some, theirs = next(batches)
                images += list(some.permute(0, 2, 3, 1).cpu().numpy())
                labels += [] if theirs is None else list(theirs.cpu().numpy())
        return np.stack(images[:count]), np.stack(labels[:count]) if labels else None

    def _check_all(self, batches: Iterator[Any]) -> Iterator[Reals]:
        yield from map(self._check, batches)
        raise ValueError("the data ended: it must begin anew instead")

    def _check(self, given: Any) -> Reals:
        images = _to_tensor(getattr(given, "images", given))
        if tuple(images.shape) != self._shape or images.dtype != torch.uint8:
            raise ValueError(f"expected batches of uint8 {self._shape}, got {images.dtype} {tuple(images.shape)}")
        if self._labels == 0:
            return Reals(images, None)
        labels = _to_tensor(getattr(given, "labels", np.empty((len(images), 0))))
        if tuple(labels.shape) != (len(images), self._labels):
            raise ValueError(f"expected labels of shape {(len(images), self._labels)}, got {tuple(labels.shape)}")
        return Reals(images, labels.float())


def _to_tensor(values: np.ndarray | torch.Tensor) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
