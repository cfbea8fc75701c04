"""What every enlarging network here has in common: how much it enlarges, and how much surroundings it needs.

Two kinds exist. waifu2x's networks convolve without padding, so each side of the result lacks what the convolutions eat
(`loss`). The ESRGAN family pads with zeros inside, loses nothing, and sees `context` pixels far. Both are used in the
same way: a picture is enlarged on each side by `margin` pixels that repeat its edge, goes through the network, and what
comes back is cut to the picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Channels scaled by what the mean of the whole feature map says: the one thing here that sees beyond a tile.

    A tile's own mean differs from the picture's, so tiles of a network with gates would not equal the whole. The engine
    therefore finds the mean over all tiles first and sets it as `mean` (N, C); None: the mean of what comes in.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)
        self.mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3)) if self.mean is None else self.mean
        weight = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))
        return x * weight[:, :, None, None]


class UpscaleNetwork(nn.Module):
    """(N, 3, H, W) RGB in 0..1 to (N, 3, scale * (H - 2 * loss), scale * (W - 2 * loss)), not clipped."""

    scale: int  # output pixels per input pixel, each way; 1: only removes noise
    margin: int  # pixels that each side of a whole picture is enlarged by, repeating its edge
    loss: int  # input pixels that each side gives up: margin for nets without padding inside, 0 for those with
    context: int  # input pixels around an area that its result can depend on (gates apart)
    multiple: int = 1  # H - 2 * loss and W - 2 * loss must be multiples of this, and so must be where tiles begin

    @property
    def gates(self) -> tuple[SqueezeExcite, ...]:
        """The parts that see the whole picture, in the order in which they are computed."""
        return tuple(module for module in self.modules() if isinstance(module, SqueezeExcite))
