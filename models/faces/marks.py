"""What is remarkable about a face among the faces of its picture: cut by the border, inside another, not alone."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from models.faces.detector import Face, share_inside
from models.faces.geometry import Box

BORDER = 0.02  # of a face's longer side: a box this near to the border was found in a reduced copy where it touched it
INSIDE = 0.75  # of a face's area: from here on it lies inside another


class Marks(NamedTuple):
    """What a recipe may want to leave out."""

    cut: bool  # the box touches the border of the picture, so part of the face is probably missing
    inside: bool  # the box lies inside that of a larger face: a picture on a shirt, an eye taken for a face


def mark_faces(faces: Sequence[Face], image_size: tuple[int, int]) -> list[Marks]:
    """Mark all faces of one picture.

    Args:
        faces: the faces of one picture, boxes in its pixels.
        image_size: (width, height) of the picture in pixels.

    Returns:
        The marks of each face, in the order of ``faces``. A box is cut when it comes as near to a border as 2 % of its
        longer side; it is inside when a box of larger area holds at least three quarters of it.
    """
    width, height = image_size
    if width < 1 or height < 1:
        raise ValueError(f"a picture must not be empty: {width} x {height}")
    return [Marks(_is_cut(face, width, height), _is_inside(face, faces)) for face in faces]


def count_faces_in(box: Box, faces: Iterable[Face]) -> int:
    """How many faces have their centre in the box. Its left and top edges are part of it, right and bottom are not."""
    return sum(
        2 * box.x <= 2 * face.x + face.w < 2 * (box.x + box.w)
        and 2 * box.y <= 2 * face.y + face.h < 2 * (box.y + box.h)
        for face in faces
    )


def _is_cut(face: Face, width: int, height: int) -> bool:
    nearest = min(face.x, face.y, width - face.x - face.w, height - face.y - face.h)
    return nearest <= BORDER * max(face.w, face.h)


def _is_inside(face: Face, faces: Iterable[Face]) -> bool:
    area = face.w * face.h
    return any(other.w * other.h > area and share_inside(face, other) >= INSIDE for other in faces)
