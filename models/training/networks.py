"""Networks and devices from a config, for training and for everything that loads a snapshot."""

from typing import Any

import torch
from torch import nn

from models.device import best_device
from models.training.config import DCGANConfig, DeviceChoice, Precision, R3GANConfig, TrainingConfig


def resolve_device(choice: DeviceChoice) -> torch.device:
    """The device that `choice` means here; RuntimeError if it asks for CUDA and there is none."""
    if choice is DeviceChoice.AUTO:
        return best_device()
    if choice is DeviceChoice.CUDA and not torch.cuda.is_available():
        raise RuntimeError("device = cuda, but torch sees no CUDA device: use device = auto or cpu")
    return torch.device(choice.value)


def resolve_precision(
    choice: Precision, device: torch.device, on_gpu: Precision = Precision.FLOAT16
) -> torch.dtype | None:
    """What the larger maps are computed in on a device; None is float32 everywhere. on_gpu: what AUTO is on CUDA.

    ValueError for float16 on a CPU, which has no fast float16 and would overflow for nothing.
    """
    if choice is Precision.AUTO and device.type == "cuda":
        choice = on_gpu
    if choice in (Precision.FLOAT32, Precision.AUTO):
        return None
    if choice is Precision.BFLOAT16:
        return torch.bfloat16
    if device.type != "cuda":
        raise ValueError("precision float16 needs a CUDA device: use auto, float32 or bfloat16")
    return torch.float16


def build_generator(config: TrainingConfig) -> nn.Module:
    """The generator that `config` describes, on the CPU, in training mode; its weights mean nothing yet."""
    if isinstance(config.algorithm, DCGANConfig):
        from models.gan import dcgan

        a = config.algorithm
        return dcgan.Generator(a.z_dim, a.width, config.resolution, config.channels, a.kernel)
    if isinstance(config.algorithm, R3GANConfig):
        from models.gan import r3gan

        return r3gan.Generator(config.algorithm.z_dim, **_r3gan_settings(config, config.algorithm))
    from models.gan.stylegan2 import Generator

    style = config.algorithm
    return Generator(
        z_dim=style.z_dim,
        w_dim=style.w_dim,
        c_dim=config.labels,
        width=config.width,
        height=config.height,
        channels=config.channels,
        channel_base=style.channel_base,
        channel_max=style.channel_max,
        mapping_layers=style.mapping_layers,
        start=config.aspect,
        half_resolutions=style.half_resolutions,
        conv_clamp=style.conv_clamp,
        normalize_latent=style.normalize_latent,
    )


def build_discriminator(config: TrainingConfig) -> nn.Module:
    """The discriminator that `config` describes, on the CPU, in training mode; its weights mean nothing yet."""
    if isinstance(config.algorithm, DCGANConfig):
        from models.gan import dcgan

        a = config.algorithm
        return dcgan.Discriminator(a.width, config.resolution, config.channels, a.kernel, a.dropout)
    if isinstance(config.algorithm, R3GANConfig):
        from models.gan import r3gan

        return r3gan.Discriminator(**_r3gan_settings(config, config.algorithm))
    from models.gan.stylegan2 import Discriminator

    style = config.algorithm
    return Discriminator(
        c_dim=config.labels,
        width=config.width,
        height=config.height,
        channels=config.channels,
        channel_base=style.d_channel_base or style.channel_base,
        channel_max=style.d_channel_max or style.channel_max,
        mbstd_group=style.mbstd_group,
        mbstd_features=style.mbstd_features,
        architecture=style.d_architecture,
        start=config.aspect,
        half_resolutions=style.half_resolutions,
        conv_clamp=style.conv_clamp,
    )


def _r3gan_settings(config: TrainingConfig, algorithm: R3GANConfig) -> dict[str, Any]:
    """What G and D have in common: all but the latent."""
    return {
        "c_dim": config.labels,
        "width": config.width,
        "height": config.height,
        "channels": config.channels,
        "channel_base": algorithm.channel_base,
        "channel_max": algorithm.channel_max,
        "blocks": algorithm.blocks,
        "label_features": algorithm.label_features,
        "start": config.aspect,
        "half_resolutions": algorithm.half_resolutions,
    }
