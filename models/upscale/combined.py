"""Networks made of others: one that works at the size of the picture, made to enlarge; and one after the other.

vgg_7 and resnet10 keep the size. To enlarge, waifu2x repeats every pixel 2 x 2 times and lets them sharpen the result.
Their weights either enlarge or remove noise, so to do both a picture goes through two.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from models.upscale.network import UpscaleNetwork


class NearestFirst(UpscaleNetwork):
    """Repeats every pixel 2 x 2 times, then runs a network of scale 1: (N, 3, H, W) to twice H - 2 * loss."""

    scale = 2

    def __init__(self, sharpen: UpscaleNetwork) -> None:
        super().__init__()
        if sharpen.scale != 1 or sharpen.multiple != 1 or sharpen.loss != sharpen.context:
            raise ValueError(f"{type(sharpen).__name__} does not keep the size, or not without padding")
        self.sharpen = sharpen
        # An odd loss at twice the size is half an input pixel too little: the rest is cut off.
        self.margin = self.loss = self.context = -(-sharpen.loss // 2)
        self._cut = 2 * self.loss - sharpen.loss

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.sharpen(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        height, width = result.shape[2:]
        return result[:, :, self._cut : height - self._cut, self._cut : width - self._cut]


class DenoiseFirst(UpscaleNetwork):
    """Removes noise, clips to 0..1 as a finished picture would be, then enlarges."""

    def __init__(self, denoise: UpscaleNetwork, enlarge: UpscaleNetwork) -> None:
        super().__init__()
        if denoise.scale != 1 or denoise.multiple != 1 or enlarge.multiple != 1:
            raise ValueError(f"{type(denoise).__name__} and {type(enlarge).__name__} cannot follow each other")
        self.denoise = denoise
        self.enlarge = enlarge
        self.scale = enlarge.scale
        self.margin = denoise.margin + enlarge.margin
        self.loss = denoise.loss + enlarge.loss
        self.context = denoise.context + enlarge.context

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.enlarge(self.denoise(x).clamp(0, 1))
        return result
