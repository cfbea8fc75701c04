"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738): light colour changes, translation and cutout, all the time.

Beside ADA it costs little and needs no control: the paper applies all of it to every picture, p = 1.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from models.device import in_full_precision
from models.gan.ada.corruption import cut_out
from models.gan.ada.pipeline import change_some
from models.gan.ada.resample import pick_pixels

BRIGHTNESS = 0.5  # at most this is added or taken off
SATURATION = (0.0, 2.0)  # range of the factor
CONTRAST = (0.5, 1.5)  # range of the factor
TRANSLATION = 0.125  # of the side, at most


@dataclass(frozen=True)
class DiffDraw:
    """The augmentations of N pictures of one size, on the CPU. `draw[a:b]` are those of pictures a to b."""

    width: int
    height: int
    brightness: torch.Tensor  # float64 (N,): is added, 0 is off
    saturation: torch.Tensor  # float64 (N,): factor, 1 is off
    contrast: torch.Tensor  # float64 (N,): factor, 1 is off
    translation: torch.Tensor  # int64 (N, 2): pixels to the right and down, 0 is off
    cutout: torch.Tensor  # float64 (N, 2): centre of the square as shares of width and height; NaN is off

    def __len__(self) -> int:
        return len(self.brightness)

    def __getitem__(self, part: slice) -> "DiffDraw":
        tensors: dict[str, Any] = {name: v[part] for name, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return dataclasses.replace(self, **tensors)


class DiffAugment:
    """The paper's policy "colour, translation, cutout", in the two steps of `AdaPipeline`."""

    def draw(self, count: int, p: float, width: int, height: int, rng: torch.Generator) -> DiffDraw:
        """Augmentations of `count` pictures of `width` x `height`; each of the five is on with probability p.

        `rng` is a CPU generator. It gives the same values, in the same order, whatever p is. Raises ValueError if p is
        not in 0..1.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"p must lie in 0..1, got {p}")
        on, values = torch.rand((2, 5, count), generator=rng, dtype=torch.float64)
        more = torch.rand((2, count), generator=rng, dtype=torch.float64)
        chosen = on < p
        reach = [round(TRANSLATION * side) for side in (width, height)]
        shifts = [(value * (2 * far + 1)).long() - far for far, value in zip(reach, (values[3], more[0]), strict=True)]
        return DiffDraw(
            width=width,
            height=height,
            brightness=torch.where(chosen[0], (2 * values[0] - 1) * BRIGHTNESS, 0.0),
            saturation=torch.where(chosen[1], SATURATION[0] + values[1] * (SATURATION[1] - SATURATION[0]), 1.0),
            contrast=torch.where(chosen[2], CONTRAST[0] + values[2] * (CONTRAST[1] - CONTRAST[0]), 1.0),
            translation=torch.where(chosen[3][:, None], torch.stack(shifts, 1), 0),
            cutout=torch.where(chosen[4][:, None], torch.stack((values[4], more[1]), 1), math.nan),
        )

    def apply(self, images: torch.Tensor, draw: DiffDraw) -> torch.Tensor:
        """Images (N, C, H, W), about -1..1, changed as drawn: same shape, dtype and device; values may leave the range.

        C is 1 (grey: saturation does nothing), 3 (RGB) or 4 (RGBA: alpha is moved and cut out, not coloured). Half
        precision is computed in float32. Differentiable twice. What a translation uncovers, and what is cut out, is 0.
        """
        if len(images) != len(draw) or tuple(images.shape[2:]) != (draw.height, draw.width):
            raise ValueError(
                f"drawn for {len(draw)} pictures of {draw.height} x {draw.width} (height x width), "
                f"got {tuple(images.shape)}: draw for this batch, or take the draw's part that belongs to it"
            )
        if images.shape[1] not in (1, 3, 4):
            raise ValueError(f"pictures must have 1, 3 or 4 channels, got {images.shape[1]}")
        with in_full_precision(images.device):
            exact = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
            coloured = (draw.brightness != 0) | (draw.saturation != 1) | (draw.contrast != 1)
            exact = change_some(exact, coloured, _recolour, draw.brightness, draw.saturation, draw.contrast)
            exact = change_some(exact, draw.translation.any(1), _translate, draw.translation)
            exact = change_some(exact, ~draw.cutout.isnan().any(1), cut_out, draw.cutout)
            return exact.to(images.dtype)


def _recolour(
    images: torch.Tensor,
    brightness: torch.Tensor,
    saturation: torch.Tensor,
    contrast: torch.Tensor,
) -> torch.Tensor:
    """In the paper's order: brightness, saturation about each pixel's mean, contrast about each picture's mean."""
    add, colour, spread = (values.to(images)[:, None, None, None] for values in (brightness, saturation, contrast))
    colours = images[:, :3] + add
    grey = colours.mean(1, keepdim=True)
    colours = grey + (colours - grey) * colour
    middle = colours.mean((1, 2, 3), keepdim=True)
    colours = middle + (colours - middle) * spread
    return torch.cat((colours, images[:, 3:]), 1) if images.shape[1] == 4 else colours


def _translate(images: torch.Tensor, translation: torch.Tensor) -> torch.Tensor:
    height, width = images.shape[2:]
    right, down = translation.to(images.device).unbind(1)
    across = torch.arange(width, device=images.device)[None, None, :] - right[:, None, None]  # (N, 1, W)
    along = torch.arange(height, device=images.device)[None, :, None] - down[:, None, None]  # (N, H, 1)
    inside = (across >= 0) & (across < width) & (along >= 0) & (along < height)
    picked = pick_pixels(images, across.clamp(0, width - 1), along.clamp(0, height - 1))
    return torch.where(inside[:, None], picked, 0.0)
