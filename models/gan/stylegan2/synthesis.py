"""From styles to a picture: modulated convolutions from a learned constant up, with an RGB output at every level.

The "skip" generator of Karras et al. 2020 (arXiv:1912.04958, section 4.1 and figure 7b): each level's RGB is added to
the one below, enlarged.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from models.gan.fir import setup_filter, upsample2d
from models.gan.levels import Level
from models.gan.noise import SampleNoise
from models.gan.stylegan2.layers import ACTIVATION_GAIN, SLOPE, EqualizedLinear, Form, clamp, modulated_conv2d

Noise = Literal["const", "none"] | SampleNoise | Sequence[torch.Tensor]
"""Fixed maps, none, drawn ones, or one's own: one (N or 1, 1, H, W) per layer with noise, smallest first."""


class StyledConv(nn.Module):
    """3x3 convolution modulated by w, plus noise, leaky ReLU: (N, inputs, H, W) to (N, outputs, H or 2 H, W or 2 W)."""

    noise: torch.Tensor

    def __init__(
        self,
        inputs: int,  # channels
        outputs: int,  # channels
        w_dim: int,  # values per style
        size: tuple[int, int],  # (rows, columns) of the output
        doubling: bool,  # whether the map is doubled
        conv_clamp: float | None,  # limit of the outputs
    ) -> None:
        super().__init__()
        self.style = EqualizedLinear(w_dim, inputs, bias_start=1.0)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.noise_strength = nn.Parameter(torch.empty(()))
        self.register_buffer("noise", torch.empty(size))
        self.doubling = doubling
        self.conv_clamp = conv_clamp

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, taps: torch.Tensor, noise: torch.Tensor | None, form: Form
    ) -> torch.Tensor:
        """noise: (N or 1, 1, H, W) of the output's size."""
        y = modulated_conv2d(
            x,
            self.weight,
            self.style(w),
            self.bias * ACTIVATION_GAIN,
            up_taps=taps if self.doubling else None,
            gain=ACTIVATION_GAIN,
            form=form,
        )
        if noise is not None:
            y = y + (noise * (self.noise_strength * ACTIVATION_GAIN)).to(y.dtype)
        return clamp(functional.leaky_relu(y, SLOPE), self.conv_clamp)

    def draw_weights(self, rng: torch.Generator) -> None:
        self.weight.copy_(torch.randn(self.weight.shape, generator=rng))
        self.bias.zero_()
        self.noise_strength.zero_()
        self.noise.copy_(torch.randn(self.noise.shape, generator=rng))


class ToRGB(nn.Module):
    """1x1 convolution modulated by w, not demodulated: (N, inputs, H, W) to float32 (N, channels, H, W)."""

    def __init__(
        self,
        inputs: int,  # channels
        channels: int,  # of the picture
        w_dim: int,  # values per style
        conv_clamp: float | None,  # limit of the outputs
    ) -> None:
        super().__init__()
        self.style = EqualizedLinear(w_dim, inputs, bias_start=1.0)
        self.weight = nn.Parameter(torch.empty(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels))
        self.gain = 1 / math.sqrt(inputs)
        self.conv_clamp = conv_clamp

    def forward(self, x: torch.Tensor, w: torch.Tensor, form: Form) -> torch.Tensor:
        style = self.style(w) * self.gain
        y = modulated_conv2d(x, self.weight, style, self.bias, demodulate=False, form=form)
        return clamp(y, self.conv_clamp).to(w.dtype)  # the sum of all levels is kept in full precision

    def draw_weights(self, rng: torch.Generator) -> None:
        self.weight.copy_(torch.randn(self.weight.shape, generator=rng))
        self.bias.zero_()


class SynthesisLevel(nn.Module):
    """The layers of one map size; `grow` comes from the level below and is missing at the smallest."""

    def __init__(
        self,
        below: Level | None,  # the next smaller one; None at the smallest
        level: Level,
        channels: int,  # of the picture
        w_dim: int,  # values per style
        conv_clamp: float | None,  # limit of the outputs of convolutions
    ) -> None:
        super().__init__()
        features = level.channels
        self.in_half = level.half
        self.grow = None if below is None else StyledConv(below.channels, features, w_dim, level.size, True, conv_clamp)
        self.refine = StyledConv(features, features, w_dim, level.size, False, conv_clamp)
        self.to_rgb = ToRGB(features, channels, w_dim, conv_clamp)


