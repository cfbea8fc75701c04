"""Named colours of hair, eyes, skin and cloth, and how to darken and lighten them as a colourist would.

Names are those of Danbooru's tags (`black_hair`, `aqua_eyes`). Colours are sRGB, 0 to 255.
"""

import colorsys

import numpy as np

from datasets.booru.canvas import Rgb

HAIR: dict[str, Rgb] = {
    "black": (58, 54, 74),
    "brown": (122, 80, 62),
    "light_brown": (178, 128, 92),
    "blonde": (246, 214, 128),
    "orange": (240, 150, 84),
    "red": (196, 62, 66),
    "pink": (250, 172, 192),
    "purple": (150, 112, 190),
    "blue": (92, 130, 206),
    "aqua": (122, 208, 214),
    "green": (122, 182, 120),
    "grey": (168, 170, 186),
    "white": (240, 238, 246),
}
HAIR_WEIGHTS = (14, 14, 8, 14, 5, 6, 9, 7, 8, 5, 4, 6, 6)

EYES: dict[str, Rgb] = {
    "blue": (66, 128, 220),
    "red": (208, 52, 66),
    "brown": (142, 88, 56),
    "green": (72, 164, 96),
    "purple": (142, 86, 196),
    "yellow": (232, 180, 50),
    "pink": (226, 96, 150),
    "orange": (228, 124, 52),
    "aqua": (58, 184, 190),
    "grey": (120, 128, 146),
}
EYE_WEIGHTS = (18, 14, 12, 12, 10, 9, 6, 5, 8, 4)

SKIN: dict[str, Rgb] = {
    "pale": (255, 238, 228),
    "fair": (254, 228, 208),
    "warm": (248, 214, 186),
    "tan": (226, 176, 140),
    "dark": (172, 120, 92),
}
SKIN_WEIGHTS = (30, 40, 20, 7, 3)

CLOTH: dict[str, Rgb] = {
    "white": (246, 246, 250),
    "navy": (58, 72, 122),
    "black": (62, 60, 72),
    "red": (196, 70, 78),
    "pink": (244, 176, 192),
    "yellow": (246, 214, 116),
    "green": (104, 158, 128),
    "blue": (110, 156, 214),
    "purple": (140, 112, 176),
    "brown": (152, 116, 92),
    "grey": (150, 156, 170),
    "aqua": (150, 214, 212),
}


def clipped(colour: object) -> Rgb:
    r, g, b = np.clip(np.round(np.asarray(colour, dtype=np.float64)), 0, 255).astype(int)
    return int(r), int(g), int(b)


def mixed(a: Rgb, b: Rgb, share: float) -> Rgb:
    """`a` with `share` (0 to 1) of `b`."""
    return clipped(np.array(a) * (1 - share) + np.array(b) * share)


def shifted(colour: Rgb, hue: float = 0.0, saturation: float = 1.0, value: float = 1.0) -> Rgb:
    """Hue added (turns), saturation and value multiplied."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    rgb = colorsys.hsv_to_rgb((h + hue) % 1.0, min(1.0, s * saturation), min(1.0, v * value))
    return clipped([255 * c for c in rgb])


def jittered(colour: Rgb, rng: np.random.Generator, amount: float = 1.0) -> Rgb:
    """A neighbour of the colour, still of the same name."""
    hue, saturation, value = rng.normal(0, amount, 3)
    return shifted(colour, 0.012 * hue, 1 + 0.08 * saturation, 1 + 0.05 * value)


def line_of(colour: Rgb, depth: float = 0.34) -> Rgb:
    """The ink beside a fill: the same hue, dark and a little purple."""
    return mixed(shifted(colour, 0.0, 1.25, depth), (52, 28, 48), 0.35)


def shadow_of(colour: Rgb) -> Rgb:
    """The cel shadow of a fill: darker, more saturated, towards violet."""
    return mixed(shifted(colour, 0.0, 1.18, 0.80), (120, 84, 150), 0.16)


def light_of(colour: Rgb) -> Rgb:
    """The highlight of a fill."""
    return mixed(shifted(colour, 0.015, 0.75, 1.22), (255, 255, 255), 0.42)
