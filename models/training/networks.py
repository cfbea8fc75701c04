"""Networks and devices from a config, for training and for everything that loads a snapshot."""

import torch

from models.device import best_device
from models.gan.dcgan import Discriminator, Generator
from models.training.config import DeviceChoice, TrainingConfig


def resolve_device(choice: DeviceChoice) -> torch.device:
    """The device that `choice` means here; RuntimeError if it asks for CUDA and there is none."""
    if choice is DeviceChoice.AUTO:
        return best_device()
    if choice is DeviceChoice.CUDA and not torch.cuda.is_available():
        raise RuntimeError("device = cuda, but torch sees no CUDA device: use device = auto or cpu")
    return torch.device(choice.value)


def build_generator(config: TrainingConfig) -> Generator:
    """The generator that `config` describes, on the CPU, in training mode, with torch's own initial weights."""
    return Generator(config.algorithm.z_dim, config.algorithm.width, config.resolution, config.channels)


def build_discriminator(config: TrainingConfig) -> Discriminator:
    """The discriminator that `config` describes, on the CPU, in training mode, with torch's own initial weights."""
    return Discriminator(config.algorithm.width, config.resolution, config.channels)
