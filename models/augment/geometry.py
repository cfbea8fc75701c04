"""Where pixels go: mirror images, turns, stretches, sizes."""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

from models.augment.colours import RGB


def mirror(rgb: RGB) -> RGB:
    """Left and right exchanged, contiguous."""
    return np.ascontiguousarray(rgb[:, ::-1])


def turn_quarters(rgb: RGB, degrees: int) -> RGB:
    """Turned counter-clockwise by a multiple of 90 degrees: every pixel is kept, width and height may change places."""
    if degrees % 90:
        raise ValueError(f"a turn without resampling is by 90, 180 or 270 degrees, not {degrees}")
    return np.ascontiguousarray(np.rot90(rgb, degrees // 90))


def resize(rgb: RGB, width: int, height: int) -> RGB:
    """By Lanczos, which averages where a picture shrinks; the same size gives the same pixels."""
    if (rgb.shape[1], rgb.shape[0]) == (width, height):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def stretch(rgb: RGB, across: float, down: float) -> RGB:
    """The middle of the picture stretched by two factors, at least 1 each, at the picture's own size.

    ImageMagick's `-resize 110%x100%` makes the picture larger instead; a dataset wants one size, so the middle is cut.
    """
    if not (across >= 1 and down >= 1):
        raise ValueError(f"a stretch is by factors of at least 1, got {across} and {down}")
    height, width = rgb.shape[:2]
    wide = resize(rgb, round(width * across), round(height * down))
    left, top = (wide.shape[1] - width) // 2, (wide.shape[0] - height) // 2
    return np.ascontiguousarray(wide[top : top + height, left : left + width])


def level(rgb: RGB, degrees: float) -> RGB:
    """Turned counter-clockwise about the middle and enlarged until no corner is empty, at the picture's own size.

    The same as cutting the largest rectangle of the picture's shape out of the turned picture and bringing it back to
    size, in one resampling.
    """
    if not -45 <= degrees <= 45:
        raise ValueError(f"a picture is levelled by -45 to 45 degrees, got {degrees}")
    height, width = rgb.shape[:2]
    sine, cosine = abs(math.sin(math.radians(degrees))), math.cos(math.radians(degrees))
    shrunk = min(width / (width * cosine + height * sine), height / (width * sine + height * cosine))
    return _sample(rgb, (width / 2, height / 2), degrees, shrunk, (width, height))


def cut_turned_square(rgb: RGB, x: float, y: float, side: int, degrees: float) -> RGB:
    """The square of `side` pixels about (x, y), from the top left of the picture, turned counter-clockwise.

    Its corners show what is around the square in the picture; what lies outside the picture is mirrored at its edge.
    """
    return _sample(rgb, (x, y), degrees, 1.0, (side, side))


def _sample(rgb: RGB, centre: tuple[float, float], degrees: float, step: float, size: tuple[int, int]) -> RGB:
    """A picture of `size` (width, height) whose neighbouring pixels are `step` pixels of `rgb` apart."""
    angle = math.radians(degrees)
    cosine, sine = step * math.cos(angle), step * math.sin(angle)
    # from a place in the result to a place in the picture; pixels are points at their centres, y points down
    across, down = (size[0] - 1) / 2, (size[1] - 1) / 2
    x, y = centre[0] - 0.5, centre[1] - 0.5
    back = np.array(
        [[cosine, -sine, x - cosine * across + sine * down], [sine, cosine, y - sine * across - cosine * down]]
    )
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    sampled: np.ndarray = cv2.warpAffine(rgb, back, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return sampled
