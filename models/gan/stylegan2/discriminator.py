"""The discriminator: residual blocks down to the smallest map, the spread within a group of pictures, two dense layers.

Karras et al. 2020 (arXiv:1912.04958), figure 7c; minibatch standard deviation: Karras et al. 2018 (arXiv:1710.10196,
section 3); labels by projection: Miyato and Koyama 2018 (arXiv:1802.05637), with the label mapped as in the generator.
"""

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from models.gan.fir import setup_filter
from models.gan.levels import Level, plan_levels
from models.gan.stylegan2.layers import EPSILON, EqualizedConv2d, EqualizedLinear
from models.gan.stylegan2.mapping import MappingNetwork

Architecture = Literal["resnet", "orig"]
LABEL_LAYERS = 8  # dense layers of the label's mapping


def spread_features(x: torch.Tensor, group: int, features: int) -> torch.Tensor:
    """How much each group of consecutive pictures differs: (N, C, H, W) to (N, features, H, W), constant per map.

    The standard deviation over the group, averaged over space and over each of `features` bands of channels. Groups
    are contiguous, so that a batch cut at multiples of `group` gives what the whole batch gives; where N is no multiple
    of it, the largest smaller group that divides N is taken.
    """
    count, channels, height, width = x.shape
    size = next(size for size in range(min(group, count), 0, -1) if count % size == 0)
    y = x.reshape(count // size, size, features, channels // features, height, width)
    deviation = (y.var(dim=1, unbiased=False) + EPSILON).sqrt()  # (N / G, F, C / F, H, W)
    spread = deviation.mean(dim=(2, 3, 4)).repeat_interleave(size, dim=0)  # (N, F)
    return spread[:, :, None, None].expand(-1, -1, height, width)


class DiscriminatorLevel(nn.Module):
    """From one map size to the next smaller: (N, C, H, W) to (N, C', H / 2, W / 2)."""

    def __init__(
        self,
        level: Level,
        below: Level,  # the next smaller one
        architecture: Architecture,  # whether there is a residual branch
        conv_clamp: float | None,  # limit of the outputs of convolutions
    ) -> None:
        super().__init__()
        self.in_half = level.half
        self.plain = EqualizedConv2d(level.channels, level.channels, 3, clamp=conv_clamp)
        self.halve = EqualizedConv2d(level.channels, below.channels, 3, halving=True, clamp=conv_clamp)
        self.skip = (
            EqualizedConv2d(level.channels, below.channels, 1, activated=False, bias=False, halving=True)
            if architecture == "resnet"
            else None
        )

    def forward(self, x: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        if self.skip is None:
            y: torch.Tensor = self.halve(self.plain(x), taps)
            return y
        gain = math.sqrt(0.5)  # the sum of two branches of unit variance has unit variance again
        y = self.skip(x, taps, gain=gain)
        return y + self.halve(self.plain(x), taps, gain=gain)


class Discriminator(nn.Module):
    """Pictures to logits: the log odds that a picture is real (given its label).

    Input: float32 (N, channels, height, width) in -1..1, and float32 (N, c_dim) labels when conditional.
    Output: float32 (N,). A logit depends on the other pictures of its group (`mbstd_group`); set mbstd_group = 1 on a
    trained network, or hand in one picture at a time, for logits of single pictures.
    Weights are undefined until `initialise` or `load_state_dict` sets them.
    """

    taps: torch.Tensor

    def __init__(
        self,
        c_dim: int,  # values per label; 0: unconditional
        width: int,  # of the picture, in pixels: doublings of `start`
        height: int,
        channels: int = 3,  # of the picture: 1 grey, 3 RGB, 4 RGBA
        channel_base: int = 32768,  # a map of longer side r has channel_base / r channels, ...
        channel_max: int = 512,  # ... but at most this many
        mbstd_group: int = 4,  # pictures whose spread is seen together
        mbstd_features: int = 1,  # maps of that spread; 0: none
        architecture: Architecture = "resnet",  # "orig" has no residual branch (CIFAR)
        half_resolutions: int = 4,  # how many of the largest maps follow half_dtype
        conv_clamp: float | None = 256.0,  # limit of all outputs of convolutions
        start: tuple[int, int] | None = None,  # (rows, columns) of the smallest map; None: the longer side is 4
    ) -> None:
        super().__init__()
        levels = plan_levels(width, height, channel_base, channel_max, start, half_resolutions)
        smallest, largest = levels[0], levels[-1]
        if mbstd_features and smallest.channels % mbstd_features:
            raise ValueError(f"mbstd_features must divide {smallest.channels} channels, got {mbstd_features}")
        if architecture not in ("resnet", "orig"):
            raise ValueError(f'architecture must be "resnet" or "orig", got {architecture!r}')
        self.c_dim = c_dim
        self.width = width
        self.height = height
        self.channels = channels
        self.mbstd_group = mbstd_group
        self.mbstd_features = mbstd_features
        self.half_dtype: torch.dtype | None = None  # float16 or bfloat16 for the levels marked so; None: float32

        features = smallest.channels
        self.from_rgb = EqualizedConv2d(channels, largest.channels, 1, clamp=conv_clamp)
        # Smallest first, as in the generator: a level has the same name whatever the resolution, for transfer.
        steps = pairwise(levels)
        self.levels = nn.ModuleList(DiscriminatorLevel(at, below, architecture, conv_clamp) for below, at in steps)
        self.last_conv = EqualizedConv2d(features + mbstd_features, features, 3, clamp=conv_clamp)
        self.dense = EqualizedLinear(features * smallest.height * smallest.width, features, activated=True)
        self.out = EqualizedLinear(features, features if c_dim else 1)
        self.label = MappingNetwork(0, c_dim, features, LABEL_LAYERS) if c_dim else None
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, images: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """Raises ValueError for pictures of another shape, or missing labels."""
        if images.ndim != 4 or images.shape[1:] != (self.channels, self.height, self.width):
            expected = f"(N, {self.channels}, {self.height}, {self.width})"
            raise ValueError(f"the discriminator needs pictures {expected}, got {tuple(images.shape)}")
        x = images
        for k, level in enumerate(self._levels()):
            x = x.to(self.half_dtype if level.in_half and self.half_dtype is not None else images.dtype)
            x = level(self.from_rgb(x) if k == 0 else x, self.taps)
        x = x.to(images.dtype)
        if self.mbstd_features:
            x = torch.cat([x, spread_features(x, self.mbstd_group, self.mbstd_features)], dim=1)
        x = self.out(self.dense(self.last_conv(x).flatten(1)))  # (N, 1), or (N, features) to be held against the label
        if self.label is None:
            return x[:, 0]
        mapped: torch.Tensor = self.label(None, c)
        return (x * mapped).sum(dim=1) / math.sqrt(mapped.shape[1])

    def _levels(self) -> list[DiscriminatorLevel]:
        """Largest first."""
        return [level for level in reversed(self.levels) if isinstance(level, DiscriminatorLevel)]

    def layers(self) -> list[nn.Module]:
        """Convolutions from the picture down, as Freeze-D counts them: from RGB, then plain, halve, skip per level."""
        convolutions: list[nn.Module] = [self.from_rgb]
        for level in self._levels():
            convolutions += [layer for layer in (level.plain, level.halve, level.skip) if layer is not None]
        return convolutions

    def freeze(self, layers: int) -> None:
        """Keep the first so many of `layers()` from training (Mo et al. 2020, arXiv:2002.10964); the others train.

        Raises ValueError if there are fewer.
        """
        convolutions = self.layers()
        if not 0 <= layers <= len(convolutions):
            raise ValueError(f"D has {len(convolutions)} layers that can be frozen, got {layers}")
        self.requires_grad_(True)
        for layer in convolutions[:layers]:
            layer.requires_grad_(False)

    def draw_weights(self, rng: torch.Generator) -> None:
        self.taps.copy_(setup_filter())  # not in a snapshot: a network made without memory has it from here

    def extra_repr(self) -> str:
        return f"c_dim={self.c_dim}, {self.width}x{self.height}, channels={self.channels}"
