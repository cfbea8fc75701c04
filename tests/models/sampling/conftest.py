"""Generators that were never trained: enough to see what sampling does with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.gan.stylegan2 import initialise
from models.sampling.generator import LoadedGenerator
from models.training.config import DatasetRef, DeviceChoice, StyleGAN2Config, TrainingConfig
from models.training.networks import build_generator

MakeStyles = Callable[..., LoadedGenerator]


def make_styles(
    resolution: int = 32, aspect: tuple[int, int] = (4, 4), channels: int = 3, labels: int = 0, channel_base: int = 256
) -> LoadedGenerator:
    """A StyleGAN2 with random weights, noise that shows, and the true mean style."""
    config = TrainingConfig(
        algorithm=StyleGAN2Config(
            z_dim=16, w_dim=16, mapping_layers=2, channel_base=channel_base, channel_max=16, mbstd_group=2
        ),
        resolution=resolution,
        aspect=aspect,
        channels=channels,
        labels=labels,
        device=DeviceChoice.CPU,
    )
    network = build_generator(config)
    rng = torch.Generator().manual_seed(0)
    initialise(network, rng)
    classes = torch.eye(labels)[torch.arange(1000) % labels] if labels else None
    with torch.no_grad():
        network.w_mean.copy_(network.mapping(torch.randn(1000, 16, generator=rng), classes).mean(dim=0))
        for layer in network.synthesis.noise_layers():
            layer.noise_strength.fill_(0.2)
        for level in network.synthesis.levels:
            level.to_rgb.weight.mul_(0.2)  # within -1..1, where a difference is not clamped away
    network.eval().requires_grad_(False)
    return LoadedGenerator(network, config, DatasetRef("blobs", 1, "0" * 64, 10), 0, Path("none.safetensors"))


@pytest.fixture(scope="session")
def styles() -> LoadedGenerator:
    """32 x 32, RGB, 8 layers."""
    return make_styles()


@pytest.fixture(scope="session")
def new_styles() -> MakeStyles:
    return make_styles
