"""Any mode and colour profile to 8-bit sRGB, and Pillow's pixels to arrays."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image, ImageCms

_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_PROFILE_MODES = ("RGB", "CMYK", "L")
_STRIP = 1 << 18  # pixels converted at once: they stay in the processor's cache, and in one of Pillow's blocks


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
    image = _to_eight_bits(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        counts = image.getchannel("A").histogram()
        through = sum((255 - alpha) * count for alpha, count in enumerate(counts)) / (255 * sum(counts))
        ground = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(ground, image).convert("RGB"), through
    if image.mode == "P":
        image = image.convert("RGB")  # a profile speaks of colours, not of palette places
    return image, 0.0


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits by value, where Pillow's own conversion would clip it to white."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.float64)
        full = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 255.0
        return Image.fromarray(np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(np.clip(np.rint(np.asarray(image)), 0, 255).astype(np.uint8))
    return image
