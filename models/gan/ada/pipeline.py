"""The augmentations themselves: first all chance is drawn on the CPU, then pictures are changed accordingly."""

import dataclasses
from collections.abc import Callable

import torch

from models.device import in_full_precision
from models.gan.ada.bands import amplify
from models.gan.ada.colour import recolour
from models.gan.ada.corruption import add_noise, cut_out
from models.gan.ada.draw import AdaDraw, Strengths, draw_augmentations
from models.gan.ada.resample import SMALLEST, copy_pixels, find_copies, warp

_GROUPS = {"b": "blit", "g": "geometry", "c": "colour", "f": "filter", "n": "noise"}

PRESETS: dict[str, Strengths] = {
    "none": Strengths(),
    **{name: Strengths(**{_GROUPS[letter]: 1.0 for letter in name}) for name in ("b", "g", "c", "bg", "bgc")},
    **{name: Strengths(**{_GROUPS[letter]: 1.0 for letter in name}) for name in ("bgcf", "bgcfn")},
    "bgcfnc": Strengths(blit=1.0, geometry=1.0, colour=1.0, filter=1.0, noise=1.0, cutout=1.0),
}
"""The paper's names: b = blit, g = geometry, c = colour, f = filter, n = noise, and a last c = cutout. `bgc` is what
StyleGAN2-ADA trains with; `bg` spares the colours, which matter in drawings."""


class AdaPipeline:
    """Augments what D sees, reals and fakes alike, each picture by chance of its own.

    `draw` takes chance from a CPU generator and knows of no picture; `apply` changes pictures and knows of no chance.
    So a batch may be drawn for at once and applied in parts, on several devices, and again.
    """

    def __init__(
        self,
        preset: str = "bgc",  # which groups are on; a key of PRESETS
        *,
        blit: float | None = None,  # multipliers of p, group by group, instead of the preset's;
        geometry: float | None = None,  # R3GAN (arXiv:2501.05441): bgc with colour 0.5 and cutout 1
        colour: float | None = None,
        filter: float | None = None,
        noise: float | None = None,
        cutout: float | None = None,
    ) -> None:
        if preset not in PRESETS:
            raise ValueError(f"there is no augmentation called {preset!r}: choose one of {', '.join(PRESETS)}")
        own = {"blit": blit, "geometry": geometry, "colour": colour, "filter": filter, "noise": noise, "cutout": cutout}
        given = {group: value for group, value in own.items() if value is not None}
        self.strengths = dataclasses.replace(PRESETS[preset], **given)

    def draw(self, count: int, p: float, width: int, height: int, rng: torch.Generator) -> AdaDraw:
        """Augmentations of `count` pictures of `width` x `height`; each is on with probability p times its multiplier.

        `rng` is a CPU generator. It gives the same number of values, in the same order, whatever p and the preset are.
        Raises ValueError if p is not in 0..1 or a side has fewer than 8 pixels.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"p must lie in 0..1, got {p}")
        if min(width, height) < SMALLEST:
            raise ValueError(f"pictures must have {SMALLEST} pixels a side to be augmented, got {width} x {height}")
        return draw_augmentations(count, p, self.strengths, width, height, rng)

    def apply(self, images: torch.Tensor, draw: AdaDraw) -> torch.Tensor:
        """Images (N, C, H, W), about -1..1, changed as drawn: same shape, dtype and device; values may leave the range.

        C is 1 (grey), 3 (RGB) or 4 (RGBA: alpha is moved and cut out with the colours, but not coloured, filtered or
        made noisy). Half precision is computed in float32. Differentiable twice with respect to the images. A picture
        whose draw is the identity comes back to the last bit; a batch of such is returned as it is.
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
            return _change(exact, draw).to(images.dtype)


def _change(images: torch.Tensor, draw: AdaDraw) -> torch.Tensor:
    moves = draw.geometry @ draw.blit
    copied = find_copies(draw.blit, draw.geometry, draw.width, draw.height)
    images = change_some(images, copied & _differs(draw.blit, torch.eye(3)), copy_pixels, draw.blit)
    images = change_some(images, ~copied, warp, moves)
    images = change_some(images, _differs(draw.colour, torch.eye(4)), recolour, draw.colour)
    images = change_some(images, _differs(draw.gains, torch.ones(4)), amplify, draw.gains)
    images = change_some(images, draw.noise > 0, add_noise, draw.noise, draw.noise_seed)
    return change_some(images, ~draw.cutout.isnan().any(1), cut_out, draw.cutout)


def _differs(drawn: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
    return (drawn != identity.to(drawn)).flatten(1).any(1)


def change_some(
    images: torch.Tensor,
    chosen: torch.Tensor,
    change: Callable[..., torch.Tensor],
    *drawn: torch.Tensor,
) -> torch.Tensor:
    """`change` those images that are chosen, bool (N,) on the CPU, and leave the others untouched."""
    if not chosen.any():
        return images
    if chosen.all():
        return change(images, *drawn)
    rows = chosen.nonzero().flatten().to(images.device)
    changed = change(images.index_select(0, rows), *(values[chosen] for values in drawn))
    return images.index_copy(0, rows, changed)
