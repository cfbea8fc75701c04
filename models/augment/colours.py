"""Colours: tints, moonlight, brightness and contrast, levels, inversion. Pixel by pixel, nothing moves."""

from __future__ import annotations

import cv2
import numpy as np

RGB = np.ndarray  # uint8 (H, W, 3)
Colour = tuple[int, int, int]

# How much the rods of the eye make of red, green and blue light: next to nothing of red (Purkinje effect).
_ROD_WEIGHTS = np.array([0.05, 0.60, 0.35], np.float32)
_ROD_SHARE = 0.5  # of what is seen at dusk; the rest is still colour


def invert(rgb: RGB) -> RGB:
    """The negative: every channel counted from white. Twice gives the picture back."""
    return 255 - rgb


def colorize(rgb: RGB, colour: Colour, share: float) -> RGB:
    """The picture under a sheet of paint. share: 0 leaves it as it is, 1 leaves nothing but the colour.

    ImageMagick's `-fill COLOUR -colorize SHARE`: a blend of the two, the same at every pixel.
    """
    _require_between("share", share, 0.0, 1.0)
    mixed = rgb.astype(np.float32) * (1.0 - share) + np.asarray(colour, np.float32) * share
    return round_pixels(mixed)


def shift_to_blue(rgb: RGB, factor: float) -> RGB:
    """A scene by moonlight, as ImageMagick's `-blue-shift FACTOR` means it, by our own formula.

    Half of each colour gives way to the grey that the rods of the eye see, which hardly know red; then red is divided
    by the square of the factor and green by the factor. factor: 1.1 is dusk, 1.5 is night; at least 1.
    """
    _require_between("factor", factor, 1.0, 10.0)
    colours = rgb.astype(np.float32)
    rods = colours @ _ROD_WEIGHTS
    mixed = (1.0 - _ROD_SHARE) * colours + _ROD_SHARE * rods[..., None]
    return round_pixels(mixed / np.array([factor**2, factor, 1.0], np.float32))


def change_brightness(rgb: RGB, brightness: float, contrast: float = 0.0) -> RGB:
    """Brightness and contrast in percent, -100 to 100, as ImageMagick's `-brightness-contrast` counts them.

    A straight line through the tones: contrast turns it about middle grey (tan 45 degrees is none, 100 is upright),
    brightness lifts it by that share of the range.
    """
    _require_between("brightness", brightness, -100.0, 100.0)
    _require_between("contrast", contrast, -100.0, 99.0)
    slope = np.tan(np.pi / 4 * (1.0 + contrast / 100.0))
    tones = np.arange(256) / 255.0
    return _map_tones(rgb, slope * (tones - 0.5) + 0.5 + brightness / 100.0)


def stretch_levels(rgb: RGB, black: float, white: float = 1.0, gamma: float = 1.0) -> RGB:
    """ImageMagick's `-level BLACK,WHITE,GAMMA`: what lies between the two points is spread over the whole range.

    black, white: 0..1, black below white; darker and lighter tones are lost. gamma: above 1 lifts the middle tones.
    """
    _require_levels(black, white, gamma)
    tones = np.clip((np.arange(256) / 255.0 - black) / (white - black), 0.0, 1.0)
    return _map_tones(rgb, tones ** (1.0 / gamma))


def squeeze_levels(rgb: RGB, black: float, white: float = 1.0, gamma: float = 1.0) -> RGB:
    """ImageMagick's `+level BLACK,WHITE,GAMMA`: the opposite of `stretch_levels`. Nothing stays black or white."""
    _require_levels(black, white, gamma)
    tones = (np.arange(256) / 255.0) ** gamma
    return _map_tones(rgb, black + tones * (white - black))


def round_pixels(values: np.ndarray) -> RGB:
    """Floats in 0..255 to uint8, rounded to nearest; values outside are clamped."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _map_tones(rgb: RGB, tones: np.ndarray) -> RGB:
    """Each channel value through a table of 256 tones, 0..1."""
    mapped: np.ndarray = cv2.LUT(np.ascontiguousarray(rgb), round_pixels(tones * 255.0))
    return mapped


def _require_levels(black: float, white: float, gamma: float) -> None:
    if not 0.0 <= black < white <= 1.0:
        raise ValueError(f"levels need 0 <= black < white <= 1, got {black} and {white}")
    _require_between("gamma", gamma, 0.05, 20.0)


def _require_between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN is refused too
        raise ValueError(f"{name} must be {low:g} to {high:g}, got {value}")
