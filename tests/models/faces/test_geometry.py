import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.faces.geometry import FACE, PORTRAIT, Box, CropRecipe, Padding, cut, expand_box

sizes = st.integers(1, 400)
recipes = st.builds(
    CropRecipe,
    up=st.floats(0, 3),
    down=st.floats(0, 3),
    side=st.floats(0, 3),
    small_picture=st.sampled_from(["shrink", "reflect"]),
)


@st.composite
def faces_in_pictures(draw: st.DrawFn) -> tuple[Box, tuple[int, int]]:
    width, height = draw(sizes), draw(sizes)
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return Box(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))), (width, height)


@given(faces_in_pictures(), recipes)
def test_crop_is_square_and_inside_the_picture(case: tuple[Box, tuple[int, int]], recipe: CropRecipe) -> None:
    face, (width, height) = case
    box, padding = expand_box(face, (width, height), recipe)
    assert box.x >= 0 and box.y >= 0 and box.w >= 1 and box.h >= 1
    assert box.x + box.w <= width and box.y + box.h <= height
    assert min(padding.left, padding.top, padding.right, padding.bottom) >= 0
    assert box.w + padding.left + padding.right == box.h + padding.top + padding.bottom
    if recipe.small_picture == "shrink":
        assert padding == Padding()
    else:  # mirrored only where the picture is too small, never to keep the face in the middle
        side = box.w + padding.left + padding.right
        assert (padding.left + padding.right == 0) or side > width
        assert (padding.top + padding.bottom == 0) or side > height


@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.sampled_from([FACE, PORTRAIT]),
)
def test_away_from_the_edges_only_the_face_counts(w: int, h: int, dx: int, dy: int, recipe: CropRecipe) -> None:
    at = (400, 400)
    here, _ = expand_box(Box(*at, w, h), (2000, 2000), recipe)
    there, _ = expand_box(Box(at[0] + dx, at[1] + dy, w, h), (2000, 2000), recipe)
    assert there == Box(here.x + dx, here.y + dy, here.w, here.h)


@given(faces_in_pictures(), recipes)
def test_shifting_keeps_the_size_and_the_face(case: tuple[Box, tuple[int, int]], recipe: CropRecipe) -> None:
    face, (width, height) = case
    box, _ = expand_box(face, (width, height), recipe)
    free, _ = expand_box(Box(face.x + 5000, face.y + 5000, face.w, face.h), (20000, 20000), recipe)
    if free.w <= min(width, height):  # it fits, so an edge may only move it
        assert (box.w, box.h) == (free.w, free.h)
        # The face is still whole in the crop (up to the rounding of the square's place).
        assert box.x <= face.x + 1 and box.y <= face.y + 1
        assert box.x + box.w >= face.x + face.w - 1 and box.y + box.h >= face.y + face.h - 1


def test_known_crop_in_the_open() -> None:
    recipe = CropRecipe(up=1.0, down=0.5, side=0.5)
    box, padding = expand_box(Box(100, 200, 40, 40), (1000, 1000), recipe)
    # 2.5 heights tall, so 100 pixels; from one height above the face to half a height below it.
    assert (box, padding) == (Box(70, 160, 100, 100), Padding())


def test_edges_shift_first_then_shrink_or_mirror() -> None:
    recipe = CropRecipe(up=0.5, down=0.5, side=0.5)
    assert expand_box(Box(0, 0, 40, 40), (300, 300), recipe)[0] == Box(0, 0, 80, 80)
    assert expand_box(Box(260, 260, 40, 40), (300, 300), recipe)[0] == Box(220, 220, 80, 80)
    assert expand_box(Box(10, 5, 40, 40), (300, 60), recipe)[0] == Box(0, 0, 60, 60)
    mirrored = CropRecipe(up=0.5, down=0.5, side=0.5, small_picture="reflect")
    box, padding = expand_box(Box(10, 10, 40, 40), (300, 60), mirrored)
    assert box == Box(0, 0, 80, 60) and padding == Padding(top=10, bottom=10)


def test_cut_mirrors_the_missing_part() -> None:
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    piece = cut(picture, Box(1, 0, 4, 4), Padding(top=2, bottom=1))
    assert piece.shape == (7, 4, 3)
    np.testing.assert_array_equal(piece[2:6], picture[:, 1:5])
    np.testing.assert_array_equal(piece[1], piece[2])
    np.testing.assert_array_equal(piece[0], piece[3])
    np.testing.assert_array_equal(piece[6], piece[5])
    assert cut(picture, Box(0, 0, 1, 1), Padding(3, 3, 3, 3)).shape == (7, 7, 3)


def test_cut_is_a_copy_and_refuses_to_leave_the_picture() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    cut(picture, Box(0, 0, 4, 4))[:] = 9
    assert picture.max() == 0
    with pytest.raises(ValueError, match="does not lie within"):
        cut(picture, Box(1, 0, 4, 4))


def test_impossible_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        CropRecipe(up=-0.1, down=0, side=0)
    with pytest.raises(ValueError, match="shrink"):
        CropRecipe(up=0, down=0, side=0, small_picture="white")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        expand_box(Box(0, 0, 0, 4), (10, 10), FACE)
