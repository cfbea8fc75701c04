"""Augmentations by name. A name says everything: the same name and picture give the same pixels, now or years later.

A name is a list of steps, separated by semicolons, done from left to right:

* `guide:tint-red`: one of the guide's set; alone.
* `tile:1448/2048@300,600`: a square of 1448 pixels whose top left corner is at (300, 600) of the picture, when the
  picture's shorter side is 2048. First, if there is one; the result has the size that the dataset has.
* `mirror`, `invert`: left and right exchanged; the negative.
* `rotate:90`: counter-clockwise, by 90, 180 or 270 degrees; of a tile by any angle, about its middle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from models.augment.colours import RGB, invert
from models.augment.geometry import mirror, resize, turn_quarters
from models.augment.guide import GUIDE
from models.augment.tiles import MOST_CANVAS, Tile, cut_turned_tile, enlarge

_TILE = re.compile(r"tile:(\d{1,5})/(\d{1,5})@(\d{1,6}),(\d{1,6})", re.ASCII)
_ROTATE = re.compile(r"rotate:(\d{1,3}(?:\.\d{1,3})?)", re.ASCII)


class AugmentationError(ValueError):
    """A name that is no augmentation, or one that the picture cannot have."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to a picture: one of the guide's set, or a view: a tile or the whole, mirrored, inverted, turned.

    degrees: counter-clockwise, 0 up to 360; without a tile, a multiple of 90.
    """

    guide: str = ""
    tile: Tile | None = None
    mirrored: bool = False
    inverted: bool = False
    degrees: float = 0.0

    @property
    def name(self) -> str:
        """The name that `parse_augmentation` reads; empty for the picture as it is."""
        return ";".join(self._steps())

    def _steps(self) -> Iterator[str]:
        if self.guide:
            yield f"guide:{self.guide}"
        if self.tile is not None:
            yield f"tile:{self.tile.side}/{self.tile.canvas}@{self.tile.left},{self.tile.top}"
        if self.mirrored:
            yield "mirror"
        if self.inverted:
            yield "invert"
        if self.degrees:
            yield f"rotate:{self.degrees:g}"


def parse_augmentation(name: str) -> Augmentation:
    """The augmentation of a name. Raises AugmentationError for every other text: each augmentation has one name."""
    found = Augmentation()
    for step in name.split(";"):
        if step.startswith("guide:"):
            found = replace(found, guide=step.removeprefix("guide:"))
        elif match := _TILE.fullmatch(step):
            side, canvas, left, top = map(int, match.groups())
            found = replace(found, tile=Tile(side, canvas, left, top))
        elif match := _ROTATE.fullmatch(step):
            found = replace(found, degrees=float(match[1]))
        elif step == "mirror":
            found = replace(found, mirrored=True)
        elif step == "invert":
            found = replace(found, inverted=True)
    if found.name != name or not name or not _is_sound(found):
        raise AugmentationError(f"{name[:80]!r} is no augmentation that this version of Kaobako knows")
    return found


def _is_sound(found: Augmentation) -> bool:
    if found.guide:
        return found == Augmentation(guide=found.guide) and found.guide in GUIDE
    if found.tile is not None and not 1 <= found.tile.side <= found.tile.canvas <= MOST_CANVAS:
        return False
    return found.degrees < 360 and (found.tile is not None or found.degrees % 90 == 0)


def made_size(augmentation: Augmentation, width: int, height: int) -> tuple[int, int]:
    """(width, height) of what is made of a picture of width x height."""
    if augmentation.tile is not None:
        return min(width, height), min(width, height)
    return (height, width) if augmentation.degrees % 180 == 90 else (width, height)


class Darkroom:
    """One picture, and whatever is made of it. What several augmentations need is made once.

    A result depends on the picture and the augmentation alone, not on what was made before.
    """

    def __init__(self, rgb: RGB) -> None:
        """rgb: uint8 (H, W, 3)."""
        self.rgb = rgb
        self._enlarged: tuple[int, RGB] | None = None
        self._tile: Tile | None = None
        self._squares: dict[float, RGB] = {}  # of that tile, by slant

    def make(self, augmentation: Augmentation) -> RGB:
        """uint8 (H, W, 3) of the picture's size; squares of its shorter side for tiles; width and height exchanged for
        a picture turned by 90 or 270 degrees. Raises AugmentationError for a tile that the picture does not have.
        """
        if augmentation.guide:
            return GUIDE[augmentation.guide](self.rgb)
        if augmentation.tile is None:
            return turn_quarters(_show(self.rgb, augmentation), round(augmentation.degrees))
        return self._make_tile(augmentation, augmentation.tile)

    def _make_tile(self, augmentation: Augmentation, tile: Tile) -> RGB:
        # mirrored first, then turned: the same as turned the other way round, then mirrored
        degrees = -augmentation.degrees if augmentation.mirrored else augmentation.degrees
        quarters, slant = divmod(degrees % 360, 90)
        square = turn_quarters(self._cut(tile, slant), 90 * round(quarters))
        return _show(square, augmentation)

    def _cut(self, tile: Tile, slant: float) -> RGB:
        """The tile turned by less than 90 degrees, at its final size: quarter turns after it move pixels, no more."""
        if self._tile != tile:
            self._tile, self._squares = tile, {}
        if slant not in self._squares:
            side = min(self.rgb.shape[:2])
            try:
                square = cut_turned_tile(self._enlarge(tile.canvas), tile, slant)
            except ValueError as error:
                raise AugmentationError(str(error)) from error
            self._squares[slant] = resize(square, side, side)
        return self._squares[slant]

    def _enlarge(self, canvas: int) -> RGB:
        if self._enlarged is None or self._enlarged[0] != canvas:
            self._enlarged = canvas, enlarge(self.rgb, canvas)
        return self._enlarged[1]


def _show(rgb: RGB, augmentation: Augmentation) -> RGB:
    """Mirrored and inverted, as asked."""
    shown = mirror(rgb) if augmentation.mirrored else rgb
    return invert(shown) if augmentation.inverted else shown


def apply_augmentation(name: str, rgb: RGB) -> RGB:
    """What the augmentation of this name makes of a picture, uint8 (H, W, 3). Raises AugmentationError.

    For readers of versions that list derived pictures without keeping them: same pixels as when they are kept.
    """
    return Darkroom(rgb).make(parse_augmentation(name))
