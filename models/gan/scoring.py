"""Scores of pictures by a trained discriminator: how real it holds each to be (the ranking step of Kaobako).

The idea is gwern's ("Making Anime Faces With StyleGAN"): look at both ends of the ranking. A discriminator trained for
long knows its own reals by heart and says little about quality, so an early snapshot ranks better than a late one.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.gan.pictures import resize, to_input
from models.gan.stylegan2 import Discriminator as StyleDiscriminator
from models.training.networks import build_discriminator
from models.training.run import find_snapshot
from models.training.snapshot import SnapshotError, load_weights, read_record, weights_path

BATCH = 32  # of every call of the network, whatever is asked for: another shape may change the last bits
DECIMALS = 6


class DiscriminatorScorer:
    """A discriminator in eval mode: a picture's score depends on its own pixels only."""

    def __init__(self, network: nn.Module, height: int, width: int, channels: int, digest: str) -> None:
        self.network = network
        self.height = height  # pixels that the network looks at
        self.width = width
        self.channels = channels
        self.digest = digest  # SHA-256 over the network's tensors: names, types, shapes, values

    @torch.inference_mode()
    def score(self, pictures: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Logits, float64 (N,), rounded to 6 decimals; higher is more real. Not calibrated: 0 is undecided, but of an
        R3GAN, which learns differences alone, 0 means nothing.

        pictures: uint8 RGB, (N, H, W, 3), or a sequence of (H, W, 3) of any sizes. Each is resized to the network's
        size (areas averaged when shrinking, Lanczos when growing), the aspect ratio not kept, as for training.
        Raises ValueError for other types or shapes.
        """
        scores = np.empty(len(pictures), np.float64)
        device = next(self.network.parameters()).device
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            batch = np.zeros((BATCH, self.channels, self.height, self.width), np.uint8)
            for k, picture in enumerate(part):
                batch[k] = self._fit(picture)
            logits: torch.Tensor = self.network(to_input(torch.from_numpy(batch), device))
            scores[start : start + len(part)] = logits[: len(part)].double().cpu().numpy()
        return np.round(scores, DECIMALS) + 0.0  # no minus zero

    def _fit(self, picture: np.ndarray) -> np.ndarray:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
            raise ValueError(f"expected uint8 RGB (H, W, 3), got {picture.dtype} {picture.shape}")
        fitted = resize(picture, self.width, self.height).transpose(2, 0, 1)
        if self.channels == 3:
            return fitted
        if self.channels == 4:
            return np.concatenate([fitted, np.full((1, *fitted.shape[1:]), 255, np.uint8)])  # opaque
        luma = np.tensordot(np.array([0.299, 0.587, 0.114]), fitted, axes=1)  # BT.601, as Pillow's "L"
        return np.round(luma)[None].astype(np.uint8)


def load_discriminator(snapshot: Path, device: torch.device | str = "cpu") -> DiscriminatorScorer:
    """The discriminator of a snapshot (`.json` or `.safetensors`), or of a run folder's newest sound snapshot.

    Raises RunError or SnapshotError, with what to do, if there is no usable snapshot.
    """
    path = find_snapshot(snapshot)
    config = read_record(path).config
    if config.labels:
        raise SnapshotError(
            f"{path.stem} judges pictures by their labels, which crops have none of: rank by another run"
        )
    tensors = load_weights(weights_path(path), "D")
    network = build_discriminator(config)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise SnapshotError(f"{weights_path(path)} does not fit its own config: {error}") from error
    network.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval().requires_grad_(False)
    if isinstance(network, StyleDiscriminator):
        network.mbstd_group = 1  # a picture's score must not depend on its company: it has no spread
    return DiscriminatorScorer(network, config.height, config.width, config.channels, tensors_digest(tensors))


def tensors_digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 in hex over named tensors in the order of their names: name, type, shape, values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].contiguous().numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
