"""The built-in extractor `hed-vgg4`: VGG16's blocks 1 to 4, as an edge detector left them.

Simonyan and Zisserman 2015 (arXiv:1409.1556), weights of `models.metrics.hed_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional as F

from models.metrics.extraction import Features, Pictures, reproducible
from models.metrics.hed_weights import list_convolutions
from models.metrics.resizing import resize_pictures

MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet, on 0 to 255; all the preparation that VGG16 was trained with
SIDE = 128  # pixels that the network sees, whatever the pictures' size; measured in docs/metrics.md
TINY = 1e-6  # a block that sees nothing at all stays 0
LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3")  # the last of each block, after its ReLU
DEFINITION = f"vgg16 {SIDE}px bicubic, means of {' '.join(LAYERS)}, each layer's divided by their root mean square"


class HedVgg:
    """Spatial means of the last maps of four blocks, each block scaled to a root mean square of 1: float32 (N, 960)."""

    def __init__(self, weights: bytes, device: torch.device) -> None:
        """`weights`: the bytes of the safetensors file `hed-vgg4`, whose digest has been checked."""
        self._device = device
        self._mean = torch.tensor(MEAN_BGR, device=device).view(1, 3, 1, 1)
        self._layers = _arrange(load(weights), device)

    def __call__(self, pictures: Pictures) -> Features:
        """uint8 RGB (N, H, W, 3) to float32 (N, 960): 64 + 128 + 256 + 512, edges and colours first, shapes last."""
        return scale_blocks(self.pool(pictures))

    def pool(self, pictures: Pictures) -> list[Features]:
        """uint8 RGB (N, H, W, 3) to the spatial means of every layer of `LAYERS`: float32 (N, channels)."""
        with reproducible(self._device):
            x = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2).float()
            x = resize_pictures(x, SIDE, SIDE).flip(1) - self._mean
            x = x.contiguous(memory_format=torch.channels_last)
            means = []
            for name, (weight, bias) in self._layers.items():
                if name in ("conv2_1", "conv3_1", "conv4_1"):
                    x = F.max_pool2d(x, 2)
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
                if name in LAYERS:
                    means.append(x.mean((2, 3)).cpu().numpy())
        return means


def scale_blocks(blocks: Sequence[Features]) -> Features:
    """Each block's means (N, channels) divided by their root mean square, side by side: float32 (N, all channels).

    A picture's contrast scales whole blocks. Unscaled, it drowns what else there is to see: figures in docs/metrics.md.
    """
    sizes = [np.sqrt(np.square(block, dtype=np.float64).mean(axis=1, keepdims=True)) for block in blocks]
    scaled = [block / np.maximum(size, TINY) for block, size in zip(blocks, sizes, strict=True)]
    return np.concatenate(scaled, axis=1).astype(np.float32)


def _arrange(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    def move(tensor: Tensor) -> Tensor:
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        return tensor.to(device=device, memory_format=layout)

    return {name: (move(tensors[f"{name}.weight"]), move(tensors[f"{name}.bias"])) for name in list_convolutions()}
