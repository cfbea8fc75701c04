"""waifu2x's upconv_7 network: twice the size, for drawn pictures.

Six 3 x 3 convolutions without padding and a 4 x 4 transposed convolution of stride 2 (nagadomi's waifu2x). It works on
RGB in 0..1 and gives up 7 input pixels on each side. Two sets of weights exist, both for art: nagadomi's own, as
published for ncnn, and those trained anew by tsurumeso for waifu2x-chainer, whose fifth convolution is twice as wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from models.upscale.ncnn_format import NcnnGraph
from models.upscale.network import UpscaleNetwork
from models.upscale.waifu2x_weights import fill_from_chainer, fill_from_ncnn

WIDTHS = (16, 32, 64, 128, 128, 256)  # channels that the convolutions give: nagadomi's
CHAINER_WIDTHS = (16, 32, 64, 128, 256, 256)  # tsurumeso's
SLOPE = 0.1  # of the leaky rectifiers


class UpConv7(UpscaleNetwork):
    """(N, 3, H, W) in 0..1 to (N, 3, 2H - 28, 2W - 28), not clipped."""

    scale = 2
    margin = loss = context = 7  # six by the convolutions, one by the transposed convolution's padding

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        """``widths``: channels that each of the convolutions gives."""
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size=3) for inputs, outputs in pairwise((3, *widths))
        )
        self.enlarge = nn.ConvTranspose2d(widths[-1], 3, kernel_size=4, stride=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), SLOPE, inplace=True)
        enlarged: Tensor = self.enlarge(x)
        return enlarged


def build_upconv7(graph: NcnnGraph) -> UpConv7:
    """The network with nagadomi's weights; `NcnnFormatError` where the graph is of another."""
    network = UpConv7()
    fill_from_ncnn(network, graph)
    return network


def build_upconv7_chainer(content: bytes) -> UpConv7:
    """The network with the weights of an ``.npz`` of waifu2x-chainer; ValueError where these are of another.

    They have no bias in the transposed convolution: it is zero.
    """
    network = UpConv7(CHAINER_WIDTHS)
    convolutions = len(CHAINER_WIDTHS)
    names = {f"convolutions.{index}": f"conv{index + 1}" for index in range(convolutions)}
    fill_from_chainer(network, content, names | {"enlarge": f"conv{convolutions + 1}"})
    return network
