"""Our StyleGAN2 as safetensors in the layout of the published PyTorch networks (StyleGAN2-ADA, StyleGAN3's config F).

One file per network. Its tensors are exactly those of the published class, filters included, so that a strict
`load_state_dict` there takes them; its header says how to construct that class (`init_kwargs`, JSON).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as serialise

from models.gan.fir import setup_filter
from models.interchange.stylegan2_names import NetworkName, filter_names, to_published
from models.training.atomic import publish
from models.training.config import StyleGAN2Config, TrainingConfig

Network = Literal["G_ema", "G", "D"]

FORMAT = "kaobako-published-1"
PUBLISHED_START = (4, 4)  # rows and columns of the smallest map of every published network


class LayoutError(ValueError):
    """A network that the published layout has no place for; the message says which setting, and what does hold it."""


def check_layout(config: TrainingConfig) -> StyleGAN2Config:
    """The network's settings, or LayoutError if no published class could be made that computes the same."""
    style = config.algorithm
    if not isinstance(style, StyleGAN2Config):
        raise LayoutError(
            f"safetensors in the published layout are for StyleGAN2, and this is a {style.name}: use onnx"
        )
    if config.aspect != PUBLISHED_START:
        raise LayoutError(
            f"the published StyleGAN2 makes squares from a map of 4 x 4, and this one {config.width} x {config.height} "
            f"from {config.aspect[1]} x {config.aspect[0]} (columns x rows): use onnx"
        )
    if not style.normalize_latent:
        raise LayoutError(
            "the published StyleGAN2 always scales its latents, and this one does not (normalize_latent = false): "
            "use onnx"
        )
    return style


def publish_tensors(
    network: NetworkName, tensors: Mapping[str, torch.Tensor], config: TrainingConfig
) -> dict[str, torch.Tensor]:
    """The state dict of the published class: our tensors by their names there, unchanged, and the filters.

    Raises LayoutError (see `check_layout`), or ValueError for tensors that are not our StyleGAN2's.
    """
    style = check_layout(config)
    names = to_published(network, tensors, config.resolution)
    published = {names[name]: tensor.contiguous() for name, tensor in tensors.items()}
    taps = setup_filter()
    kernel = torch.outer(taps, taps)
    for name in filter_names(network, config.resolution, skips=style.d_architecture == "resnet"):
        published[name] = kernel.clone()
    return published


def init_kwargs(network: NetworkName, config: TrainingConfig) -> dict[str, Any]:
    """The arguments of the published class, by their names in StyleGAN2-ADA."""
    style = check_layout(config)
    common = {"c_dim": config.labels, "img_resolution": config.resolution, "img_channels": config.channels}
    if network == "D":
        return {
            **common,
            "architecture": style.d_architecture,
            "channel_base": style.d_channel_base or style.channel_base,
            "channel_max": style.d_channel_max or style.channel_max,
            "num_fp16_res": style.half_resolutions,
            "conv_clamp": style.conv_clamp,
            "epilogue_kwargs": {
                "mbstd_group_size": style.mbstd_group,
                "mbstd_num_channels": style.mbstd_features,
            },
        }
    return {
        "z_dim": style.z_dim,
        "w_dim": style.w_dim,
        **common,
        "mapping_kwargs": {"num_layers": style.mapping_layers},
        "synthesis_kwargs": {
            "channel_base": style.channel_base,
            "channel_max": style.channel_max,
            "num_fp16_res": style.half_resolutions,
            "conv_clamp": style.conv_clamp,
        },
    }


def write_network(
    network: Network,
    tensors: Mapping[str, torch.Tensor],  # our state dict
    config: TrainingConfig,
    path: Path,
    notes: Mapping[str, str] | None = None,  # further lines of the header, such as the dataset's digest
) -> None:
    """Write one network, all of it or nothing. Raises LayoutError or ValueError, see `publish_tensors`."""
    kind: NetworkName = "D" if network == "D" else "G"
    header = {
        "format": FORMAT,
        "network": network,
        "class": "Discriminator" if kind == "D" else "Generator",
        "init_kwargs": json.dumps(init_kwargs(kind, config)),
        **(notes or {}),
    }
    if kind == "G":
        header["num_ws"] = str(2 * config.resolution.bit_length() - 4)  # 2 log2(resolution) - 2
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(serialise(publish_tensors(kind, tensors, config), metadata=header))
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
