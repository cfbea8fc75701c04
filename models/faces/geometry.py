"""From a face to the square that is cut out around it.

The square is placed relative to the face's box alone, so the same drawing gives the same crop wherever in the picture
the face lies. Only where the square would leave the picture is it moved, and only when the picture is too small for it
is it made smaller, or filled up beyond the picture's edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from models.faces.detector import RGB, Face, Landmark

EdgeRule = Literal["shrink", "reflect", "pad"]
MIN_ROLL = 1.0  # degrees; the eyes' places are no surer than this, and turning costs a resampling
_REACH = 4  # pixels on each side that Lanczos interpolation looks at


@dataclass(frozen=True)
class CropRecipe:
    """How far a crop reaches beyond the face's box (brows to chin), in box heights above and below and box widths
    beside it. The crop is the smallest square that holds the box grown so, with the same centre as the grown box."""

    up: float
    down: float
    side: float  # on each side
    edge: EdgeRule = "shrink"  # when the square is larger than the picture
    colour: tuple[int, int, int] = (255, 255, 255)  # sRGB, of what `pad` adds

    def __post_init__(self) -> None:
        if min(self.up, self.down, self.side) < 0:
            raise ValueError("a crop cannot reach less far than the face: up, down and side must be 0 or more")
        if self.edge not in ("shrink", "reflect", "pad"):
            raise ValueError(f"edge must be 'shrink', 'reflect' or 'pad', not {self.edge!r}")


FACE = CropRecipe(up=0.75, down=0.35, side=0.5)
"""Twice the box: hairline to neck. Close to the classic anime-face crops (LBP box with a margin)."""

PORTRAIT = CropRecipe(up=1.2, down=0.8, side=0.9)
"""Three times the box: the whole head with hair, ears or a hat, and the neckline."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels from the top left of a picture."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True)
class Padding:
    """Pixels to add beyond each edge of the cut rectangle."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


@dataclass(frozen=True)
class Square:
    """What is cut out: a square of source pixels, turned about its centre by `roll`. It may reach out of the picture.

    roll: degrees by which the crop is turned counter-clockwise when it is cut out; 0 for an upright crop.
    """

    x: int
    y: int
    side: int
    roll: float = 0.0


def place_square(face: Face | Box, image_size: tuple[int, int], recipe: CropRecipe, roll: float = 0.0) -> Square:
    """The square to cut out around a face.

    Args:
        face: the face's box in pixels.
        image_size: (width, height) of the picture in pixels.
        recipe: how far to reach, and what to do where the picture is too small.
        roll: degrees by which the face is to be turned counter-clockwise (measure_roll).

    Away from the edges it depends on the face's box (and roll) alone; near an edge it is shifted into the picture. Only
    where the picture is narrower or lower than the square (turned: than the rectangle around it) does `shrink` take
    the largest one that fits, and do `reflect` and `pad` let it reach out, as evenly as it lay.
    """
    width, height = image_size
    if width < 1 or height < 1 or face.w < 1 or face.h < 1:
        raise ValueError(f"a face box ({face.w} x {face.h}) and a picture ({width} x {height}) must not be empty")
    side = max(1, round(max(face.w * (1 + 2 * recipe.side), face.h * (1 + recipe.up + recipe.down))))
    cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    spread = abs(cos) + abs(sin)  # sides of the upright rectangle around a turned square of side 1
    if recipe.edge == "shrink":
        side = min(side, max(1, int(min(width, height) / spread)))
    # Twice the centre of the grown box from the face's top left corner, so that a shift of the face shifts it exactly.
    down = round(face.h * (1 + recipe.down - recipe.up)) - face.h
    x = _shift_in(2 * face.x + face.w - round(down * sin), side, width, spread)
    y = _shift_in(2 * face.y + face.h + (down if roll == 0 else round(down * cos)), side, height, spread)
    return Square(x, y, side, roll)


def _shift_in(twice_centre: int, side: int, length: int, spread: float) -> int:
    """Where ``side`` pixels about a centre start once they are shifted into 0..length, or, if longer, to cover it.

    spread: how much longer than ``side`` the span is that must lie within, as much on either end.
    """
    start = (twice_centre - side) // 2
    beyond = math.ceil(side * (spread - 1) / 2)
    low, high = min(beyond, length - side - beyond), max(beyond, length - side - beyond)
    return min(max(start, low), high)


def place_whole_square(image_size: tuple[int, int], at: Literal["centre", "top"]) -> Square:
    """The largest square of a picture of (width, height) pixels: its middle, or, of a high picture, its top."""
    width, height = image_size
    side = min(width, height)
    return Square((width - side) // 2, 0 if at == "top" else (height - side) // 2, side)


def measure_roll(landmarks: Iterable[Landmark]) -> float | None:
    """By how many degrees a face must be turned counter-clockwise for its eyes to be level, -90 to 90.

    0 where it is less than MIN_ROLL; None without two eyes. Rounded to thousandths, so that it is told exactly.
    """
    points = {point.name: point for point in landmarks}
    if "left_eye" not in points or "right_eye" not in points:
        return None
    one, other = sorted((points["left_eye"], points["right_eye"]), key=lambda point: (point.x, point.y))
    if (one.x, one.y) == (other.x, other.y):
        return None
    roll = float(np.float32(round(math.degrees(math.atan2(other.y - one.y, other.x - one.x)), 3)))
    return roll if abs(roll) >= MIN_ROLL else 0.0


def cut_square(
    read: Callable[[Box], RGB], square: Square, image_size: tuple[int, int], recipe: CropRecipe = FACE
) -> RGB:
    """The pixels of a square, (side, side, 3).

    Args:
        read: gives the pixels of a box that lies within the picture. It is called once, for no more than is needed.
        square: of `place_square` or `place_whole_square`.
        image_size: (width, height) of the picture in pixels.
        recipe: says what is drawn beyond the picture's edge: its reflection, or a colour (`shrink` reaches beyond it by
            the pixels that interpolation needs, and reflects).

    An upright square is copied pixel by pixel. A turned one is resampled once, at the same scale, by Lanczos
    interpolation over 8 x 8 pixels.
    """
    if square.roll == 0:
        box, padding = _clip(square.x, square.y, square.side, square.side, image_size)
        return fill_up(read(box), padding, recipe)
    turn = math.radians(square.roll)
    cos, sin = math.cos(turn), math.sin(turn)
    around = _surround(square)
    left, top = square.x - (around - square.side) // 2, square.y - (around - square.side) // 2
    box, padding = _clip(left, top, around, around, image_size)
    surroundings = fill_up(read(box), padding, recipe)
    middle, centre = (around - 1) / 2, (square.side - 1) / 2
    # from a pixel of the crop to its place in the surroundings: turned clockwise about the common centre
    matrix = np.array(
        [
            [cos, -sin, middle - cos * centre + sin * centre],
            [sin, cos, middle - sin * centre - cos * centre],
        ]
    )
    turned = cv2.warpAffine(
        surroundings,
        matrix,
        (square.side, square.side),
        flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(turned, dtype=np.uint8)


def lowest_row(square: Square) -> int:
    """The first row below everything that `cut_square` reads of a picture for this square."""
    if square.roll == 0:
        return square.y + square.side
    around = _surround(square)
    return square.y - (around - square.side) // 2 + around


def _surround(square: Square) -> int:
    """Side of the upright square about a turned one, with what interpolation needs."""
    turn = math.radians(square.roll)
    around = math.ceil(square.side * (abs(math.cos(turn)) + abs(math.sin(turn)))) + 2 * _REACH
    return around + (around - square.side) % 2  # an even difference keeps its centre on the pixel grid


def _clip(x: int, y: int, w: int, h: int, image_size: tuple[int, int]) -> tuple[Box, Padding]:
    """The part of a rectangle that lies within the picture, at least one pixel of it, and what lies beyond."""
    width, height = image_size
    left, top = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    right, bottom = max(min(x + w, width), left + 1), max(min(y + h, height), top + 1)
    return Box(left, top, right - left, bottom - top), Padding(left - x, top - y, x + w - right, y + h - bottom)


def fill_up(piece: RGB, padding: Padding, recipe: CropRecipe) -> RGB:
    """A piece of a picture with its surroundings added: reflected, or in the recipe's colour.

    Returns (h + top + bottom, w + left + right, 3).
    """
    if padding == Padding():
        return piece
    # BORDER_REFLECT repeats by itself where more is asked for than the piece has.
    kind = cv2.BORDER_CONSTANT if recipe.edge == "pad" else cv2.BORDER_REFLECT
    edges = (padding.top, padding.bottom, padding.left, padding.right)
    return np.asarray(cv2.copyMakeBorder(piece, *edges, borderType=kind, value=recipe.colour), dtype=np.uint8)
