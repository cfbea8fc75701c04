"""Curves in the plane: what the drawn people are made of.

All functions take and return float64 arrays of shape (n, 2), x to the right and y down, in any unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
PointLike = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """Where a head stands in the picture: face units to pixels.

    The origin of face units is the point between the eyes, one unit is half the width of the face.
    `roll` is in radians, clockwise on the screen. With `hanging`, what lies below the chin turns less
    and less with the head, as hair does under gravity.
    """

    x: float
    y: float
    unit: float
    roll: float = 0.0

    def __call__(self, points: object, hanging: bool = False) -> Points:
        p = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        angle = np.full(len(p), self.roll)
        if hanging:
            angle = self.roll * np.clip(1.0 - (p[:, 1] - 0.8) / 2.6, 0.15, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        x = self.x + self.unit * (cos * p[:, 0] - sin * p[:, 1])
        y = self.y + self.unit * (sin * p[:, 0] + cos * p[:, 1])
        return np.stack([x, y], axis=1)

    def at(self, point: PointLike, roll: float = 0.0) -> "Frame":
        """A frame of the same unit whose origin is `point` of this one."""
        x, y = self([point])[0]
        return Frame(float(x), float(y), self.unit, roll)


def spline(points: object, closed: bool = False, steps: int = 8) -> Points:
    """Uniform Catmull-Rom spline (Catmull and Rom, 1974) through `points`, `steps` segments between two of them."""
    p = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    ends = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    ring = np.vstack([ends[0], p, ends[1]])
    a, b, c, d = ring[:-3, None], ring[1:-2, None], ring[2:-1, None], ring[3:, None]
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.vstack([curve, p[-1:]])


def arc(start: PointLike, control: PointLike, end: PointLike, steps: int = 12) -> Points:
    """Quadratic Bézier curve from `start` to `end`, both included."""
    t = (np.arange(steps + 1) / steps)[:, None]
    a, b, c = (np.asarray(q, dtype=np.float64) for q in (start, control, end))
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c


def ellipse(centre: PointLike, half_width: float, half_height: float, steps: int = 40, angle: float = 0.0) -> Points:
    """Closed ellipse, turned by `angle` radians."""
    t = np.arange(steps) * (2 * np.pi / steps)
    x, y = half_width * np.cos(t), half_height * np.sin(t)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y], axis=1)


def strand(root: PointLike, tip: PointLike, width: float, bow: float = 0.0, belly: float = 0.35) -> Points:
    """A closed lock of hair from `root` to a sharp `tip`.

    `width` is that at the root, `bow` the sideways bend of its middle (to the right of the way from root to tip when
    positive), `belly` how far along the way it is still that wide (0 to 1).
    """
    a, b = np.asarray(root, dtype=np.float64), np.asarray(tip, dtype=np.float64)
    way = b - a
    normal = np.array([-way[1], way[0]]) / (np.hypot(*way) + 1e-9)
    middle = a + belly * way + normal * bow
    left = arc(a + normal * width / 2, middle + normal * width / 2, b)
    right = arc(b, middle - normal * width / 2, a - normal * width / 2)
    return np.vstack([left, right[1:]])


def ribbon_of(path: Points, widths: object) -> Points:
    """Closed outline of a line of changing width along `path`.

    `widths` are full widths at equal steps along the line; they are interpolated to its points.
    """
    w = np.asarray(widths, dtype=np.float64)
    along = np.interp(np.arange(len(path)) * ((len(w) - 1) / (len(path) - 1)), np.arange(len(w)), w)[:, None]
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.hypot(normal[:, 0], normal[:, 1])[:, None] + 1e-9
    return np.vstack([path + normal * along / 2, (path - normal * along / 2)[::-1]])


def moved(points: Points, dx: float, dy: float) -> Points:
    """A point or points, moved."""
    return points + np.array([dx, dy])


def waved(points: Points, amount: float) -> Points:
    """Hair units: swing what hangs below the eyes from side to side by `amount`, more the lower it hangs."""
    if amount == 0.0:
        return points
    low = np.clip(points[:, 1] + 0.1, 0.0, 1.2)
    return points + np.stack([amount * low * np.sin(3.4 * points[:, 1] + 0.6), np.zeros(len(points))], axis=1)


def mirrored(points: Points, sign: float) -> Points:
    """The points with x multiplied by `sign` (-1 for the other half of a face)."""
    return points * np.array([sign, 1.0])
