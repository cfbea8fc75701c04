"""What both networks of R3GAN (Huang et al. 2024, arXiv:2501.05441, section 4 and appendix) are made of.

There is no normalisation anywhere: what keeps a deep sum of residuals in bounds is its start, that of Fixup (Zhang et
al. 2019, arXiv:1901.09321): the last convolution of every block begins at 0, so that each block begins as the identity,
and the others are scaled down by the number of blocks.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from models.gan.levels import R3GAN_WIDTH_STEP

SLOPE = 0.2  # of the leaky ReLU below 0
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # He et al. 2015 (arXiv:1502.01852, eq. 15): what a leaky ReLU takes from a signal
EXPANSION = 2  # how much wider a block is inside
GROUP_WIDTH = EXPANSION * R3GAN_WIDTH_STEP  # 16: channels, inside a block, that a group of its 3x3 convolution sees


def residual_gain(blocks: int) -> float:
    """Gain of the first two of a block's three layers in a network of so many blocks: GAIN * blocks ** (-1 / 4).

    Fixup scales by L ** (-1 / (2 m - 2)) with m = 3 layers in a branch.
    """
    return GAIN * blocks**-0.25


class Convolution(nn.Module):
    """Convolution that keeps the map's size, zeros beyond its edges: (N, inputs, H, W) to (N, outputs, H, W)."""

    def __init__(
        self,
        inputs: int,  # channels
        outputs: int,  # channels
        kernel: int = 1,  # side in pixels, odd
        groups: int = 1,  # of channels that do not see each other
        bias: bool = False,  # that of the activation which follows
        gain: float = 1.0,  # of the first weights: standard deviation gain / sqrt(fan-in)
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.groups = groups
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight = self.weight.to(x.dtype)
        return functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=self.groups)

    def draw_weights(self, rng: torch.Generator) -> None:
        drawn = torch.randn(self.weight.shape, generator=rng)
        self.weight.copy_(drawn * (self.gain / math.sqrt(self.weight[0].numel())))
        if self.bias is not None:
            self.bias.zero_()

    def extra_repr(self) -> str:
        outputs, inputs, kernel, _ = self.weight.shape
        return f"{inputs * self.groups}, {outputs}, kernel={kernel}, groups={self.groups}, gain={self.gain:.3g}"


class Linear(nn.Module):
    """Dense layer without bias: (N, inputs) to (N, outputs)."""

    def __init__(
        self,
        inputs: int,  # values per row
        outputs: int,  # values per row
        deviation: float,  # standard deviation of the first weights
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.deviation = deviation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight)

    def draw_weights(self, rng: torch.Generator) -> None:
        self.weight.copy_(torch.randn(self.weight.shape, generator=rng) * self.deviation)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"


class ResidualBlock(nn.Module):
    """The map plus a branch: widen, look around within groups of channels, narrow; (N, width, H, W) to the same.

    Raises ValueError for a width that cannot be cut into groups.
    """

    def __init__(
        self,
        width: int,  # channels
        gain: float,  # of the first two convolutions: `residual_gain`
    ) -> None:
        super().__init__()
        if width % R3GAN_WIDTH_STEP:
            raise ValueError(f"an R3GAN map has a multiple of {R3GAN_WIDTH_STEP} channels, got {width}")
        inside = width * EXPANSION
        self.expand = Convolution(width, inside, bias=True, gain=gain)
        self.look = Convolution(inside, inside, 3, groups=inside // GROUP_WIDTH, bias=True, gain=gain)
        self.reduce = Convolution(inside, width, gain=0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.leaky_relu(self.expand(x), SLOPE)
        y = functional.leaky_relu(self.look(y), SLOPE)
        return x + self.reduce(y)


def scale_labels(c: torch.Tensor | None, c_dim: int) -> torch.Tensor:
    """Labels, float32 (N, c_dim), as they go into an embedding; ValueError where they are missing or of another width.

    A class (one-hot) stays as it is: it picks one column of the embedding, so that the fan-in is 1 whatever c_dim is,
    and the first weights are as large as a column is to be. Several tags at once (multi-hot) are a sum of as many
    columns, which would drown z in G and stretch the logits of D. So a label whose values add up to s > 1, signs left
    aside, is divided by sqrt(s): as long as one column, whatever the number of tags. Different labels stay different.
    """
    if c is None or c.ndim != 2 or c.shape[1] != c_dim:
        got = "none" if c is None else str(tuple(c.shape))
        raise ValueError(f"this network needs labels of shape (N, {c_dim}), got {got}")
    return c / c.abs().sum(dim=1, keepdim=True).clamp(min=1).sqrt()
