"""The guide's set: eighteen mild variants of a picture, each with fixed settings.

The list and its numbers are those of the public write-up "Making Anime Faces With StyleGAN", which names ImageMagick's
options; what each option means is ImageMagick's documentation's word, how it is computed is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from models.augment.colours import (
    RGB,
    Colour,
    change_brightness,
    colorize,
    shift_to_blue,
    squeeze_levels,
    stretch_levels,
)
from models.augment.edges import blur_adaptively, sharpen_adaptively
from models.augment.geometry import stretch
from models.augment.skew import deskew

# X11's colours of these names, which are ImageMagick's
TINTS: dict[str, Colour] = {
    "red": (255, 0, 0),
    "orange": (255, 165, 0),
    "yellow": (255, 255, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
}
TINT_SHARE = 0.05  # how much of a tinted picture is paint
_STRETCH = 1.1
_MOONLIGHT = 1.1
_LEVEL = 0.05  # black and white point, from the ends

# Each takes and gives uint8 (H, W, 3) of one size.
GUIDE: dict[str, Callable[[RGB], RGB]] = {
    "deskew": deskew,
    "stretch-wide": partial(stretch, across=_STRETCH, down=1.0),
    "stretch-tall": partial(stretch, across=1.0, down=_STRETCH),
    "blue-shift": partial(shift_to_blue, factor=_MOONLIGHT),
    **{f"tint-{name}": partial(colorize, colour=colour, share=TINT_SHARE) for name, colour in TINTS.items()},
    "adaptive-blur": partial(blur_adaptively, radius=3, sigma=2.0),
    "adaptive-sharpen": partial(sharpen_adaptively, radius=4, sigma=2.0),
    "brighter": partial(change_brightness, brightness=10.0),
    "brighter-contrast": partial(change_brightness, brightness=10.0, contrast=10.0),
    "darker": partial(change_brightness, brightness=-10.0),
    "darker-contrast": partial(change_brightness, brightness=-10.0, contrast=10.0),
    "levels-stretched": partial(stretch_levels, black=_LEVEL, white=1.0 - _LEVEL),
    "levels-squeezed": partial(squeeze_levels, black=_LEVEL, white=1.0 - _LEVEL),
}
