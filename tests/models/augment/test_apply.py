"""Augmentations by name, and the geometry of tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.augment.apply import Augmentation, AugmentationError, Darkroom, apply_augmentation, parse_augmentation
from models.augment.geometry import resize
from models.augment.guide import GUIDE
from models.augment.tiles import Tile, enlarge, enlarged_size, lay_tiles

DEGREES = st.integers(0, 359_999).map(lambda thousandths: thousandths / 1000)
TILES = st.integers(1, 999).flatmap(
    lambda side: st.builds(Tile, st.just(side), st.integers(side, 1000), st.integers(0, 9999), st.integers(0, 9999))
)
VIEWS = st.builds(
    Augmentation,
    tile=TILES,
    mirrored=st.booleans(),
    inverted=st.booleans(),
    degrees=DEGREES,
) | st.builds(
    Augmentation, mirrored=st.booleans(), inverted=st.booleans(), degrees=st.sampled_from([0.0, 90.0, 180.0, 270.0])
)


def draw_noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def draw_places(side: int) -> np.ndarray:
    """uint8 (side, side, 3) that tells where it was: red grows to the right, green downwards, smoothly."""
    y, x = np.mgrid[:side, :side]
    return np.stack([20 + 200 * x / side, 20 + 200 * y / side, np.full((side, side), 90.0)], axis=2).astype(np.uint8)


# ---- names -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True)
@given(VIEWS | st.sampled_from(list(GUIDE)).map(lambda name: Augmentation(guide=name)))
def test_a_name_says_everything(augmentation: Augmentation) -> None:
    if augmentation != Augmentation():
        assert parse_augmentation(augmentation.name) == augmentation


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mirrored",
        "Mirror",
        "mirror;mirror",
        "invert;mirror",
        "mirror;",
        "rotate:45",
        "rotate:0",
        "rotate:090",
        "rotate:90.0",
        "rotate:360",
        "rotate:-90",
        "rotate:90;mirror",
        "guide:",
        "guide:unheard-of",
        "guide:tint-red;mirror",
        "mirror;guide:tint-red",
        "tile:10/20",
        "tile:0/20@0,0",
        "tile:30/20@0,0",
        "tile:10/20@-1,0",
        "tile:10/9000@0,0",
        "tile:10/20@0,0;rotate:45.0001",
        "rotate:90;tile:10/20@0,0",
        "tile:１０/20@0,0",
        "mirror\n",
        "x" * 10_000,
    ],
)
def test_any_other_text_is_refused(name: str) -> None:
    with pytest.raises(AugmentationError, match="no augmentation"):
        parse_augmentation(name)


@pytest.mark.parametrize("name", GUIDE)
def test_the_guides_set_goes_by_its_names(name: str) -> None:
    picture = draw_noise(40, 30)
    assert np.array_equal(apply_augmentation(f"guide:{name}", picture), GUIDE[name](picture))


# ---- views of the whole ----------------------------------------------------------------------------------------------


def test_views_of_the_whole() -> None:
    picture = draw_noise(20, 30)
    assert np.array_equal(apply_augmentation("mirror", picture), picture[:, ::-1])
    assert np.array_equal(apply_augmentation("invert", picture), 255 - picture)
    assert np.array_equal(apply_augmentation("rotate:90", picture), np.rot90(picture))
    expected = np.rot90(255 - picture[:, ::-1], 3)
    assert np.array_equal(apply_augmentation("mirror;invert;rotate:270", picture), expected)


# ---- tiles -----------------------------------------------------------------------------------------------------------


def test_tiles_reach_from_edge_to_edge_evenly() -> None:
    tiles = list(lay_tiles(2048, 2048, 2048, 1448, 3))
    assert sorted({tile.left for tile in tiles}) == sorted({tile.top for tile in tiles}) == [0, 300, 600]
    small = list(lay_tiles(2048, 2048, 2048, 1024, 4))
    assert sorted({tile.left for tile in small}) == [0, 341, 683, 1024]
    assert (len(tiles), len(small)) == (9, 16)
    assert [tile.left for tile in lay_tiles(100, 100, 100, 40, 1)] == [30]
    with pytest.raises(ValueError, match="a tile is"):
        list(lay_tiles(100, 100, 100, 101, 2))


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.integers(1, 9), st.integers(1, 500))
def test_every_tile_lies_inside_and_the_outer_ones_at_the_edge(
    width: int, height: int, side: int, count: int, canvas: int
) -> None:
    wide, high = enlarged_size(width, height, canvas)
    assert min(wide, high) == canvas
    side = min(side, canvas)
    tiles = list(lay_tiles(wide, high, canvas, side, count))
    assert len(tiles) == count**2
    assert all(0 <= tile.left <= wide - side and 0 <= tile.top <= high - side for tile in tiles)
    if count > 1:
        assert {tile.left for tile in tiles} >= {0, wide - side}
        assert {tile.top for tile in tiles} >= {0, high - side}


def test_a_tile_of_the_outputs_size_is_cut_and_nothing_else() -> None:
    picture = draw_noise(64, 64)
    enlarged = enlarge(picture, 128)
    assert np.array_equal(enlarged, resize(picture, 128, 128))
    for tile in lay_tiles(128, 128, 128, 64, 4):
        made = Darkroom(picture).make(Augmentation(tile=tile))
        assert np.array_equal(made, enlarged[tile.top : tile.top + 64, tile.left : tile.left + 64])
    large = enlarged[20:110, 10:100]
    assert np.array_equal(apply_augmentation("tile:90/128@10,20", picture), resize(np.ascontiguousarray(large), 64, 64))


def test_a_picture_that_is_large_enough_is_not_enlarged() -> None:
    picture = draw_noise(96, 96)
    cut = picture[8:56, 40:88]
    assert np.array_equal(apply_augmentation("tile:48/96@40,8", picture), resize(np.ascontiguousarray(cut), 96, 96))


def test_quarter_turns_and_views_of_a_tile_move_pixels_and_no_more() -> None:
    picture = draw_noise(64, 64)
    for name in ("tile:90/128@10,20", "tile:64/128@32,30"):
        tile = apply_augmentation(name, picture)
        assert np.array_equal(apply_augmentation(f"{name};rotate:90", picture), np.rot90(tile))
        assert np.array_equal(apply_augmentation(f"{name};mirror;rotate:90", picture), np.rot90(tile[:, ::-1]))
        expected = np.rot90(255 - tile[:, ::-1], 3)
        assert np.array_equal(apply_augmentation(f"{name};mirror;invert;rotate:270", picture), expected)
    slanted = apply_augmentation("tile:64/128@32,30;rotate:45", picture)
    assert np.array_equal(apply_augmentation("tile:64/128@32,30;rotate:225", picture), np.rot90(slanted, 2))


@pytest.mark.parametrize("degrees", [30.0, 45.0, 135.0, 250.5])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_slanted_tile_shows_what_is_around_it_in_the_picture(degrees: float, mirrored: bool) -> None:
    """Every pixel, corners included, comes from where the turn says: read off a picture that tells places."""
    side, left, top = 128, 70, 60
    picture = draw_places(256)
    name = Augmentation(tile=Tile(side, 256, left, top), mirrored=mirrored, degrees=degrees).name
    shown = apply_augmentation(name, picture).astype(float)
    assert shown.shape == (256, 256, 3)
    small = resize(shown.astype(np.uint8), side, side).astype(float)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    angle = np.deg2rad(degrees)
    across = x * np.cos(angle) - y * np.sin(angle)  # a result's pixel, turned back clockwise, y down
    down = x * np.sin(angle) + y * np.cos(angle)
    if mirrored:
        across = -across
    expected_red = 20 + 200 * (left + side / 2 - 0.5 + across) / 256
    expected_green = 20 + 200 * (top + side / 2 - 0.5 + down) / 256
    assert np.abs(small[:, :, 0] - expected_red).max() < 2
    assert np.abs(small[:, :, 1] - expected_green).max() < 2
    assert np.abs(small[:, :, 2] - 90).max() <= 1


def test_a_tile_fits_turned_when_its_corners_have_something_to_show() -> None:
    assert Tile(1448, 2048, 300, 300).fits_turned(45, 2048, 2048)
    assert not Tile(1448, 2048, 0, 300).fits_turned(45, 2048, 2048)
    assert not Tile(1460, 2048, 294, 294).fits_turned(45, 2048, 2048)
    assert Tile(1024, 2048, 341, 683).fits_turned(135, 2048, 2048)
    assert not Tile(1024, 2048, 1, 341).fits_turned(45, 2048, 2048)  # off the edge, but its corners are not
    assert Tile(1024, 2048, 0, 0).fits_turned(90, 2048, 2048)


def test_what_the_picture_does_not_have_is_refused() -> None:
    picture = draw_noise(32, 32)
    for name, said in (
        ("tile:20/64@50,0", "not inside"),
        ("tile:40/64@0,0;rotate:45", "cannot be turned"),
    ):
        with pytest.raises(AugmentationError, match=said):
            apply_augmentation(name, picture)
    with pytest.raises(AugmentationError, match="too long"):
        apply_augmentation("tile:20/8192@0,0", draw_noise(8, 800))


def test_what_is_made_does_not_depend_on_what_was_made_before() -> None:
    picture = draw_noise(48, 48)
    names = [
        "tile:60/96@18,18;rotate:45",
        "tile:60/96@18,18",
        "tile:48/80@0,0",
        "mirror",
        "tile:60/96@18,18;rotate:315",
    ]
    room = Darkroom(picture)
    first = [room.make(parse_augmentation(name)) for name in names]
    again = [room.make(parse_augmentation(name)) for name in reversed(names)][::-1]
    alone = [apply_augmentation(name, picture) for name in names]
    for made in zip(first, again, alone, strict=True):
        assert np.array_equal(made[0], made[1])
        assert np.array_equal(made[0], made[2])
