"""waifu2x-chainer's residual networks of five blocks: ResNet10 keeps the size, UpResNet10 doubles it.

A first convolution, five residual blocks, a bridging convolution, to which the first one's result is added, and a last
convolution, transposed where it doubles. Nothing is padded, so what is added is cut to the size of what it is added to.
UpResNet10's blocks also scale their channels by the mean of the whole picture (squeeze and excite).
tsurumeso's architecture and weights, art style, RGB.
"""

from __future__ import annotations

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from models.upscale.network import SqueezeExcite, UpscaleNetwork
from models.upscale.waifu2x_weights import fill_from_chainer

CHANNELS = 64
SQUEEZED = 16
BLOCKS = 5
SLOPE = 0.1  # of the leaky rectifiers

Filled = TypeVar("Filled", bound="_ResidualNetwork")


class ResidualBlock(nn.Module):
    """(N, 64, H, W) to (N, 64, H - 4, W - 4)."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, CHANNELS, kernel_size=3)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, kernel_size=3)
        self.gate = SqueezeExcite(CHANNELS, SQUEEZED) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        change = F.leaky_relu(self.first(x), SLOPE, inplace=True)
        change = F.leaky_relu(self.second(change), SLOPE, inplace=True)
        if self.gate is not None:
            change = self.gate(change)
        result: Tensor = change + x[:, :, 2:-2, 2:-2]
        return result


class _ResidualNetwork(UpscaleNetwork):
    margin = loss = context = 13  # one each by the first, bridging and last convolution, two by each block

    def __init__(self, gated: bool, last: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, kernel_size=3)
        self.blocks = nn.ModuleList(ResidualBlock(gated) for _ in range(BLOCKS))
        self.bridge = nn.Conv2d(CHANNELS, CHANNELS, kernel_size=3)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        skipped = x = F.leaky_relu(self.first(x), SLOPE, inplace=True)
        for block in self.blocks:
            x = block(x)
        x = F.leaky_relu(self.bridge(x), SLOPE, inplace=True)
        cut = 2 * BLOCKS + 1
        result: Tensor = self.last(x + skipped[:, :, cut:-cut, cut:-cut])
        return result


class ResNet10(_ResidualNetwork):
    """(N, 3, H, W) in 0..1 to (N, 3, H - 26, W - 26), not clipped."""

    scale = 1

    def __init__(self) -> None:
        super().__init__(gated=False, last=nn.Conv2d(CHANNELS, 3, kernel_size=3))


class UpResNet10(_ResidualNetwork):
    """(N, 3, H, W) in 0..1 to (N, 3, 2H - 52, 2W - 52), not clipped."""

    scale = 2

    def __init__(self) -> None:
        super().__init__(gated=True, last=nn.ConvTranspose2d(CHANNELS, 3, kernel_size=4, stride=2, padding=3))


def build_resnet10(content: bytes) -> ResNet10:
    """The network that keeps the size, with the weights of an ``.npz``; ValueError where these are of another."""
    return _fill(ResNet10(), content)


def build_upresnet10(content: bytes) -> UpResNet10:
    """The network that doubles the size, with the weights of an ``.npz``; ValueError where these are of another."""
    return _fill(UpResNet10(), content)


def _fill(network: Filled, content: bytes) -> Filled:
    names = {"first": "conv_pre", "bridge": "conv_bridge", "last": "conv_post"}
    for index, block in enumerate(network.blocks):
        parts = {"first": "conv1", "second": "conv2"}
        if block.gate is not None:
            parts |= {"gate.squeeze": "fc1", "gate.excite": "fc2"}
        names |= {f"blocks.{index}.{part}": f"res{index + 1}/{name}" for part, name in parts.items()}
    fill_from_chainer(network, content, names)
    return network
