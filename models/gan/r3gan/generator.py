"""The generator: a learned map scaled by the latent, then residual blocks up to the picture."""

import math
from itertools import pairwise

import torch
from torch import nn

from models.gan.fir import setup_filter, upsample2d
from models.gan.levels import Level, plan_levels
from models.gan.r3gan.layers import Convolution, Linear, ResidualBlock, residual_gain, scale_labels


class Basis(nn.Module):
    """The smallest map: a learned one whose channels the latent scales. (N, inputs) to (N, channels, h, w)."""

    def __init__(
        self,
        inputs: int,  # values of a latent and its label
        channels: int,
        size: tuple[int, int],  # (rows, columns)
    ) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.empty(channels, *size))
        self.scale = Linear(inputs, channels, deviation=1 / math.sqrt(inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.basis * self.scale(x)[:, :, None, None]

    def draw_weights(self, rng: torch.Generator) -> None:
        self.basis.copy_(torch.randn(self.basis.shape, generator=rng))


class GeneratorStage(nn.Module):
    """The blocks of one size of map, and the way there from the next smaller one (none at the smallest)."""

    def __init__(
        self,
        below: Level | None,  # the next smaller map; None at the smallest
        level: Level,
        blocks: int,  # residual blocks
        gain: float,  # of their convolutions
    ) -> None:
        super().__init__()
        self.in_half = level.half
        self.grows = below is not None
        changes = below is not None and below.channels != level.channels
        self.adapt = Convolution(below.channels, level.channels) if below is not None and changes else None
        self.blocks = nn.ModuleList(ResidualBlock(level.channels, gain) for _ in range(blocks))

    def forward(self, x: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        if self.adapt is not None:
            x = self.adapt(x)
        if self.grows:
            x = upsample2d(x, taps)
        for block in self.blocks:
            x = block(x)
        return x


class Generator(nn.Module):
    """Latents to pictures.

    Input: float32 (N, z_dim), independent standard normal values, and float32 (N, c_dim) labels when conditional.
    Output: float32 (N, channels, height, width), about -1..1 and not clamped.
    Weights are undefined until `initialise` or `load_state_dict` sets them. A stage has the same name whatever the
    resolution, for transfer.
    """

    taps: torch.Tensor

    def __init__(
        self,
        z_dim: int,  # normal values per latent
        c_dim: int,  # values per label; 0: unconditional
        width: int,  # of the picture, in pixels: doublings of `start`
        height: int,
        channels: int = 3,  # of the picture: 1 grey, 3 RGB, 4 RGBA
        channel_base: int = 24576,  # a map of longer side r has channel_base / r channels, ...
        channel_max: int = 768,  # ... but at most this many
        blocks: int = 2,  # residual blocks per size of map
        label_features: int = 64,  # values that a label is embedded in, which stand beside the latent
        start: tuple[int, int] | None = None,  # (rows, columns) of the smallest map; None: the longer side is 4
        half_resolutions: int = 4,  # how many of the largest maps follow half_dtype
    ) -> None:
        super().__init__()
        levels = plan_levels(width, height, channel_base, channel_max, start, half_resolutions)
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.width = width
        self.height = height
        self.channels = channels
        self.half_dtype: torch.dtype | None = None  # bfloat16 for the levels marked so; None: float32
        gain = residual_gain(len(levels) * blocks)
        # of unit variance, as the latent that they stand beside: a class picks one column (`scale_labels`)
        self.label = Linear(c_dim, label_features, deviation=1.0) if c_dim else None
        self.basis = Basis(z_dim + (label_features if c_dim else 0), levels[0].channels, levels[0].size)
        steps = pairwise([None, *levels])
        self.stages = nn.ModuleList(GeneratorStage(below, at, blocks, gain) for below, at in steps if at)
        self.to_rgb = Convolution(levels[-1].channels, channels)
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """Raises ValueError for latents or labels of another shape than the network was built for, or none at all."""
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"this network needs latents of shape (N, {self.z_dim}), got {tuple(z.shape)}")
        if self.label is not None:
            z = torch.cat([z, self.label(scale_labels(c, self.c_dim))], dim=1)
        x = self.basis(z)
        for stage in self.stages:
            assert isinstance(stage, GeneratorStage)
            x = x.to(self.half_dtype if stage.in_half and self.half_dtype is not None else z.dtype)
            x = stage(x, self.taps)
        pictures: torch.Tensor = self.to_rgb(x.to(z.dtype))
        return pictures

    def draw_weights(self, rng: torch.Generator) -> None:
        self.taps.copy_(setup_filter())  # not in a snapshot: a network made without memory has it from here

    def extra_repr(self) -> str:
        return f"z_dim={self.z_dim}, c_dim={self.c_dim}, {self.width}x{self.height}, channels={self.channels}"
