"""Tiles: overlapping squares cut out of an enlarged picture, and which of them can be turned where they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.augment.colours import RGB
from models.augment.geometry import cut_turned_square, resize

MOST_CANVAS = 8192  # pixels of the shorter side of an enlarged picture
MOST_PIXELS = 100_000_000  # of an enlarged picture: a strip of a thousand screens would become a wall
_SLACK = 0.5  # pixels that a turned square may reach over the edge: no pixel's centre is out there


@dataclass(frozen=True)
class Tile:
    """A square of an enlarged picture.

    side, left, top: in pixels of the picture when its shorter side is `canvas` pixels long.
    """

    side: int
    canvas: int
    left: int
    top: int

    def fits_turned(self, degrees: float, width: int, height: int) -> bool:
        """Whether the square, turned about its middle, lies inside an enlarged picture of width x height."""
        angle = math.radians(degrees)
        reach = self.side / 2 * (abs(math.cos(angle)) + abs(math.sin(angle))) - _SLACK
        x, y = self.left + self.side / 2, self.top + self.side / 2
        return reach <= min(x, y, width - x, height - y)


def enlarged_size(width: int, height: int, canvas: int) -> tuple[int, int]:
    """(width, height) of a picture whose shorter side is brought to `canvas` pixels."""
    factor = canvas / min(width, height)
    return max(canvas, round(width * factor)), max(canvas, round(height * factor))


def enlarge(rgb: RGB, canvas: int) -> RGB:
    """The picture with its shorter side at `canvas` pixels, by Lanczos. Raises ValueError for over MOST_PIXELS."""
    width, height = enlarged_size(rgb.shape[1], rgb.shape[0], canvas)
    if width * height > MOST_PIXELS:
        raise ValueError(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} is too long to be enlarged to {width}x{height}")
    return resize(rgb, width, height)


def lay_tiles(width: int, height: int, canvas: int, side: int, count: int) -> Iterator[Tile]:
    """count x count tiles, row by row, spread evenly from edge to edge of an enlarged picture of width x height.

    A count of 1 is the middle. Raises ValueError for a tile larger than the picture.
    """
    if not 1 <= side <= canvas or count < 1:
        raise ValueError(f"a tile is 1 to {canvas} pixels wide and at least one per side, got {side} and {count}")
    for top in _spread(height - side, count):
        for left in _spread(width - side, count):
            yield Tile(side, canvas, left, top)


def _spread(room: int, count: int) -> list[int]:
    if count == 1:
        return [room // 2]
    return [round(k * room / (count - 1)) for k in range(count)]


def cut_tile(enlarged: RGB, tile: Tile) -> RGB:
    """The tile's own pixels: uint8 (side, side, 3). Raises ValueError where the picture has none."""
    height, width = enlarged.shape[:2]
    if tile.left < 0 or tile.top < 0 or tile.left + tile.side > width or tile.top + tile.side > height:
        raise ValueError(f"{tile} is not inside a picture of {width}x{height}")
    return np.ascontiguousarray(enlarged[tile.top : tile.top + tile.side, tile.left : tile.left + tile.side])


def cut_turned_tile(enlarged: RGB, tile: Tile, degrees: float) -> RGB:
    """The tile turned counter-clockwise about its middle, its corners filled with what is there in the picture.

    uint8 (side, side, 3). Raises ValueError where corners would be empty.
    """
    if degrees == 0:
        return cut_tile(enlarged, tile)
    height, width = enlarged.shape[:2]
    if not tile.fits_turned(degrees, width, height):
        raise ValueError(f"{tile} cannot be turned by {degrees:g} degrees in a picture of {width}x{height}")
    middle = tile.left + tile.side / 2, tile.top + tile.side / 2
    return cut_turned_square(enlarged, *middle, tile.side, degrees)
