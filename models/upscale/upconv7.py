"""waifu2x's upconv_7 network: twice the size, for drawn pictures.

Six 3 x 3 convolutions without padding and a 4 x 4 transposed convolution of stride 2 (nagadomi's waifu2x; weights as
trained by tsurumeso for waifu2x-chainer, art style, RGB). The net works on RGB in 0..1 and gives up 7 input pixels on
each side, so the picture is first enlarged by exactly these, repeating its edge.
"""

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.weights import WEIGHTS, read_weight

RGB = npt.NDArray[np.uint8]
NoiseLevel = Literal["none", "0", "1", "2", "3"]

CHANNELS = (3, 16, 32, 64, 128, 256, 256, 3)
SLOPE = 0.1  # of the leaky rectifiers
MARGIN = 7  # input pixels lost on each side: six by the convolutions, one by the transposed convolution's padding
TILE_PIXELS = 512 * 512  # input pixels in one forward pass: about 600 MB of activations in float32


class UpConv7(nn.Module):
    """(N, 3, H, W) in 0..1 to (N, 3, 2H - 28, 2W - 28), not clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size=3) for inputs, outputs in pairwise(CHANNELS[:-1])
        )
        self.enlarge = nn.ConvTranspose2d(CHANNELS[-2], CHANNELS[-1], kernel_size=4, stride=2, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), SLOPE, inplace=True)
        enlarged: Tensor = self.enlarge(x)
        return enlarged


def weight_name(noise: NoiseLevel = "none") -> str:
    """The registered weight that enlarges and, from "0" to "3", also removes more and more JPEG noise."""
    name = "waifu2x-upconv7-art-scale" if noise == "none" else f"waifu2x-upconv7-art-noise{noise}-scale"
    if name not in WEIGHTS:
        raise ValueError(f"the noise level must be none, 0, 1, 2 or 3, not {noise!r}")
    return name


def load_upconv7(noise: NoiseLevel = "none", device: str = "cpu", folders: Sequence[Path] = ()) -> UpConv7:
    """The network with its registered weights, checked, in evaluation mode.

    Raises `models.weights.WeightError` when the file is missing or damaged.
    """
    content = read_weight(weight_name(noise), folders)
    network = UpConv7()
    convolutions = len(network.convolutions)
    state: dict[str, Tensor] = {}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        for index in range(convolutions):
            state[f"convolutions.{index}.weight"] = torch.from_numpy(arrays[f"conv{index + 1}/W"])
            state[f"convolutions.{index}.bias"] = torch.from_numpy(arrays[f"conv{index + 1}/b"])
        # As in torch, chainer keeps a transposed convolution as (inputs, outputs, y, x): nothing is turned round.
        state["enlarge.weight"] = torch.from_numpy(arrays[f"conv{convolutions + 1}/W"])
    network.load_state_dict(state)
    return network.eval().requires_grad_(False).to(device)


def upscale2x(network: UpConv7, rgb: RGB, tile_pixels: int = TILE_PIXELS) -> RGB:
    """Enlarge one picture to twice its size.

    Args:
        network: from `load_upconv7`; the work is done on its device.
        rgb: (H, W, 3) uint8.
        tile_pixels: a picture with more pixels than this is done in tiles. Each tile sees its true surroundings, so the
            result is the same as in one piece (up to float rounding).

    Returns (2H, 2W, 3) uint8. One picture per forward pass, so it never depends on others in a batch.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"a picture must be a non-empty (H, W, 3) uint8 array, not {rgb.shape} {rgb.dtype}")
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge")
    result = np.empty((2 * height, 2 * width, 3), np.uint8)
    tile_height, tile_width = _tile_size(height, width, tile_pixels)
    for top in range(0, height, tile_height):
        for left in range(0, width, tile_width):
            rows, columns = min(tile_height, height - top), min(tile_width, width - left)
            tile = padded[top : top + rows + 2 * MARGIN, left : left + columns + 2 * MARGIN]
            result[2 * top : 2 * (top + rows), 2 * left : 2 * (left + columns)] = _forward(network, tile)
    return result


def _tile_size(height: int, width: int, tile_pixels: int) -> tuple[int, int]:
    """Rows and columns of a tile: as few equal tiles as keep each within the pixel budget, near-square."""
    if height * width <= tile_pixels:
        return height, width
    side = max(1, int(tile_pixels**0.5))
    return -(-height // -(-height // side)), -(-width // -(-width // side))


@torch.inference_mode()
def _forward(network: UpConv7, padded: RGB) -> RGB:
    """(H + 14, W + 14, 3) to (2H, 2W, 3): to 0..1, through the network, clipped, rounded."""
    device = network.enlarge.weight.device
    pixels = torch.from_numpy(np.ascontiguousarray(padded)).to(device)
    image = pixels.permute(2, 0, 1).unsqueeze(0).float() / 255
    enlarged = network(image)[0].clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.asarray(enlarged.permute(1, 2, 0).cpu().numpy())
