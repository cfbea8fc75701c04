"""Bringing a picture to an exact square size: enlarged by waifu2x where too small, reduced where too large."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from models.upscale.upconv7 import RGB, TILE_PIXELS, NoiseLevel, UpConv7, load_upconv7, upscale2x, weight_name
from models.weights import get_weight

Fit = Literal["crop", "letterbox"]


class TooSmallError(ValueError):
    """The picture would have to be enlarged by more than the allowed factor."""


@dataclass(frozen=True)
class Fitted:
    """A picture at its new size, and how it got there ("waifu2x-upconv7-art-scale x2 + lanczos", "none", ...)."""

    rgb: RGB
    method: str


class Upscaler:
    """Enlarges and fits pictures one by one; the result depends on the picture, the settings and the device only."""

    def __init__(
        self,
        noise: NoiseLevel = "none",
        device: str = "cpu",
        max_factor: float = 4.0,
        fit: Fit = "crop",
        tile_pixels: int = TILE_PIXELS,
        folders: Sequence[Path] = (),
    ) -> None:
        """
        Args:
            noise: how much JPEG noise to remove while enlarging: none, or 0 (little) to 3 (much).
            device: a torch device.
            max_factor: a picture that would have to grow by more than this is refused.
            fit: what to do with a picture that is not square: cut out its middle, or add black bars.
            tile_pixels: larger pictures go through the network in tiles of at most this many pixels.
            folders: where weights are looked for besides the user's own folder.

        Raises ValueError for a bad setting and `models.weights.WeightError` when the weights are missing or damaged.
        """
        if max_factor < 1:
            raise ValueError(f"max_factor must be 1 or more, not {max_factor}")
        if fit not in ("crop", "letterbox"):
            raise ValueError(f"fit must be 'crop' or 'letterbox', not {fit!r}")
        self.name = weight_name(noise)
        self.weights: tuple[str, ...] = (f"{self.name} sha256:{get_weight(self.name).sha256}",)
        self.max_factor = max_factor
        self.fit = fit
        self._tile_pixels = tile_pixels
        self._network: UpConv7 = load_upconv7(noise, device, folders)

    def upscale_to(self, rgb: RGB, size: int) -> Fitted:
        """Bring a picture to ``size`` x ``size`` pixels without distorting it.

        Args:
            rgb: (H, W, 3) uint8.
            size: side of the result in pixels.

        A picture that is too small goes through the network as often as it takes to reach the size (each time to twice
        its own), and what is then too large is reduced with Lanczos. A picture that is large enough never sees the
        network. One that has the size already comes back unchanged, with the method "none".

        Raises `TooSmallError` above ``max_factor`` and ValueError for another shape or dtype.
        """
        if size < 1:
            raise ValueError(f"the size must be 1 pixel or more, not {size}")
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise ValueError(f"a picture must be a non-empty (H, W, 3) uint8 array, not {rgb.shape} {rgb.dtype}")
        steps = []
        if rgb.shape[0] != rgb.shape[1] and self.fit == "crop":
            rgb = crop_centre(rgb)
            steps.append("centre crop")
        side = max(rgb.shape[:2])
        if size / side > self.max_factor:
            raise TooSmallError(
                f"{side} pixels would have to grow {size / side:.2f}-fold to {size}, more than max_factor "
                f"{self.max_factor:g}: raise it, or drop crops this small."
            )
        doublings = 0
        while max(rgb.shape[:2]) < size:
            rgb = upscale2x(self._network, rgb, self._tile_pixels)
            doublings += 1
        if doublings:
            steps.append(f"{self.name} x{2**doublings}")
        if max(rgb.shape[:2]) > size:
            rgb = reduce_to(rgb, size)
            steps.append("lanczos" if doublings else "lanczos-down")
        if rgb.shape[0] != rgb.shape[1]:
            rgb = letterbox(rgb)
            steps.append("letterbox")
        return Fitted(np.ascontiguousarray(rgb), " + ".join(steps) or "none")


def crop_centre(rgb: RGB) -> RGB:
    """The largest square in the middle; of an odd rest the extra pixel is lost at the end."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return rgb[top : top + side, left : left + side]


def letterbox(rgb: RGB) -> RGB:
    """Black bars on both sides of the shorter direction, to a square."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = rgb
    return square


def reduce_to(rgb: RGB, size: int) -> RGB:
    """The long side reduced to ``size`` pixels, with Pillow's Lanczos (OpenCV's does not filter, so it would alias)."""
    height, width = rgb.shape[:2]
    factor = size / max(height, width)
    target = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(rgb).resize(target, Image.Resampling.LANCZOS))
