"""What the training loop asks of an algorithm (DCGAN here), and the one place that knows which there are.

To add one: a config with its own `name` in `config.py`, a class that fits `Algorithm`, a branch in `build_algorithm`
and in the two functions of `networks.py`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from models.training.config import TrainingConfig
from models.training.dcgan import DCGAN


class Algorithm(Protocol):
    """Networks, losses and optimisers. The loop owns everything else: data, averages, counters, files."""

    def networks(self) -> Mapping[str, nn.Module]:
        """By the prefix of their tensors in a snapshot; "G" maps latents to pictures, "D" pictures to logits."""

    def step(self, reals: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        """One update of every network.

        reals: float32 (N, C, H, W) in -1..1, on the networks' device. rng: a CPU generator, the only source of chance.
        Returns scalars to be averaged over a tick, left on the device so that a GPU need not wait.
        """

    def settle_average(self, average: nn.Module) -> None:
        """Make a freshly averaged generator fit to be used in eval mode. Deterministic, and leaves `rng` alone."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the networks: plain containers of tensors and numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


def build_algorithm(config: TrainingConfig, device: torch.device, rng: torch.Generator) -> Algorithm:
    """The algorithm that `config` names, on `device`, its weights drawn from `rng`."""
    return DCGAN(config, device, rng)