class SynthesisNetwork(nn.Module):
    """Styles to pictures."""

    taps: torch.Tensor

    def __init__(
        self,
        levels: Sequence[Level],  # smallest first
        w_dim: int,  # values per style
        channels: int,  # of the picture: 1 grey, 3 RGB, 4 RGBA
        conv_clamp: float | None = 256.0,  # limit of all outputs of convolutions, in half precision or not
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.num_ws = 2 * len(levels)  # a level's RGB shares its style with the next level's first convolution
        self.half_dtype: torch.dtype | None = None  # float16 or bfloat16 for the levels marked so; None: float32
        self.constant = nn.Parameter(torch.empty(levels[0].channels, *levels[0].size))
        steps = pairwise([None, *levels])
        self.levels = nn.ModuleList(SynthesisLevel(below, at, channels, w_dim, conv_clamp) for below, at in steps if at)
        self.register_buffer("taps", setup_filter(), persistent=False)

    def forward(self, ws: torch.Tensor, noise: Noise = "const", form: Form = "fused") -> torch.Tensor:
        """Pictures of styles ws (N, num_ws, w_dim): float32 (N, channels, H, W), about -1..1 and not clamped.

        noise: "const" (the fixed maps), "none", a SampleNoise of N pictures, or the maps themselves. form: see
        `modulated_conv2d`. Raises ValueError for another shape of ws, or noise for another number of pictures.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws must be (N, {self.num_ws}, {self.w_dim}), got {tuple(ws.shape)}")
        return self.paint(ws, self.draw_noise(noise, len(ws)), form)

    def _levels(self) -> list[SynthesisLevel]:
        return [level for level in self.levels if isinstance(level, SynthesisLevel)]

    def noise_layers(self) -> list[StyledConv]:
        """The layers that take noise, in the order of their maps."""
        return [layer for level in self._levels() for layer in (level.grow, level.refine) if layer is not None]

    def draw_noise(self, noise: Noise, count: int) -> list[torch.Tensor | None]:
        """A map per layer with noise: before the pass, so that the pass itself can be compiled."""
        layers = self.noise_layers()
        if isinstance(noise, str):
            if noise not in ("const", "none"):
                raise ValueError(f'noise must be "const", "none", a SampleNoise or maps, got {noise!r}')
            return [layer.noise[None, None] if noise == "const" else None for layer in layers]
        if isinstance(noise, SampleNoise):
            if noise.count != count:
                raise ValueError(f"noise for {noise.count} pictures, but there are {count}")
            return [noise.draw((1, *layer.noise.shape)) for layer in layers]
        if len(noise) != len(layers):
            raise ValueError(f"need {len(layers)} maps of noise, got {len(noise)}")
        return list(noise)

    def paint(self, ws: torch.Tensor, maps: Sequence[torch.Tensor | None], form: Form) -> torch.Tensor:
        """The pass itself: no draws, no checks."""
        x = self.constant[None].expand(len(ws), -1, -1, -1)  # (N, C, h, w)
        pictures: torch.Tensor | None = None
        styles, noises = iter(ws.unbind(1)), iter(maps)
        style = next(styles)
        for level in self._levels():
            x = x.to(self.half_dtype if level.in_half and self.half_dtype is not None else ws.dtype)
            if level.grow is not None:
                x = level.grow(x, style, self.taps, next(noises), form)
                style = next(styles)
            x = level.refine(x, style, self.taps, next(noises), form)
            style = next(styles)
            rgb = level.to_rgb(x, style, form)
            pictures = rgb if pictures is None else upsample2d(pictures, self.taps) + rgb
        assert pictures is not None  # there are always levels
        return pictures

    def draw_weights(self, rng: torch.Generator) -> None:
        self.constant.copy_(torch.randn(self.constant.shape, generator=rng))
        self.taps.copy_(setup_filter())  # not in a snapshot: a network made without memory has it from here
