"""Backgrounds: gradients, skies, nights, patterns, light, rooms. Uint8 RGB arrays of shape (height, width, 3)."""

from collections.abc import Callable

import cv2
import numpy as np

from datasets.booru.canvas import Pixels, Rgb
from datasets.booru.curves import ellipse, spline
from datasets.booru.palette import CLOTH, jittered, light_of, mixed, shifted

WHITE: Rgb = (255, 255, 255)


def _fixed(points: object) -> np.ndarray:
    return np.round(np.asarray(points, dtype=np.float64) * 16).astype(np.int32)


def _fill(pixels: Pixels, points: object, colour: Rgb) -> None:
    cv2.fillPoly(pixels, [_fixed(points)], colour, cv2.LINE_AA, 4)


def vertical(width: int, height: int, *stops: Rgb) -> Pixels:
    """A vertical gradient through evenly spaced colours."""
    place = np.linspace(0, len(stops) - 1, height)
    rows = np.stack([np.interp(place, np.arange(len(stops)), [s[c] for s in stops]) for c in range(3)], 1)
    return cv2.resize(np.round(rows).astype(np.uint8)[:, None], (width, height), interpolation=cv2.INTER_NEAREST)


def _pastel(rng: np.random.Generator) -> Rgb:
    name = str(rng.choice(["pink", "yellow", "green", "blue", "purple", "aqua", "grey", "red"]))
    return mixed(jittered(CLOTH[name], rng), WHITE, float(rng.uniform(0.15, 0.6)))


def _soft_discs(pixels: Pixels, rng: np.random.Generator, n: int, colour: Rgb, low: float, high: float) -> Pixels:
    """Discs of light, out of focus."""
    height, width = pixels.shape[:2]
    layer = pixels.copy()
    for _ in range(n):
        radius = rng.uniform(low, high) * min(width, height)
        centre = (int(16 * rng.uniform(0, width)), int(16 * rng.uniform(0, height)))
        cv2.circle(
            layer, centre, int(16 * radius), mixed(colour, WHITE, float(rng.uniform(0, 0.5))), -1, cv2.LINE_AA, 4
        )
    return cv2.addWeighted(pixels, 0.55, layer, 0.45, 0)


def simple(width: int, height: int, rng: np.random.Generator) -> Pixels:
    return np.full((height, width, 3), WHITE if rng.random() < 0.6 else mixed(_pastel(rng), WHITE, 0.6), np.uint8)


def gradient(width: int, height: int, rng: np.random.Generator) -> Pixels:
    pixels = vertical(width, height, _pastel(rng), mixed(_pastel(rng), WHITE, 0.4))
    return _soft_discs(pixels, rng, int(rng.integers(0, 12)), WHITE, 0.02, 0.1)


