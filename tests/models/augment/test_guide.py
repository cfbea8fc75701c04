"""The guide's eighteen variants: what each is for, shown on pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from datasets.booru.scene import draw_picture
from models.augment.colours import (
    change_brightness,
    colorize,
    invert,
    shift_to_blue,
    squeeze_levels,
    stretch_levels,
)
from models.augment.edges import blur_adaptively, edge_strength, sharpen_adaptively
from models.augment.geometry import level, mirror, resize, stretch, turn_quarters
from models.augment.guide import GUIDE, TINT_SHARE, TINTS
from models.augment.skew import deskew, find_skew


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """uint8 (160, 160, 3): a drawn face; nothing in it is symmetric."""
    picture = draw_picture(np.random.default_rng(14), 1)
    box = picture.faces[0]
    x, y, side = round(box.x), round(box.y), round(box.side)
    return resize(np.ascontiguousarray(picture.pixels[y : y + side, x : x + side]), 160, 160)


def ramp() -> np.ndarray:
    """uint8 (4, 256, 3): every tone of grey."""
    return np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (4, 256, 3)).copy()


def draw_page(seed: int, side: int = 480) -> np.ndarray:
    """Lines of dark words on a light page: uint8 (side, side, 3)."""
    rng = np.random.default_rng(seed)
    page = np.full((side, side, 3), 240, np.uint8)
    for top in range(20, side - 20, 18):
        left = 20
        while left < side - 20:
            right = left + int(rng.integers(4, 26))
            cv2.rectangle(page, (left, top), (min(right, side - 20), top + 8), rng.integers(0, 120, 3).tolist(), -1)
            left = right + 6
    return page


# ---- all of them -----------------------------------------------------------------------------------------------------


def test_there_are_eighteen() -> None:
    assert len(GUIDE) == 18


@pytest.mark.parametrize("name", GUIDE)
def test_a_variant_keeps_the_size_leaves_its_input_alone_and_is_the_same_each_time(name: str, face: np.ndarray) -> None:
    for picture in (face, face[:90], face[:, 40:], np.zeros((20, 16, 3), np.uint8)):
        before = picture.copy()
        first, second = GUIDE[name](picture), GUIDE[name](picture)
        assert (first.dtype, first.shape) == (np.uint8, picture.shape)
        assert np.array_equal(first, second)
        assert np.array_equal(picture, before)
        assert not np.shares_memory(first, picture)


@pytest.mark.parametrize("name", sorted(GUIDE.keys() - {"deskew"}))
def test_a_variant_is_another_picture_and_still_the_same_face(name: str, face: np.ndarray) -> None:
    made = GUIDE[name](face)
    assert not np.array_equal(made, face)
    assert np.corrcoef(made.ravel(), face.ravel())[0, 1] > 0.6


def test_no_two_variants_are_equal(face: np.ndarray) -> None:
    assert len({GUIDE[name](face).tobytes() for name in GUIDE}) == 18


# ---- colours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINTS)
def test_a_tint_moves_every_pixel_the_same_part_of_the_way_to_its_colour(name: str, face: np.ndarray) -> None:
    made = GUIDE[f"tint-{name}"](face).astype(float)
    expected = face + (np.array(TINTS[name]) - face.astype(float)) * TINT_SHARE
    assert np.abs(made - expected).max() <= 0.51


def test_all_paint_is_the_colour_and_none_is_the_picture(face: np.ndarray) -> None:
    assert np.array_equal(colorize(face, (10, 20, 30), 0.0), face)
    assert (colorize(face, (10, 20, 30), 1.0) == (10, 20, 30)).all()


def test_blue_shift_lowers_red_most_and_the_more_the_greater_the_factor() -> None:
    grey = np.full((8, 8, 3), 180, np.uint8)
    dusk, night = shift_to_blue(grey, 1.1)[0, 0].tolist(), shift_to_blue(grey, 1.5)[0, 0].tolist()
    assert dusk[0] < dusk[1] < dusk[2] == 180
    assert dusk == [round(180 / 1.21), round(180 / 1.1), 180]
    assert night[0] < dusk[0]
    assert night[1] < dusk[1]


def test_blue_shift_takes_red_light_for_darkness() -> None:
    red, blue = (shift_to_blue(np.array([[colour]], np.uint8), 1.1).sum() for colour in ((200, 0, 0), (0, 0, 200)))
    assert red < blue


def test_brightness_is_a_share_of_the_range_and_contrast_turns_about_middle_grey() -> None:
    tones = ramp()
    assert np.array_equal(change_brightness(tones, 0.0), tones)
    brighter = change_brightness(tones, 10.0)[0, :, 0].astype(int)
    assert set(brighter[:229] - np.arange(229)) <= {25, 26}
    steeper = change_brightness(tones, 0.0, 50.0)[0, :, 0].astype(int)
    assert steeper[127] in (126, 127)
    assert steeper[128] in (128, 129)
    assert steeper[140] - steeper[116] == pytest.approx(24 * np.tan(np.pi / 4 * 1.5), abs=1.1)
    assert (steeper[0], steeper[255]) == (0, 255)


def test_brighter_is_brighter_and_darker_darker(face: np.ndarray) -> None:
    assert GUIDE["brighter"](face).mean() > face.mean() > GUIDE["darker"](face).mean()
    tones = ramp()[:, 60:200]
    for name in ("brighter", "darker"):
        assert GUIDE[f"{name}-contrast"](tones).std() > 1.1 * GUIDE[name](tones).std()


def test_levels_stretch_what_squeezing_made_narrow() -> None:
    tones = ramp()
    narrow = squeeze_levels(tones, 0.05, 0.95)
    assert (narrow.min(), narrow.max()) == (13, 242)
    assert np.abs(stretch_levels(narrow, 0.05, 0.95).astype(int) - tones).max() <= 1
    wide = stretch_levels(tones, 0.05, 0.95)[0, :, 0]
    assert (wide[:13] == 0).all()
    assert (wide[243:] == 255).all()


def test_gamma_lifts_the_middle_and_leaves_the_ends() -> None:
    lifted = stretch_levels(ramp(), 0.0, 1.0, gamma=2.0)[0, :, 0]
    assert (lifted[0], lifted[255]) == (0, 255)
    assert lifted[64] == round(255 * (64 / 255) ** 0.5)
    sunk = squeeze_levels(ramp(), 0.0, 1.0, gamma=2.0)[0, :, 0]
    assert (sunk[0], sunk[128], sunk[255]) == (0, round(255 * (128 / 255) ** 2), 255)


def test_inverting_twice_is_nothing(face: np.ndarray) -> None:
    assert np.array_equal(invert(invert(face)), face)
    assert np.array_equal(invert(face).astype(int) + face, np.full(face.shape, 255))


@pytest.mark.parametrize(
    "refused",
    [
        lambda face: colorize(face, (0, 0, 0), 1.5),
        lambda face: shift_to_blue(face, 0.5),
        lambda face: shift_to_blue(face, float("nan")),
        lambda face: change_brightness(face, 200.0),
        lambda face: change_brightness(face, 0.0, 100.0),
        lambda face: stretch_levels(face, 0.5, 0.5),
        lambda face: squeeze_levels(face, -0.1, 1.0),
        lambda face: stretch_levels(face, 0.0, 1.0, gamma=0.0),
        lambda face: blur_adaptively(face, 0, 1.0),
        lambda face: sharpen_adaptively(face, 2, 0.0),
        lambda face: stretch(face, 0.9, 1.0),
        lambda face: level(face, 60.0),
        lambda face: turn_quarters(face, 45),
    ],
)
def test_settings_without_sense_are_refused(refused: object, face: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be|need|by"):
        refused(face)  # type: ignore[operator]


# ---- edges -----------------------------------------------------------------------------------------------------------


def step_and_grain() -> np.ndarray:
    """uint8 (64, 128, 3): a faint grain on the left and right, and a hard edge between them."""
    grain = np.random.default_rng(0).integers(-4, 5, (64, 128, 1))
    ground = np.where(np.arange(128) < 64, 60, 190)[None, :, None]
    return np.clip(ground + grain, 0, 255).astype(np.uint8).repeat(3, axis=2)


def test_an_edge_is_strong_and_a_surface_is_not() -> None:
    strength = edge_strength(step_and_grain())
    assert strength[:, 63:65].min() == 1.0
    assert strength[:, :56].max() < 0.4
    assert (strength.dtype, strength.shape) == (np.float32, (64, 128))


def test_adaptive_blur_smooths_surfaces_and_keeps_edges() -> None:
    before = step_and_grain().astype(float)
    after = blur_adaptively(step_and_grain(), 3, 2.0).astype(float)
    plain = cv2.GaussianBlur(before, (7, 7), 2.0)
    assert after[:, :56].std() < 0.5 * before[:, :56].std()
    steepness = [np.abs(np.diff(picture[:, 62:66].mean(axis=0), axis=0)).max() for picture in (before, after, plain)]
    assert steepness[1] > 0.95 * steepness[0]
    assert steepness[2] < 0.3 * steepness[0]


def test_adaptive_sharpen_overshoots_at_edges_and_leaves_surfaces() -> None:
    before = step_and_grain().astype(float)
    after = sharpen_adaptively(step_and_grain(), 4, 2.0).astype(float)
    rise = [picture[:, 64].mean() - picture[:, 63].mean() for picture in (before, after)]
    assert rise[1] > 1.3 * rise[0]
    assert np.abs(after[:, :56] - before[:, :56]).max() <= 3


# ---- geometry --------------------------------------------------------------------------------------------------------


def test_a_stretch_moves_things_away_from_the_middle_on_one_axis_alone() -> None:
    picture = np.zeros((101, 101, 3), np.uint8)
    picture[30, 20] = picture[70, 80] = 255
    y, x = (np.flatnonzero(stretch(picture, 1.25, 1.0).max(axis=2).max(axis=axis) > 100) for axis in (1, 0))
    assert y.tolist() == [30, 70]
    assert np.abs(x[[0, -1]] - (50 + 1.25 * np.array([-30, 30]))).max() <= 1


def test_mirror_and_turns(face: np.ndarray) -> None:
    assert np.array_equal(mirror(mirror(face)), face)
    assert np.array_equal(mirror(face)[:, 0], face[:, -1])
    up = turn_quarters(face, 90)
    assert np.array_equal(up[-1], face[:, 0])  # counter-clockwise: the left side goes to the bottom
    assert np.array_equal(turn_quarters(turn_quarters(up, 180), 90), face)


def test_levelling_is_counter_clockwise_and_leaves_no_corner_empty() -> None:
    picture = np.full((200, 300, 3), 200, np.uint8)
    cv2.line(picture, (0, 100), (299, 100), (0, 0, 0), 3)
    turned = level(picture, 8.0)
    assert turned.shape == picture.shape
    dark = [int(np.argmin(turned[:, x, 0])) for x in (50, 250)]
    assert dark[0] - dark[1] == pytest.approx(200 * np.tan(np.deg2rad(8)), abs=2)  # the right end goes up
    corners = turned[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 200).all()
    assert np.array_equal(level(picture, 0.0), picture)


def test_levelling_cuts_the_largest_rectangle_of_the_pictures_shape() -> None:
    """Seen in the picture, each corner of the result is inside, and one pair of them at the edge."""
    height, width, degrees = 200, 300, 10.0
    y, x = np.mgrid[:height, :width]
    places = np.stack([x * 255 // width, y * 255 // height, np.zeros_like(x)], axis=2).astype(np.uint8)
    turned = level(places, degrees).astype(float)
    corners = turned[[0, 0, -1, -1], [0, -1, 0, -1]] / 255
    assert corners[:, :2].min() > -0.01
    assert min(corners[:, 0].min(), 1 - corners[:, 0].max(), corners[:, 1].min(), 1 - corners[:, 1].max()) < 0.02


# ---- skew ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", [-8.0, -5.0, -1.5, 0.0, 2.25, 5.0, 8.5])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_planted_skew_is_found_and_undone(planted: float, seed: int) -> None:
    crooked = level(draw_page(seed), planted)
    assert find_skew(crooked) == pytest.approx(planted, abs=0.5)
    assert abs(find_skew(deskew(crooked))) <= 0.5


def test_skew_is_found_in_long_and_small_pictures() -> None:
    page = draw_page(3, 960)
    for part in (page[:480], page[:, 300:700]):
        assert find_skew(level(np.ascontiguousarray(part), 5.0)) == pytest.approx(5.0, abs=0.5)


@pytest.mark.parametrize("shape", [(1, 40), (2, 40), (40, 1), (40, 2), (3, 500), (5, 4000), (4000, 5)])
def test_a_thread_of_pixels_hangs_straight(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert find_skew(noise) == 0.0
    assert np.array_equal(deskew(noise), noise)


def test_a_straight_page_and_pictures_without_lines_stay_as_they_are(face: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    for picture in (draw_page(4), face, noise, np.full((50, 60, 3), 128, np.uint8), np.zeros((1, 1, 3), np.uint8)):
        assert find_skew(picture) == 0.0
        assert np.array_equal(deskew(picture), picture)
