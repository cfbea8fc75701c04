"""Networks of another program, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.gan.latents import draw_latents
from models.gan.levels import plan_levels
from models.gan.stylegan2 import Generator
from models.interchange.inert_pickle import ModelFileError, plain
from models.interchange.labels import take_turns
from models.training.config import StyleGAN2Config, TrainingConfig
from models.training.networks import build_discriminator, build_generator

MEAN_SEEDS = 10_000  # whose styles' mean replaces one that a file lacks
MEAN_BATCH = 500  # of them at once
SMALLEST, LARGEST = 16, 4096  # pixels of a side
MAX_WIDTHS = {"z_dim": 16_384, "w_dim": 16_384, "c_dim": 32_768}  # far beyond any known: a tiny file could claim more
SHOWN = 6  # names in a message

Settings = dict[str, Any]
"""Of a network: z_dim, w_dim, ... as the published networks name them; sizes and widths, from shapes."""


@dataclass(frozen=True)
class ImportedModel:
    """What an import gives."""

    config: TrainingConfig  # of a training that would make such networks; its lengths and losses are defaults
    networks: dict[str, nn.Module]  # "G_ema", "G" and perhaps "D", on the CPU
    found: dict[str, str]  # networks in the file -> their class there
    training_set: dict[str, Any]  # what the file says of its pictures
    notes: list[str] = field(default_factory=list)  # what a person should know


def fit_widths(name: str, sides: list[int], widths: list[int]) -> tuple[int, int]:
    """channel_base and channel_max that give these channels at maps of these sides; ModelFileError if none do."""
    if len(sides) < 2 or sides != [4 << k for k in range(len(sides))] or not SMALLEST <= sides[-1] <= LARGEST:
        raise ModelFileError(f"{name} has maps of {sides[:12]} pixels, not of 4, 8, ... up to {SMALLEST} to {LARGEST}")
    most = max(widths)
    narrow = [side * width for side, width in zip(sides, widths, strict=True) if width < most]
    base = narrow[0] if narrow else sides[-1] * most
    if [level.channels for level in plan_levels(sides[-1], sides[-1], base, most)] != widths:
        raise ModelFileError(f"{name} has {widths} channels at {sides} pixels, which no channel_base gives")
    return base, most


def build_config(generator: Settings, discriminator: Settings | None, mirrored: bool) -> TrainingConfig:
    """The config of such networks. Raises ModelFileError for one that ours cannot have."""
    for key, most in MAX_WIDTHS.items():
        if generator[key] > most:
            raise ModelFileError(f"{key} is {generator[key]:,}: networks of more than {most:,} are not imported")
    d = discriminator or {}
    widths = {key: generator[key] for key in ("channel_base", "channel_max")}
    try:
        algorithm = StyleGAN2Config(
            z_dim=generator["z_dim"],
            w_dim=generator["w_dim"],
            mapping_layers=generator["num_layers"],
            **widths,
            **{f"d_{key}": d[key] for key in widths if d and d[key] != widths[key]},
            **{key: d[key] for key in ("d_architecture", "mbstd_group", "mbstd_features") if d},
            half_resolutions=generator["half_resolutions"],
            conv_clamp=generator["conv_clamp"],
        )
        return TrainingConfig(
            algorithm=algorithm,
            resolution=generator["img_resolution"],
            channels=generator["img_channels"],
            labels=generator["c_dim"],
            mirror=mirrored,
        )
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ModelFileError(f"our StyleGAN2 cannot be such: {wrong}") from error


def fill_network(name: str, config: TrainingConfig, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A generator or (name "D") a discriminator of these tensors, by our names.

    The mean style may be missing; all else must be there in the right shape, finite, and nothing may be left over:
    ModelFileError otherwise.
    """
    build = build_discriminator if name == "D" else build_generator
    with torch.device("meta"):  # no memory until it is known that the file has as much
        expected = {key: tuple(tensor.shape) for key, tensor in build(config).state_dict().items()}
    missing = sorted(set(expected) - set(tensors) - {"w_mean"})
    surplus = sorted(set(tensors) - set(expected))
    shapes = [
        f"{key} has the shape {tuple(tensors[key].shape)}, not {shape}"
        for key, shape in expected.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    ]
    for what, names in (("lacks", missing), ("has too much:", surplus), ("does not fit:", shapes)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise ModelFileError(f"{name} {what} {', '.join(map(plain, names[:SHOWN]))}{more}")
    network = build(config)
    network.load_state_dict({key: _convert(name, key, tensor) for key, tensor in tensors.items()}, strict=False)
    return network.eval().requires_grad_(False)


def _convert(network: str, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise ModelFileError(f"{network}: {name} is stored as {tensor.dtype}, not as floating-point numbers")
    converted = tensor.to(torch.float32)
    if not bool(torch.isfinite(converted).all()):
        raise ModelFileError(
            f"{network}: {name} holds values that are not finite: that training went wrong, or the file"
        )
    return converted


def complete_generators(networks: dict[str, nn.Module], with_mean: bool) -> list[str]:
    """Add the generator that a file lacks, and a mean style where it says none. Returns what was done, for people."""
    notes = []
    if not with_mean:
        for name in ("G_ema", "G"):
            if isinstance(network := networks.get(name), Generator):
                network.w_mean.copy_(estimate_mean_style(network))
        notes.append(f"the file says no mean style, which truncation needs: it is that of seeds 0 to {MEAN_SEEDS - 1}")
    for name, other in (("G", "G_ema"), ("G_ema", "G")):
        if name not in networks:
            networks[name] = deepcopy(networks[other])
            notes.append(f"the file holds no {name}: it is a copy of {other}")
    if "D" not in networks:
        notes.append("the file holds no D: nothing can be ranked by it, and a transfer begins with a new one")
    return notes


@torch.inference_mode()
def estimate_mean_style(generator: Generator) -> Tensor:
    """The mean of w over seeds 0 to MEAN_SEEDS - 1, float32 (w_dim,); classes take turns where there are labels."""
    total = torch.zeros_like(generator.w_mean, dtype=torch.float64)
    for start in range(0, MEAN_SEEDS, MEAN_BATCH):
        seeds = range(start, min(start + MEAN_BATCH, MEAN_SEEDS))
        total += generator.mapping(*_draw_inputs(generator, seeds)).double().sum(dim=0)
    return (total / MEAN_SEEDS).float()


def _draw_inputs(generator: Generator, seeds: range) -> tuple[Tensor, Tensor | None]:
    latents = torch.from_numpy(draw_latents(seeds, generator.z_dim))
    return latents, torch.from_numpy(take_turns(seeds, generator.c_dim)) if generator.c_dim else None
