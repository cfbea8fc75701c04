import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.faces.detector import Landmark
from models.faces.geometry import (
    FACE,
    MIN_ROLL,
    PORTRAIT,
    Box,
    CropRecipe,
    Padding,
    Square,
    cut_square,
    fill_up,
    lowest_row,
    measure_roll,
    place_square,
    place_whole_square,
)

sizes = st.integers(1, 400)
recipes = st.builds(
    CropRecipe,
    up=st.floats(0, 3),
    down=st.floats(0, 3),
    side=st.floats(0, 3),
    edge=st.sampled_from(["shrink", "reflect", "pad"]),
)
rolls = st.one_of(st.just(0.0), st.floats(-90, 90))


@st.composite
def faces_in_pictures(draw: st.DrawFn) -> tuple[Box, tuple[int, int]]:
    width, height = draw(sizes), draw(sizes)
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return Box(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))), (width, height)


def reader(picture: np.ndarray) -> Callable[[Box], np.ndarray]:
    """What cut_square reads from: refuses what is not in the picture."""

    def read(box: Box) -> np.ndarray:
        height, width = picture.shape[:2]
        assert box.x >= 0 and box.y >= 0 and box.w >= 1 and box.h >= 1
        assert box.x + box.w <= width and box.y + box.h <= height
        return picture[box.y : box.y + box.h, box.x : box.x + box.w].copy()

    return read


def cut(picture: np.ndarray, square: Square, recipe: CropRecipe = FACE) -> np.ndarray:
    return cut_square(reader(picture), square, picture.shape[1::-1], recipe)


# ---- where the square lies -------------------------------------------------------------------------------------------


@given(faces_in_pictures(), recipes)
def test_the_square_leaves_the_picture_only_where_the_picture_is_too_small(
    case: tuple[Box, tuple[int, int]], recipe: CropRecipe
) -> None:
    face, (width, height) = case
    square = place_square(face, (width, height), recipe)
    assert square.side >= 1
    for start, length in ((square.x, width), (square.y, height)):
        if square.side <= length:
            assert 0 <= start <= length - square.side
        else:
            assert recipe.edge != "shrink"
            assert length - square.side <= start <= 0


@given(faces_in_pictures(), recipes, rolls)
def test_whatever_is_asked_for_is_cut(case: tuple[Box, tuple[int, int]], recipe: CropRecipe, roll: float) -> None:
    face, (width, height) = case
    square = place_square(face, (width, height), recipe, roll)
    if square.side < 900:
        pixels = cut(np.zeros((height, width, 3), np.uint8), square, recipe)
        assert (pixels.shape, pixels.dtype) == ((square.side, square.side, 3), np.uint8)


@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.sampled_from([FACE, PORTRAIT]),
    rolls,
)
def test_away_from_the_edges_only_the_face_counts(
    w: int, h: int, dx: int, dy: int, recipe: CropRecipe, roll: float
) -> None:
    here = place_square(Box(500, 500, w, h), (2200, 2200), recipe, roll)
    there = place_square(Box(500 + dx, 500 + dy, w, h), (2200, 2200), recipe, roll)
    assert there == Square(here.x + dx, here.y + dy, here.side, roll)


@given(faces_in_pictures(), recipes)
def test_shifting_keeps_the_size_and_the_face(case: tuple[Box, tuple[int, int]], recipe: CropRecipe) -> None:
    face, (width, height) = case
    square = place_square(face, (width, height), recipe)
    free = place_square(Box(face.x + 5000, face.y + 5000, face.w, face.h), (20000, 20000), recipe)
    if free.side <= min(width, height):  # it fits, so an edge may only move it
        assert square.side == free.side
        # The face is still whole in the crop (up to the rounding of the square's place).
        assert square.x <= face.x + 1 and square.y <= face.y + 1
        assert square.x + square.side >= face.x + face.w - 1
        assert square.y + square.side >= face.y + face.h - 1


@given(faces_in_pictures(), recipes, st.floats(-45, 45))
def test_a_turned_square_stays_in_a_picture_that_can_hold_it(
    case: tuple[Box, tuple[int, int]], recipe: CropRecipe, roll: float
) -> None:
    face, (width, height) = case
    square = place_square(face, (width, height), recipe, roll)
    turn = math.radians(roll)
    reach = square.side * (abs(math.cos(turn)) + abs(math.sin(turn))) / 2
    for start, length in ((square.x, width), (square.y, height)):
        centre = start + square.side / 2
        if 2 * reach + 2 <= length:
            assert centre - reach >= -0.01 and centre + reach <= length + 0.01
        elif recipe.edge == "shrink":
            assert square.side == 1 or (centre - reach >= -1.01 and centre + reach <= length + 1.01)


