"""waifu2x's vgg_7 network: seven 3 x 3 convolutions without padding, at the size of the picture.

It either removes JPEG noise or sharpens a picture that was enlarged by repeating its pixels, depending on the weights
(nagadomi's architecture; weights as trained by tsurumeso for waifu2x-chainer, art style, RGB).
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from models.upscale.network import UpscaleNetwork
from models.upscale.waifu2x_weights import fill_from_chainer

CHANNELS = (3, 32, 32, 64, 64, 128, 128, 3)
SLOPE = 0.1  # of the leaky rectifiers


class VGG7(UpscaleNetwork):
    """(N, 3, H, W) in 0..1 to (N, 3, H - 14, W - 14), not clipped."""

    scale = 1
    margin = loss = context = 7

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size=3) for inputs, outputs in pairwise(CHANNELS)
        )

    def forward(self, x: Tensor) -> Tensor:
        *first, last = self.convolutions
        for convolution in first:
            x = F.leaky_relu(convolution(x), SLOPE, inplace=True)
        result: Tensor = last(x)
        return result


def build_vgg7(content: bytes) -> VGG7:
    """The network with the weights of an ``.npz``. Raises ValueError where these are of another network."""
    network = VGG7()
    fill_from_chainer(network, content, {f"convolutions.{k}": f"conv{k + 1}" for k in range(len(CHANNELS) - 1)})
    return network
