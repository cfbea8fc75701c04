"""A canvas of RGB pixels at twice the size of the picture, and regions of it to shade.

Everything is painted with hard edges or OpenCV's antialiased ones at double size and averaged down at the end.
Cel shading is regions: the part of a shape that is not covered by the same shape moved aside.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from datasets.booru.curves import Points, ribbon_of

Rgb = tuple[int, int, int]
Pixels = MatLike  # uint8 everywhere in this package
SUPERSAMPLE = 2
_SHIFT = 4


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.round(np.clip(points, -30000.0, 30000.0) * (1 << _SHIFT)).astype(np.int32)


@dataclass(frozen=True)
class Region:
    """Coverage of a box of the canvas from (x, y): uint8, 0 or 255; anything between when `soft`."""

    x: int
    y: int
    cover: Pixels
    soft: bool = False

    @property
    def empty(self) -> bool:
        return self.cover.size == 0

    def drawn(self, points: Points) -> Pixels:
        """Coverage of a closed shape (canvas pixels) in this region's box."""
        cover = np.zeros(self.cover.shape, np.uint8)
        if cover.size:
            cv2.fillPoly(cover, [_fixed(points - (self.x, self.y))], 255, cv2.LINE_8, _SHIFT)
        return cover

    def trimmed(self) -> "Region":
        """The same region in the smallest box that holds it: what is painted costs by the size of the box."""
        if self.empty:
            return self
        x, y, width, height = cv2.boundingRect(self.cover)
        return replace(self, x=self.x + x, y=self.y + y, cover=self.cover[y : y + height, x : x + width])

    def inside(self, points: Points, margin: float = 1.0) -> "Region":
        """The part of the region that lies in the closed shape, in the box of that shape plus `margin` pixels.

        What is to be blurred afterwards needs a margin of about three sigmas.
        """
        height, width = self.cover.shape
        x0, y0 = np.clip(np.floor(points.min(axis=0)).astype(int) - (self.x, self.y) - int(margin), 0, (width, height))
        x1, y1 = np.clip(
            np.ceil(points.max(axis=0)).astype(int) - (self.x, self.y) + int(margin) + 1, 0, (width, height)
        )
        part = replace(self, x=self.x + int(x0), y=self.y + int(y0), cover=self.cover[y0:y1, x0:x1])
        return part if part.empty else replace(part, cover=cv2.bitwise_and(part.cover, part.drawn(points)))

    def outside(self, points: Points) -> "Region":
        """The part of the region that lies out of the closed shape."""
        return self if self.empty else replace(self, cover=cv2.subtract(self.cover, self.drawn(points)))

    def joined(self, other: "Region") -> "Region":
        """The union with a region whose box lies within this one's."""
        if self.empty or other.empty:
            return self
        cover = self.cover.copy()
        height, width = other.cover.shape
        y, x = other.y - self.y, other.x - self.x
        part = cover[y : y + height, x : x + width]
        np.copyto(part, cv2.max(np.ascontiguousarray(part), other.cover))
        return replace(self, cover=cover)

    def blurred(self, sigma: float, keep_within: "Region | None" = None) -> "Region":
        """The region with soft edges (standard deviation in canvas pixels), cut off outside `keep_within`.

        Wide blurs are computed on a reduced copy: nobody sees the difference, and the cost stops growing.
        """
        if self.empty or sigma < 0.5:
            return self
        height, width = self.cover.shape
        factor = max(1, int(sigma / 2.0))
        size = (max(1, width // factor), max(1, height // factor))
        small = cv2.resize(self.cover, size, interpolation=cv2.INTER_AREA) if factor > 1 else self.cover
        small = cv2.GaussianBlur(small, (0, 0), sigma / factor)
        cover = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR) if factor > 1 else small
        if keep_within is not None:
            y, x = self.y - keep_within.y, self.x - keep_within.x
            cover = cv2.min(cover, np.ascontiguousarray(keep_within.cover[y : y + height, x : x + width]))
        return replace(self, cover=cover, soft=True)


class Canvas:
    """RGB pixels of shape (2 * height, 2 * width, 3); all positions are in pixels of this double size."""

    def __init__(self, background: Pixels) -> None:
        height, width = background.shape[:2]
        self.pixels: Pixels = cv2.resize(
            background, (width * SUPERSAMPLE, height * SUPERSAMPLE), interpolation=cv2.INTER_NEAREST
        )

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def finished(self) -> Pixels:
        """The picture, averaged down: uint8 RGB of shape (height, width, 3)."""
        size = (self.width // SUPERSAMPLE, self.height // SUPERSAMPLE)
        return cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA)

    def region(self, *shapes: Points, margin: int = 2) -> Region:
        """The union of closed shapes, in the smallest box of the canvas that holds it."""
        every = np.vstack(shapes)
        x0, y0 = np.maximum(np.floor(every.min(axis=0)).astype(int) - margin, 0)
        x1, y1 = np.minimum(np.ceil(every.max(axis=0)).astype(int) + margin, (self.width, self.height))
        cover = np.zeros((max(0, y1 - y0), max(0, x1 - x0)), np.uint8)
        region = Region(int(x0), int(y0), cover)
        for shape in shapes if cover.size else ():
            cv2.fillPoly(cover, [_fixed(shape - (x0, y0))], 255, cv2.LINE_8, _SHIFT)
        return region

    def fill(self, shape: Points, colour: Rgb) -> None:
        """Fill a closed shape."""
        cv2.fillPoly(self.pixels, [_fixed(shape)], colour, cv2.LINE_AA, _SHIFT)

    def outline(self, path: Points, width: float, colour: Rgb, closed: bool = False) -> None:
        """A line of constant `width` (canvas pixels) along `path`."""
        cv2.polylines(self.pixels, [_fixed(path)], closed, colour, max(1, round(width)), cv2.LINE_AA, _SHIFT)

    def stroke(
        self, path: Points, width: float, colour: Rgb, taper: tuple[float, ...] = (0.15, 0.9, 1.0, 0.15)
    ) -> None:
        """A pen stroke: `width` (canvas pixels) times the factors of `taper`, spread along `path`."""
        self.fill(ribbon_of(path, np.maximum(np.array(taper) * width, 0.6)), colour)

    def _box(self, region: Region) -> Pixels:
        height, width = region.cover.shape
        return self.pixels[region.y : region.y + height, region.x : region.x + width]

    def _blend(self, region: Region, painted: Pixels, alpha: float) -> None:
        box = self._box(region)
        if alpha >= 1.0 and not region.soft:
            np.copyto(box, cv2.copyTo(painted, region.cover, np.ascontiguousarray(box)))
            return
        weight = cv2.convertScaleAbs(region.cover, alpha=alpha)
        weight = cv2.merge([weight, weight, weight])
        over, under = cv2.multiply(painted, weight, scale=1 / 255), cv2.bitwise_not(weight)
        np.copyto(box, cv2.add(over, cv2.multiply(box, under, scale=1 / 255)))

    def paint(self, region: Region, colour: Rgb, alpha: float = 1.0) -> None:
        """Lay `colour` over the region."""
        region = region.trimmed()
        if not region.empty:
            height, width = region.cover.shape
            solid = np.empty((height, width, 3), np.uint8)
            cv2.rectangle(solid, (0, 0), (width, height), colour, -1)
            self._blend(region, solid, alpha)

    def shade(self, region: Region, colour: Rgb, alpha: float = 1.0) -> None:
        """Multiply the region by `colour` / 255: a shadow that lets the drawing below show."""
        region = region.trimmed()
        if not region.empty:
            levels = np.arange(256)[:, None] * np.array(colour)[None] / 255
            self._blend(region, cv2.LUT(self._box(region), np.round(levels).astype(np.uint8)[:, None, :]), alpha)

    def gradient(self, region: Region, start: Rgb, end: Rgb, top: float, bottom: float, alpha: float = 1.0) -> None:
        """Paint the region from `start` at the row `top` to `end` at the row `bottom`."""
        region = region.trimmed()
        if region.empty:
            return
        height, width = region.cover.shape
        place = np.clip((np.arange(height) + region.y - top) / (bottom - top + 1e-9), 0.0, 1.0)[:, None]
        rows = np.round(np.array(start) * (1 - place) + np.array(end) * place).astype(np.uint8)
        column = np.ascontiguousarray(rows[:, None, :])
        self._blend(region, cv2.resize(column, (width, height), interpolation=cv2.INTER_NEAREST), alpha)