def test_known_crop_in_the_open() -> None:
    recipe = CropRecipe(up=1.0, down=0.5, side=0.5)
    # 2.5 heights tall, so 100 pixels; from one height above the face to half a height below it.
    assert place_square(Box(100, 200, 40, 40), (1000, 1000), recipe) == Square(70, 160, 100)


def test_edges_shift_first_then_shrink_or_reach_out() -> None:
    recipe = CropRecipe(up=0.5, down=0.5, side=0.5)
    assert place_square(Box(0, 0, 40, 40), (300, 300), recipe) == Square(0, 0, 80)
    assert place_square(Box(260, 260, 40, 40), (300, 300), recipe) == Square(220, 220, 80)
    assert place_square(Box(10, 5, 40, 40), (300, 60), recipe) == Square(0, 0, 60)
    for edge in ("reflect", "pad"):
        reaching = CropRecipe(up=0.5, down=0.5, side=0.5, edge=edge)  # type: ignore[arg-type]
        assert place_square(Box(10, 10, 40, 40), (300, 60), reaching) == Square(0, -10, 80)


def test_the_reach_below_and_above_turns_with_the_face() -> None:
    recipe = CropRecipe(up=1.5, down=0.5, side=1.0)
    upright = place_square(Box(500, 500, 40, 40), (1000, 1000), recipe)
    assert (upright.x, upright.y) == (460, 440)  # a half height higher than the face's centre
    right_down = place_square(Box(500, 500, 40, 40), (1000, 1000), recipe, 90.0)
    assert (right_down.x, right_down.y) == (480, 460)  # its top points to the right


@pytest.mark.parametrize(
    ("size", "at", "expected"),
    [
        ((300, 200), "centre", Square(50, 0, 200)),
        ((300, 200), "top", Square(50, 0, 200)),
        ((201, 300), "centre", Square(0, 49, 201)),
        ((201, 300), "top", Square(0, 0, 201)),
        ((7, 7), "top", Square(0, 0, 7)),
    ],
)
def test_the_largest_square_of_a_picture(size: tuple[int, int], at: str, expected: Square) -> None:
    assert place_whole_square(size, at) == expected  # type: ignore[arg-type]


# ---- roll ------------------------------------------------------------------------------------------------------------


def eyes(roll: float, centre: tuple[float, float] = (300.0, 300.0), apart: float = 100.0) -> tuple[Landmark, ...]:
    """Eyes of a face turned clockwise by so many degrees; its left eye is on our right."""
    dx, dy = apart / 2 * math.cos(math.radians(roll)), apart / 2 * math.sin(math.radians(roll))
    x, y = centre
    return (Landmark("left_eye", x + dx, y + dy), Landmark("right_eye", x - dx, y - dy), Landmark("nose", x, y + 9))


@pytest.mark.parametrize("roll", [-80.0, -30.0, -1.5, 1.5, 12.345, 44.0, 89.0])
def test_roll_is_by_how_much_the_eyes_are_out_of_level(roll: float) -> None:
    assert measure_roll(eyes(roll)) == pytest.approx(roll, abs=1e-3)
    assert measure_roll(reversed(eyes(roll))) == measure_roll(eyes(roll))
    assert np.float32(measure_roll(eyes(roll))) == measure_roll(eyes(roll))  # as the manifest keeps it


def test_level_eyes_are_left_alone() -> None:
    assert measure_roll(eyes(0.0)) == measure_roll(eyes(MIN_ROLL - 0.01)) == 0.0
    assert measure_roll(eyes(MIN_ROLL + 0.01)) != 0.0


def test_without_two_eyes_there_is_no_roll() -> None:
    left, right, nose = eyes(10.0)
    assert measure_roll(()) is None
    assert measure_roll((left, nose)) is None
    assert measure_roll((left, Landmark("right_eye", left.x, left.y))) is None
    assert measure_roll((left, right)) is not None


