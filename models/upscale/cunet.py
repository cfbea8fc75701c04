"""waifu2x's cascaded U-Nets with squeeze and excite: CUNet removes noise and keeps the size, UpCUNet doubles it.

A first, smaller U-Net makes the picture, enlarged or not; a second and deeper one looks at that and says what to add.
No convolution pads, so what is passed over a branch is cut to the size of what it is added to. nagadomi's architecture
and weights (art style), as published for ncnn.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.upscale.ncnn_format import NcnnGraph
from models.upscale.network import SqueezeExcite, UpscaleNetwork
from models.upscale.waifu2x_weights import fill_from_ncnn

SLOPE = 0.1  # of the leaky rectifiers
REDUCTION = 8  # of the channels in squeeze and excite


class CUNet(UpscaleNetwork):
    """(N, 3, H, W) in 0..1 to (N, 3, H - 56, W - 56), not clipped. H and W are multiples of 4."""

    scale = 1
    # The first U-Net eats 8 pixels, the second 20. The second halves its picture twice (after two convolutions that eat
    # 2 each), so all is well only where cells of 4 x 4 pixels come out whole.
    margin = loss = context = 28
    multiple = 4

    def __init__(self) -> None:
        super().__init__()
        self.make = FirstUNet(nn.Conv2d(64, 3, kernel_size=3))
        self.correct = SecondUNet()

    def forward(self, x: Tensor) -> Tensor:
        return _cascade(self.make, self.correct, x)


class UpCUNet(UpscaleNetwork):
    """(N, 3, H, W) in 0..1 to (N, 3, 2H - 72, 2W - 72), not clipped. H and W are even."""

    scale = 2
    # The first U-Net eats 8 input pixels, the second 20 pixels of the doubled picture. Its cells of 4 x 4 are 2 x 2
    # input pixels.
    margin = loss = context = 18
    multiple = 2

    def __init__(self) -> None:
        super().__init__()
        self.make = FirstUNet(nn.ConvTranspose2d(64, 3, kernel_size=4, stride=2, padding=3))
        self.correct = SecondUNet()

    def forward(self, x: Tensor) -> Tensor:
        return _cascade(self.make, self.correct, x)


class FirstUNet(nn.Module):
    """(N, 3, H, W) to (N, 3, h - 16, w - 16), where h, w are H, W or, where ``last`` doubles, twice these."""

    def __init__(self, last: nn.Conv2d | nn.ConvTranspose2d) -> None:
        # As everywhere here, parts are registered in the order in which they are computed: the weight files name none.
        super().__init__()
        self.enter = Convolutions(3, 32, 64)
        self.shrink = nn.Conv2d(64, 64, kernel_size=2, stride=2)
        self.inner = Convolutions(64, 128, 64, gated=True)
        self.grow = nn.ConvTranspose2d(64, 64, kernel_size=2, stride=2)
        self.leave = nn.Conv2d(64, 64, kernel_size=3)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        passed = self.enter(x)
        x = self.inner(_leaky(self.shrink(passed)))
        x = _leaky(self.grow(x)) + _cut(passed, 4)
        result: Tensor = self.last(_leaky(self.leave(x)))
        return result


class SecondUNet(nn.Module):
    """(N, 3, H, W) to (N, 3, H - 40, W - 40)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = Convolutions(3, 32, 64)
        self.shrink = nn.Conv2d(64, 64, kernel_size=2, stride=2)
        self.narrow = Convolutions(64, 64, 128, gated=True)
        self.shrink_again = nn.Conv2d(128, 128, kernel_size=2, stride=2)
        self.inner = Convolutions(128, 256, 128, gated=True)
        self.grow = nn.ConvTranspose2d(128, 128, kernel_size=2, stride=2)
        self.widen = Convolutions(128, 64, 64, gated=True)
        self.grow_again = nn.ConvTranspose2d(64, 64, kernel_size=2, stride=2)
        self.leave = nn.Conv2d(64, 64, kernel_size=3)
        self.last = nn.Conv2d(64, 3, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        passed = self.enter(x)
        halved = self.narrow(_leaky(self.shrink(passed)))
        x = self.inner(_leaky(self.shrink_again(halved)))
        x = self.widen(_leaky(self.grow(x)) + _cut(halved, 4))
        x = _leaky(self.grow_again(x)) + _cut(passed, 16)
        result: Tensor = self.last(_leaky(self.leave(x)))
        return result


class Convolutions(nn.Module):
    """Two 3 x 3 convolutions, and then a gate or none: (N, inputs, H, W) to (N, outputs, H - 4, W - 4)."""

    def __init__(self, inputs: int, between: int, outputs: int, gated: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, between, kernel_size=3)
        self.second = nn.Conv2d(between, outputs, kernel_size=3)
        self.gate = SqueezeExcite(outputs, outputs // REDUCTION) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        x = _leaky(self.second(_leaky(self.first(x))))
        return x if self.gate is None else self.gate(x)


def build_cunet(graph: NcnnGraph) -> CUNet:
    """The network that keeps the size, with the graph's weights; `NcnnFormatError` where these are of another."""
    network = CUNet()
    fill_from_ncnn(network, graph)
    return network


def build_upcunet(graph: NcnnGraph) -> UpCUNet:
    """The network that doubles the size, with the graph's weights; `NcnnFormatError` where these are of another."""
    network = UpCUNet()
    fill_from_ncnn(network, graph)
    return network


def _cascade(make: FirstUNet, correct: SecondUNet, x: Tensor) -> Tensor:
    made: Tensor = make(x)
    corrected: Tensor = correct(made) + _cut(made, 20)
    return corrected


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE, inplace=True)


def _cut(x: Tensor, pixels: int) -> Tensor:
    return x[:, :, pixels:-pixels, pixels:-pixels]
