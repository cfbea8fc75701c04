"""From a face to the square that is cut out around it.

The square is placed relative to the face's box alone, so the same drawing gives the same crop wherever in the picture
the face lies. Only where the square would leave the picture is it moved, and only when the picture is too small for it
is it made smaller or the picture mirrored at its edge.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from models.faces.detector import RGB, Face, check_rgb


@dataclass(frozen=True)
class CropRecipe:
    """How far a crop reaches beyond the face's box (brows to chin), in box heights above and below and box widths
    beside it. The crop is the smallest square that holds the box grown so, with the same centre as the grown box."""

    up: float
    down: float
    side: float  # on each side
    small_picture: Literal["shrink", "reflect"] = "shrink"  # when the square is larger than the picture

    def __post_init__(self) -> None:
        if min(self.up, self.down, self.side) < 0:
            raise ValueError("a crop cannot reach less far than the face: up, down and side must be 0 or more")
        if self.small_picture not in ("shrink", "reflect"):
            raise ValueError(f"small_picture must be 'shrink' or 'reflect', not {self.small_picture!r}")


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
    """Pixels to mirror beyond each edge of the cut rectangle."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


def expand_box(face: Face | Box, image_size: tuple[int, int], recipe: CropRecipe) -> tuple[Box, Padding]:
    """The square to cut out around a face.

    Args:
        face: the face's box in pixels.
        image_size: (width, height) of the picture in pixels.
        recipe: how far to reach.

    Returns:
        The box to cut, always within the picture, and how much to mirror around it afterwards. The box grown by the
        padding is square: away from the edges it depends on the face's box alone; near an edge it is shifted into the
        picture; where the picture is narrower or lower than the square, ``shrink`` takes the largest square that fits,
        and ``reflect`` keeps the size and mirrors the missing part (the share on each side is as the square lay).
    """
    width, height = image_size
    if width < 1 or height < 1 or face.w < 1 or face.h < 1:
        raise ValueError(f"a face box ({face.w} x {face.h}) and a picture ({width} x {height}) must not be empty")
    side = max(1, round(max(face.w * (1 + 2 * recipe.side), face.h * (1 + recipe.up + recipe.down))))
    if recipe.small_picture == "shrink":
        side = min(side, width, height)
    left, right = _span(2 * face.x + face.w, side, width)
    # Twice the centre of the grown box in y, relative to the face's top so that a shift of the face shifts it exactly.
    centre = 2 * face.y + round(face.h * (1 + recipe.down - recipe.up))
    top, bottom = _span(centre, side, height)
    box = Box(max(0, left), max(0, top), min(width, right) - max(0, left), min(height, bottom) - max(0, top))
    return box, Padding(max(0, -left), max(0, -top), max(0, right - width), max(0, bottom - height))


def _span(twice_centre: int, side: int, length: int) -> tuple[int, int]:
    """Start and end of ``side`` pixels about a centre, shifted into 0..length, or shifted to cover it if longer."""
    start = (twice_centre - side) // 2
    low, high = min(0, length - side), max(0, length - side)
    start = min(max(start, low), high)
    return start, start + side


def cut(rgb: RGB, box: Box, padding: Padding = Padding()) -> RGB:
    """Cut a box out of an (H, W, 3) uint8 picture and mirror its surroundings outwards by ``padding`` pixels.

    Returns a new array of (h + top + bottom, w + left + right, 3). Raises ValueError when the box is empty or leaves
    the picture.
    """
    check_rgb(rgb)
    height, width = rgb.shape[:2]
    if box.x < 0 or box.y < 0 or box.w < 1 or box.h < 1 or box.x + box.w > width or box.y + box.h > height:
        raise ValueError(f"{box} does not lie within a picture of {width} x {height} pixels")
    piece = rgb[box.y : box.y + box.h, box.x : box.x + box.w]
    if padding == Padding():
        return piece.copy()
    # BORDER_REFLECT repeats by itself where more is asked for than the piece has.
    padded = cv2.copyMakeBorder(
        piece, padding.top, padding.bottom, padding.left, padding.right, borderType=cv2.BORDER_REFLECT
    )
    return np.asarray(padded, dtype=np.uint8)