@pytest.mark.parametrize("roll", [-37.0, -10.0, 10.0, 25.0, 60.0])
def test_a_turned_crop_has_level_eyes(roll: float) -> None:
    picture = np.full((640, 600, 3), 200, np.uint8)
    marks = eyes(roll, (290.0, 330.0))
    for mark, colour in zip(marks, ((255, 0, 0), (0, 0, 255)), strict=False):
        cv2.circle(picture, (round(mark.x * 16), round(mark.y * 16)), 12 * 16, colour, -1, cv2.LINE_AA, 4)
    found = measure_roll(marks)
    assert found is not None
    square = place_square(Box(215, 260, 150, 150), (600, 640), FACE, found)
    turned = cut(picture, square).astype(float)
    places = []
    for channel in (0, 2):
        weight = np.clip(turned[:, :, channel] - turned[:, :, 1] - 60, 0, None)
        rows, columns = np.mgrid[: square.side, : square.side]
        places.append(((weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()))
    (left_x, left_y), (right_x, right_y) = places
    assert left_y == pytest.approx(right_y, abs=0.3)
    assert left_x - right_x == pytest.approx(100, abs=0.3)


# ---- pixels ----------------------------------------------------------------------------------------------------------


def test_an_upright_square_is_copied_and_its_surroundings_reflected_or_padded() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    reaching = CropRecipe(0, 0, 0, edge="reflect")
    pixels = cut(picture, Square(1, -1, 5), reaching)
    np.testing.assert_array_equal(pixels[1:], picture[:, 1:6])
    np.testing.assert_array_equal(pixels[0], pixels[1])
    far = cut(picture, Square(-4, -5, 14), reaching)  # reflected again and again, never wrapped
    np.testing.assert_array_equal(far[5:9, 4:10], picture)
    np.testing.assert_array_equal(far[5:9, 0:4], picture[:, 3::-1])
    padded = cut(picture, Square(1, -1, 5), CropRecipe(0, 0, 0, edge="pad", colour=(1, 2, 3)))
    assert (padded[0] == (1, 2, 3)).all()
    np.testing.assert_array_equal(padded[1:], picture[:, 1:6])


def test_fill_up_adds_nothing_where_nothing_is_missing() -> None:
    piece = np.zeros((3, 4, 3), np.uint8)
    assert fill_up(piece, Padding(), FACE) is piece
    assert fill_up(piece, Padding(1, 2, 3, 4), FACE).shape == (9, 8, 3)


def test_a_quarter_turn_moves_pixels_and_changes_none() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    turned = cut(picture, Square(10, 10, 20, 90.0))
    np.testing.assert_array_equal(turned, np.rot90(picture[10:30, 10:30]))  # counter-clockwise


@pytest.mark.parametrize("roll", [-33.3, 7.0, 45.0])
@pytest.mark.parametrize("side", [60, 61])
def test_turning_is_true_to_a_picture_that_is_known_everywhere(roll: float, side: int) -> None:
    def waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([127 + 100 * np.sin(x / 5) * np.cos(y / 7 + k) for k in range(3)], axis=-1)

    y, x = np.mgrid[:200, :200].astype(float)
    square = Square(70, 65, side, roll)
    turned = cut(np.rint(waves(x, y)).astype(np.uint8), square)
    v, u = np.mgrid[:side, :side] - (side - 1) / 2
    turn = math.radians(roll)
    cx, cy = 70 + (side - 1) / 2, 65 + (side - 1) / 2
    expected = waves(
        cx + u * math.cos(turn) - v * math.sin(turn),
        cy + u * math.sin(turn) + v * math.cos(turn),
    )
    apart = np.abs(turned - expected)
    assert apart.max() < 3
    assert apart.mean() < 0.6


def test_a_turned_crop_shows_no_other_edge_of_the_picture() -> None:
    picture = np.full((100, 100, 3), 255, np.uint8)
    picture[:, 80:] = 0  # the far side, which wrapping would bring in
    square = Square(-10, 20, 60, 20.0)
    assert cut(picture, square, CropRecipe(0, 0, 0, edge="reflect")).min() == 255
    padded = cut(picture, square, CropRecipe(0, 0, 0, edge="pad", colour=(0, 128, 0)))
    assert (padded[:, 0] == (0, 128, 0)).all(axis=1).any()
    assert (padded[30, 40:] == 255).all()


def test_no_more_is_read_than_is_needed_and_at_once() -> None:
    asked: list[Box] = []

    def read(box: Box) -> np.ndarray:
        asked.append(box)
        return np.zeros((box.h, box.w, 3), np.uint8)

    cut_square(read, Square(100, 100, 50), (1000, 1000))
    cut_square(read, Square(100, 100, 50, 45.0), (1000, 1000))
    assert asked[0] == Box(100, 100, 50, 50)
    assert len(asked) == 2
    assert asked[1].w <= 50 * math.sqrt(2) + 11
    assert [box.y + box.h for box in asked] == [
        lowest_row(Square(100, 100, 50)),
        lowest_row(Square(100, 100, 50, 45.0)),
    ]


def test_impossible_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        CropRecipe(up=-0.1, down=0, side=0)
    with pytest.raises(ValueError, match="shrink"):
        CropRecipe(up=0, down=0, side=0, edge="white")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        place_square(Box(0, 0, 0, 4), (10, 10), FACE)
