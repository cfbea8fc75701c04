"""What the training loop asks of an algorithm, and the one place that knows which there are.

To add one: a config with its own `name` in `config.py`, a class that fits `Algorithm`, a branch in `build_algorithm`
and in the two functions of `networks.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from models.training.config import DCGANConfig, R3GANConfig, TrainingConfig
from models.training.distributed import ALONE, Workers


@dataclass(frozen=True)
class TrainingBatch:
    """This process's part of a step's real pictures."""

    images: torch.Tensor  # uint8 (n, C, H, W), 0..255
    labels: torch.Tensor | None  # float32 (n, labels); None where the training has none
    first: int  # where images[0] stands in the batch over all processes
    total: int  # pictures in the batch over all processes
    nimg: int  # real pictures seen before this step


class Algorithm(Protocol):
    """Networks, losses and optimisers. The loop owns everything else: data, averages, counters, files."""

    def networks(self) -> Mapping[str, nn.Module]:
        """By the prefix of their tensors in a snapshot; "G" maps latents to pictures, "D" pictures to logits."""

    def step(self, batch: TrainingBatch, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """One update of every network.

        rng: a CPU generator, the only source of chance, in the same state in every process: what is drawn is drawn for
        `batch.total` samples, so that the parts fit together.
        Returns scalars to be averaged over a tick, left on the device so that a GPU need not wait.
        """

    def settle_average(self, average: nn.Module) -> None:
        """Make a freshly averaged generator fit to be used in eval mode. Deterministic, and leaves `rng` alone."""

    def describe(self) -> dict[str, float]:
        """Figures of this moment for the tick's line, such as the strength of an augmentation."""

    def events(self) -> list[str]:
        """What a person should know that has happened since this was last asked: warnings, a sentence each."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the networks: plain containers of tensors and numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


def build_algorithm(
    config: TrainingConfig, device: torch.device, rng: torch.Generator, workers: Workers = ALONE
) -> Algorithm:
    """The algorithm that `config` names, on `device`, its weights drawn from `rng`.

    Raises ValueError for an algorithm that several processes cannot share.
    """
    if isinstance(config.algorithm, DCGANConfig):
        from models.training.dcgan import DCGAN

        if workers.world > 1:
            raise ValueError("the DCGAN's batch norm needs the whole batch in one process: start it without torchrun")
        return DCGAN(config, device, rng)
    if isinstance(config.algorithm, R3GANConfig):
        from models.training.r3gan import R3GAN

        return R3GAN(config, device, rng, workers)
    from models.training.stylegan2 import StyleGAN2

    return StyleGAN2(config, device, rng, workers)
