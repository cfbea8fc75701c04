"""The discriminator: the generator's stages the other way round. A logit depends on its own picture alone."""

import math
from itertools import pairwise

import torch
from torch import nn

from models.gan.fir import downsample2d, setup_filter
from models.gan.levels import Level, plan_levels
from models.gan.r3gan.layers import Convolution, Linear, ResidualBlock, residual_gain, scale_labels


class DiscriminatorStage(nn.Module):
    """The blocks of one size of map, and the way to the next smaller one (none at the smallest)."""

    def __init__(
        self,
        below: Level | None,  # the next smaller map; None at the smallest
        level: Level,
        blocks: int,  # residual blocks
        gain: float,  # of their convolutions
    ) -> None:
        super().__init__()
        self.in_half = level.half
        self.shrinks = below is not None
        self.blocks = nn.ModuleList(ResidualBlock(level.channels, gain) for _ in range(blocks))
        changes = below is not None and below.channels != level.channels
        self.adapt = Convolution(level.channels, below.channels) if below is not None and changes else None

    def forward(self, x: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        if self.shrinks:
            x = downsample2d(x, taps)
        return x if self.adapt is None else self.adapt(x)


class Verdict(nn.Module):
    """The smallest map to values: each channel weighed by place, then a dense layer. (N, channels, h, w) to (N, out).

    Weighing is a depthwise convolution with a kernel as large as the map.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],  # (rows, columns) of the map
        outputs: int,  # values per row
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, *size))
        self.dense = Linear(channels, outputs, deviation=1 / math.sqrt(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.dense((x * self.weight).sum(dim=(2, 3)))
        return y

    def draw_weights(self, rng: torch.Generator) -> None:
        self.weight.copy_(torch.randn(self.weight.shape, generator=rng) / math.sqrt(self.weight[0].numel()))


class Discriminator(nn.Module):
    """Pictures to logits. They were trained in differences only: a real's is higher than a fake's, 0 means nothing.

    Input: float32 (N, channels, height, width) in -1..1, and float32 (N, c_dim) labels when conditional.
    Output: float32 (N,).
    Weights are undefined until `initialise` or `load_state_dict` sets them.
    """

    taps: torch.Tensor

    def __init__(
        self,
        c_dim: int,  # values per label; 0: unconditional
        width: int,  # of the picture, in pixels: doublings of `start`
        height: int,
        channels: int = 3,  # of the picture: 1 grey, 3 RGB, 4 RGBA
        channel_base: int = 24576,  # a map of longer side r has channel_base / r channels, ...
        channel_max: int = 768,  # ... but at most this many
        blocks: int = 2,  # residual blocks per size of map
        label_features: int = 64,  # values that a label is embedded in, and held against the picture's
        start: tuple[int, int] | None = None,  # (rows, columns) of the smallest map; None: the longer side is 4
        half_resolutions: int = 4,  # how many of the largest maps follow half_dtype
    ) -> None:
        super().__init__()
        levels = plan_levels(width, height, channel_base, channel_max, start, half_resolutions)
        self.c_dim = c_dim
        self.width = width
        self.height = height
        self.channels = channels
        self.half_dtype: torch.dtype | None = None  # bfloat16 for the levels marked so; None: float32
        gain = residual_gain(len(levels) * blocks)
        self.from_rgb = Convolution(channels, levels[-1].channels)
        # Smallest first, as in the generator: a stage has the same name whatever the resolution, for transfer.
        steps = pairwise([None, *levels])
        self.stages = nn.ModuleList(DiscriminatorStage(below, at, blocks, gain) for below, at in steps if at)
        self.verdict = Verdict(levels[0].channels, levels[0].size, label_features if c_dim else 1)
        # a class picks one column (`scale_labels`), of about unit length: the logit is the features' part along it
        self.label = Linear(c_dim, label_features, deviation=1 / math.sqrt(label_features)) if c_dim else None
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, images: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """Raises ValueError for pictures of another shape, or missing labels."""
        if images.ndim != 4 or images.shape[1:] != (self.channels, self.height, self.width):
            expected = f"(N, {self.channels}, {self.height}, {self.width})"
            raise ValueError(f"the discriminator needs pictures {expected}, got {tuple(images.shape)}")
        x = self.from_rgb(images)
        for stage in reversed(self.stages):
            assert isinstance(stage, DiscriminatorStage)
            x = x.to(self.half_dtype if stage.in_half and self.half_dtype is not None else images.dtype)
            x = stage(x, self.taps)
        features: torch.Tensor = self.verdict(x.to(images.dtype))  # (N, 1), or (N, label_features)
        if self.label is None:
            return features[:, 0]
        return (features * self.label(scale_labels(c, self.c_dim))).sum(dim=1)

    def draw_weights(self, rng: torch.Generator) -> None:
        self.taps.copy_(setup_filter())  # not in a snapshot: a network made without memory has it from here

    def extra_repr(self) -> str:
        return f"c_dim={self.c_dim}, {self.width}x{self.height}, channels={self.channels}"
