"""What every feature extractor has in common: pictures in batches of one shape, checked features out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from models.device import in_full_precision, plain_arithmetic

Pictures = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
Compute = Callable[[Pictures], npt.NDArray[np.floating]]

BATCH = 16  # pictures; small enough for the large maps of a network's first layers on a CPU
TRIAL_SIDE = 64  # pixels of the picture that a network is tried on


class ExtractorError(RuntimeError):
    """A network cannot be used as a feature extractor; the message says what to do."""


class NetworkExtractor:
    """Features of a network that computes them for a batch of pictures. See `models.metrics.extractors.Extractor`."""

    def __init__(
        self,
        name: str,
        digest: str,
        compute: Compute,  # uint8 (batch, H, W, 3) -> float (batch, D), or (batch, D, h, w) to be averaged over space
        batch: int = BATCH,
    ) -> None:
        """Tries the network on a batch of plain pictures: what cannot work is an `ExtractorError` now."""
        self.name, self.digest, self._compute, self._batch = name, digest, compute, batch
        self.features = self._run(np.full((batch, TRIAL_SIDE, TRIAL_SIDE, 3), 128, np.uint8)).shape[1]

    def extract(self, pictures: Pictures) -> Features:
        """See `models.metrics.extractors.Extractor.extract`."""
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or 0 in pictures.shape[1:]:
            raise ValueError(
                f"features are of uint8 RGB pictures (N, H, W, 3), got {pictures.dtype} {pictures.shape}: "
                "repeat a grey channel three times, and lay transparent pictures on a ground"
            )
        features = np.empty((len(pictures), self.features), np.float32)
        # A network's last bits depend on the batch's shape. It is always the same one, so not on a picture's company.
        padded = np.zeros((self._batch, *pictures.shape[1:]), np.uint8)
        for start in range(0, len(pictures), self._batch):
            part = pictures[start : start + self._batch]
            padded[: len(part)] = part
            features[start : start + len(part)] = self._run(padded)[: len(part)]
        return features

    def _run(self, pictures: Pictures) -> Features:
        found = np.asarray(self._compute(pictures))
        if found.ndim == 4:
            found = found.mean(axis=(2, 3), dtype=np.float64)
        if found.ndim != 2 or len(found) != len(pictures) or found.shape[1] == 0:
            raise ExtractorError(
                f"{self.name} answers {len(pictures)} pictures with the shape {found.shape}: features are (N, D), or "
                "(N, D, h, w), which are averaged over space. Export the network so, or name another output."
            )
        if not np.isfinite(found).all():
            raise ExtractorError(f"{self.name} gives features that are not finite: check the range of its input.")
        return found.astype(np.float32, copy=False)


def digest_definition(content: bytes, definition: str) -> str:
    """SHA-256 in hex of weights and of what is computed from them: equal digests mean equal features."""
    return hashlib.sha256(f"{hashlib.sha256(content).hexdigest()} {definition}".encode()).hexdigest()


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Within, networks compute in float32 proper, the same way each time, and keep nothing for gradients."""
    cudnn = torch.backends.cudnn
    with torch.inference_mode(), in_full_precision(device), plain_arithmetic(device):
        before = cudnn.benchmark, cudnn.deterministic
        cudnn.benchmark, cudnn.deterministic = False, True
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.deterministic = before