def sky(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Blue sky with cumulus clouds, sometimes over the sea or hills."""
    deep = shifted((70, 140, 226), float(rng.normal(0, 0.012)))
    pixels = vertical(width, height, deep, mixed(deep, WHITE, 0.45), (222, 240, 252))
    size = min(width, height)
    for _ in range(int(rng.integers(2, 6))):
        x, y, wide = rng.uniform(0, width), rng.uniform(0.08, 0.7) * height, rng.uniform(0.14, 0.34) * size
        puffs = [
            (
                x + wide * u,
                y - wide * 0.32 * (1 - abs(u)) * rng.random(),
                wide * rng.uniform(0.2, 0.42) * (1.1 - abs(u)),
            )
            for u in np.linspace(-1, 1, 11)
        ]
        for dy, colour in ((0.06, (206, 224, 244)), (0.0, (250, 252, 255))):
            for px, py, r in puffs:
                cv2.circle(pixels, (int(16 * px), int(16 * (py + dy * wide))), int(16 * r), colour, -1, cv2.LINE_AA, 4)
    if rng.random() < 0.5:
        horizon = height * rng.uniform(0.66, 0.85)
        green = shifted((120, 186, 120), float(rng.normal(0, 0.03)))
        for k in range(2):
            top = spline(
                [
                    (-10, horizon + 40 * k),
                    (width * 0.3, horizon - height * 0.05 + 40 * k),
                    (width * 0.7, horizon + height * 0.03 + 40 * k),
                    (width + 10, horizon - 20 + 40 * k),
                ]
            )
            _fill(
                pixels,
                np.vstack([top, [(width + 10, height + 10), (-10, height + 10)]]),
                shifted(green, 0.01 * k, 1.1, 1 - 0.14 * k),
            )
    return pixels


def sunset(width: int, height: int, rng: np.random.Generator) -> Pixels:
    pixels = vertical(width, height, (92, 78, 150), (232, 128, 132), (255, 204, 142), (255, 236, 196))
    sun = (int(width * rng.uniform(0.15, 0.85)), int(height * rng.uniform(0.5, 0.75)))
    cv2.circle(pixels, sun, int(0.09 * min(width, height)), (255, 246, 220), -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(3, 8))):
        x, y, wide = rng.uniform(0, width), rng.uniform(0.15, 0.7) * height, rng.uniform(0.15, 0.4) * width
        _fill(
            pixels,
            ellipse((x, y), wide, height * rng.uniform(0.006, 0.016)),
            mixed((250, 170, 160), (150, 100, 160), float(rng.random())),
        )
    skyline = height * rng.uniform(0.8, 0.9)
    x = 0.0
    while x < width:
        step = width * rng.uniform(0.04, 0.12)
        top = skyline - height * rng.uniform(0.0, 0.14)
        cv2.rectangle(pixels, (int(x), int(top)), (int(x + step), height), (88, 66, 104), -1)
        x += step
    return pixels


def night(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Stars, a moon, a glow near the ground."""
    hue = float(rng.normal(0, 0.03))
    pixels = vertical(
        width, height, shifted((24, 26, 66), hue), shifted((52, 58, 122), hue), shifted((120, 104, 168), hue)
    )
    for x, y, r in zip(rng.uniform(0, width, 130), rng.uniform(0, height, 130), rng.exponential(0.9, 130), strict=True):
        cv2.circle(pixels, (int(16 * x), int(16 * y)), int(16 * min(r + 0.5, 3.0)), (250, 246, 220), -1, cv2.LINE_AA, 4)
    moon, size = (int(width * rng.uniform(0.1, 0.9)), int(height * rng.uniform(0.08, 0.3))), 0.08 * min(width, height)
    sky_alone = pixels.copy()
    cv2.circle(pixels, moon, int(size), (255, 248, 214), -1, cv2.LINE_AA)
    if rng.random() < 0.6:
        cut = np.zeros((height, width), np.uint8)
        cv2.circle(cut, (moon[0] + int(size * 0.45), moon[1] - int(size * 0.2)), int(size * 0.85), 255, -1)
        pixels = cv2.copyTo(sky_alone, cut, pixels)
    return pixels


def bokeh(width: int, height: int, rng: np.random.Generator) -> Pixels:
    dark = shifted(_pastel(rng), 0, 1.6, float(rng.uniform(0.4, 0.9)))
    pixels = vertical(width, height, dark, shifted(dark, 0.06, 1.0, 1.2))
    pixels = _soft_discs(pixels, rng, 22, light_of(dark), 0.02, 0.09)
    return cv2.blur(cv2.blur(pixels, (7, 7)), (5, 5))


def pattern(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Dots, stripes, checks or diamonds in two near colours."""
    a = _pastel(rng)
    b = mixed(a, WHITE, 0.35) if rng.random() < 0.6 else shifted(a, 0.03, 1.25, 0.93)
    pixels = np.full((height, width, 3), a, np.uint8)
    step = rng.uniform(0.05, 0.11) * min(width, height)
    kind = int(rng.integers(4))
    if kind == 0:
        for j in range(int(height / step) + 2):
            for i in range(int(width / step) + 2):
                centre = (int(16 * step * (i + 0.5 * (j % 2))), int(16 * step * j))
                cv2.circle(pixels, centre, int(16 * step * 0.22), b, -1, cv2.LINE_AA, 4)
    elif kind == 1:
        lean = float(rng.choice([0.0, 1.0, -1.0]))
        for i in range(-int(height / step) - 2, int((width + height) / step) + 2, 2):
            x = i * step
            _fill(pixels, [(x, 0), (x + step, 0), (x + step + lean * height, height), (x + lean * height, height)], b)
    elif kind == 2:
        for j in range(int(height / step) + 1):
            for i in range(j % 2, int(width / step) + 1, 2):
                cv2.rectangle(pixels, (int(i * step), int(j * step)), (int((i + 1) * step), int((j + 1) * step)), b, -1)
    else:
        for j in range(int(height / step) + 2):
            for i in range(int(width / step) + 2):
                x, y, h = (i + 0.5 * (j % 2)) * step, j * step, step * 0.36
                _fill(pixels, [(x, y - h), (x + h * 0.7, y), (x, y + h), (x - h * 0.7, y)], b)
    return pixels


def petals(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Falling petals over a soft gradient."""
    pixels = vertical(width, height, (198, 226, 248), (252, 238, 244), (255, 220, 230))
    for _ in range(int(rng.integers(25, 60))):
        size = min(width, height) * rng.uniform(0.008, 0.026)
        shape = ellipse(
            (rng.uniform(0, width), rng.uniform(0, height)), size, size * 0.55, 16, float(rng.uniform(0, 3.14))
        )
        _fill(pixels, shape, mixed((250, 168, 190), WHITE, float(rng.uniform(0, 0.6))))
    return pixels


def room(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """A wall, a window with sky and curtains, a floor line."""
    wall = mixed(_pastel(rng), (250, 240, 226), 0.6)
    pixels = vertical(width, height, wall, shifted(wall, 0, 1.2, 0.92))
    x0, y0 = width * rng.uniform(0.04, 0.5), height * rng.uniform(0.04, 0.16)
    x1, y1 = x0 + width * rng.uniform(0.3, 0.46), y0 + height * rng.uniform(0.36, 0.5)
    pane = sky(max(8, int(x1 - x0)), max(8, int(y1 - y0)), rng)
    ix, iy = int(x0), int(y0)
    fit = pixels[iy : iy + pane.shape[0], ix : ix + pane.shape[1]]
    fit[:] = pane[: fit.shape[0], : fit.shape[1]]
    frame = mixed(WHITE, wall, 0.3)
    thick = max(3, int(0.012 * width))
    cv2.rectangle(pixels, (ix, iy), (int(x1), int(y1)), frame, thick, cv2.LINE_AA)
    cv2.line(pixels, (int((x0 + x1) / 2), iy), (int((x0 + x1) / 2), int(y1)), frame, thick, cv2.LINE_AA)
    cloth = mixed(_pastel(rng), WHITE, 0.2)
    for edge, lean in ((x0, -1), (x1, 1)):
        w = width * 0.07
        curtain = spline(
            [
                (edge - w, y0 - 10),
                (edge + w, y0 - 10),
                (edge + w * 0.5 * (1 + lean * 0.3), (y0 + y1) / 2),
                (edge + w * 0.9, y1 + 20),
                (edge - w * 0.9, y1 + 20),
                (edge - w * 0.6, (y0 + y1) / 2),
            ],
            closed=True,
        )
        _fill(pixels, curtain, cloth)
    return cv2.blur(pixels, (3, 3))


def burst(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Rays from a point, as behind an excited person."""
    a = _pastel(rng)
    b = mixed(a, WHITE, 0.4)
    pixels = np.full((height, width, 3), a, np.uint8)
    centre, far = np.array([width * rng.uniform(0.3, 0.7), height * rng.uniform(0.35, 0.65)]), 2.0 * max(width, height)
    n = int(rng.integers(10, 22))
    for k in range(n):
        angles = 2 * np.pi * (k + np.array([0.0, 0.5])) / n
        _fill(pixels, [centre, *(centre + far * np.array([np.cos(t), np.sin(t)]) for t in angles)], b)
    return pixels


BACKGROUNDS: dict[str, tuple[float, Callable[[int, int, np.random.Generator], Pixels], tuple[str, ...]]] = {
    "simple": (14, simple, ("simple_background",)),
    "gradient": (20, gradient, ("gradient_background",)),
    "sky": (16, sky, ("sky", "cloud", "day", "outdoors")),
    "sunset": (8, sunset, ("sunset", "sky", "outdoors")),
    "night": (9, night, ("night", "star_(sky)", "outdoors")),
    "bokeh": (9, bokeh, ("blurry_background",)),
    "pattern": (10, pattern, ("patterned_background",)),
    "petals": (8, petals, ("petals",)),
    "room": (8, room, ("indoors", "window")),
    "burst": (4, burst, ("abstract_background",)),
}
