"""Skew: by how much a picture hangs crooked, as its lines tell.

Scans, pages and pictures with frames, text or a horizon have many edges in one line. Seen along that line they fall
onto each other, seen along any other they scatter: the projection of the edges varies most at the right angle.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.augment.colours import RGB
from models.augment.edges import edge_strength
from models.augment.geometry import level

MOST = 10.0  # degrees to either side that are looked at
_SIDE = 384  # pixels of the long side of the copy that is looked at: half a degree moves its rim by more than a pixel
_COARSE, _FINE = 0.25, 0.05  # degrees between two looks
_CLEAR = 1.25  # the best angle must stand out so far from the best tenth of all: hair and cloth have lines anyhow
_STRAIGHT = 0.3  # degrees that nobody sees, and about what the pixel grid may feign


def deskew(rgb: RGB) -> RGB:
    """The picture hung straight, as ImageMagick's `-deskew` means it, at its own size and without empty corners.

    A picture that hangs straight, or has no lines to tell by, is given back as it is.
    """
    skew = find_skew(rgb)
    return level(rgb, -skew) if skew else rgb.copy()


def find_skew(rgb: RGB, most: float = MOST) -> float:
    """Degrees by which the picture was turned counter-clockwise, -most..most; 0 when its lines say nothing."""
    x, y, weights, radius = _list_edges(rgb)
    if len(weights) == 0:
        return 0.0

    def score(degrees: float) -> float:
        return _vary(x, y, weights, radius, degrees)

    angles = np.arange(-most, most + _COARSE / 2, _COARSE)
    scores = np.array([score(angle) for angle in angles])
    place = int(np.argmax(scores))
    if place in (0, len(angles) - 1) or scores[place] < _CLEAR * np.quantile(scores, 0.9):
        return 0.0  # no peak, or one whose other side is out of sight
    nearby = angles[place] + np.arange(-_COARSE, _COARSE + _FINE / 2, _FINE)
    skew = float(nearby[int(np.argmax([score(angle) for angle in nearby]))])
    return 0.0 if abs(skew) < _STRAIGHT else round(skew, 2)


def _list_edges(rgb: RGB) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Places of the pixels on edges, from the middle of a reduced copy, their strengths, and the disc they lie in.

    Only what lies in the largest disc counts: it looks the same from every side, a square does not.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    strength = edge_strength(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    radius = max(0, min(size) // 2 - 2)  # a thread of pixels has no disc, and no angle
    rows, columns = np.nonzero(strength > 0.1)
    x, y = columns - (size[0] - 1) / 2, rows - (size[1] - 1) / 2
    inside = x**2 + y**2 < radius**2
    return x[inside], y[inside], strength[rows[inside], columns[inside]].astype(np.float64), radius


def _vary(x: np.ndarray, y: np.ndarray, weights: np.ndarray, radius: int, degrees: float) -> float:
    """How unevenly the edges fall on the two axes of a picture turned counter-clockwise by `degrees`."""
    angle = np.deg2rad(degrees)
    total = 0.0
    size = 2 * radius + 4
    for along in (x * np.sin(angle) + y * np.cos(angle), x * np.cos(angle) - y * np.sin(angle)):
        # shared between the two nearest bins: else an upright picture, whose pixels hit the bins, would seem best
        low = np.floor(along).astype(np.int64)
        share = along - low
        nearest = (low, 1.0 - share), (low + 1, share)
        bins = sum((np.bincount(places + radius + 1, weights * part, size) for places, part in nearest), np.zeros(size))
        bins = np.convolve(bins, (0.25, 0.5, 0.25))
        total += float(np.sum(np.diff(bins) ** 2))  # from bin to bin: where most edges are says nothing
    return total
