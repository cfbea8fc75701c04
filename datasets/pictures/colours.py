"""Any mode and colour profile to 8-bit sRGB, and Pillow's pixels to arrays."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image, ImageCms

_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_PROFILE_MODES = ("RGB", "CMYK", "L")
_STRIP = 1 << 18  # pixels converted at once: they stay in the processor's cache, and in one of Pillow's blocks
_FULL_SCALES = (255, 65535, 2**31 - 1)  # of grey in 32 bits, whose file does not say how many of them are used
_EIGHT_OF_SIXTEEN = np.rint(np.arange(65536) * (255 / 65535)).astype(np.uint8)


class Profile:
    """An embedded ICC profile as a transform to sRGB. What it does to a pixel depends on that pixel alone."""

    def __init__(self, data: bytes, mode: str) -> None:
        """data: the profile. mode: Pillow's mode of the pixels. Raises ImageCms.PyCMSError, OSError or ValueError."""
        source = ImageCms.ImageCmsProfile(io.BytesIO(data))
        self._transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture as RGB in sRGB."""
        converted = ImageCms.applyTransform(image, self._transform)
        if converted is None:
            raise ValueError("the colour profile gave no picture")
        return converted


def read_profile(data: bytes | None, mode: str) -> Profile | None:
    """The profile of a picture; None where there is none or it is unusable (then the pixels count as sRGB)."""
    if not data or mode not in _PROFILE_MODES:
        return None
    try:
        return Profile(data, mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def to_array(image: Image.Image) -> np.ndarray:
    """An RGB picture as uint8 (H, W, 3): the same as `np.asarray(image)` in an eighth of the time.

    Pillow keeps four bytes a pixel, and lends them without a copy; only the fourth must go.
    """
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        strip = image.crop((0, top, width, bottom))
        rgbx = np.asarray(pa.array(strip).flatten()).reshape(bottom - top, width, 4)
        cv2.cvtColor(rgbx, cv2.COLOR_RGBA2RGB, dst=rgb[top:bottom])
    return rgb


def to_srgb(image: Image.Image, profile: Profile | None) -> np.ndarray:
    """An opaque picture of 8 bits (RGB, L, CMYK, ...) to uint8 (H, W, 3) sRGB."""
    if profile is not None:
        image = profile.apply(image)
    return to_array(image if image.mode == "RGB" else image.convert("RGB"))


def flatten(image: Image.Image, background: tuple[int, int, int]) -> tuple[Image.Image, float]:
    """Any mode to an opaque picture of 8 bits, transparency laid over a background.

    Returns the picture and its transparency: 0 to 1, averaged over the pixels.
    """
    image = to_eight_bits(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        counts = image.getchannel("A").histogram()
        through = sum((255 - alpha) * count for alpha, count in enumerate(counts)) / (255 * sum(counts))
        ground = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(ground, image).convert("RGB"), through
    if image.mode == "P":
        image = image.convert("RGB")  # a profile speaks of colours, not of palette places
    return image, 0.0


def to_eight_bits(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits by value, where Pillow's own conversion would clip it to white.

    A grey that the file calls transparent becomes an alpha channel, compared before neighbouring values fall together.
    What is no number in floating point becomes black.
    """
    if image.mode.startswith("I;16"):
        grey = _convert_strips(image, lambda values: _EIGHT_OF_SIXTEEN[values])
    elif image.mode == "I":
        _, brightest = cast("tuple[int, int]", image.getextrema())
        full = next((scale for scale in _FULL_SCALES if brightest <= scale), _FULL_SCALES[-1])
        grey = _convert_strips(image, lambda values: np.rint(np.clip(values, 0, full) * (255 / full)))
    elif image.mode == "F":
        grey = _convert_strips(
            image, lambda values: np.clip(np.rint(np.nan_to_num(values, nan=0, posinf=255, neginf=0)), 0, 255)
        )
    else:
        return image
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(grey)
    alpha = _convert_strips(image, lambda values: np.where(values == clear, 0, 255))
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))


def _convert_strips(image: Image.Image, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Values of one channel to uint8 (H, W), a strip at a time: what is made on the way does not grow."""
    width, height = image.size
    converted = np.empty((height, width), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        converted[top:bottom] = convert(np.asarray(image.crop((0, top, width, bottom))))
    return converted
