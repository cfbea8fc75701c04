from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.gan.pictures import grid_shape, resize, tile, to_input, to_uint8, write_png


def test_every_byte_survives_the_way_in_and_out() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 3, 16, 16)
    images = to_input(pixels, "cpu")
    assert (images.min().item(), images.max().item()) == (-1, 1)
    assert np.array_equal(to_uint8(images), pixels.permute(0, 2, 3, 1).numpy())


def test_values_out_of_range_are_clamped_not_wrapped() -> None:
    images = torch.tensor([-1.5, 1.5]).reshape(1, 1, 1, 2)
    assert to_uint8(images).ravel().tolist() == [0, 255]


def test_tile_places_pictures_row_by_row() -> None:
    pictures = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    grid = tile(pictures, columns=2)
    assert grid.shape == (4, 6, 3)
    assert [int(grid[y, x, 0]) for y, x in ((0, 0), (0, 5), (3, 2), (3, 5))] == [10, 20, 30, 0]
    with pytest.raises(ValueError, match="at least one"):
        tile([], 2)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, 16, 16)
    assert small.min() >= 127
    assert small.max() <= 128


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_keeps_the_number_of_axes(channels: int) -> None:
    assert resize(np.zeros((10, 40, channels), np.uint8), 20, 20).shape == (20, 20, channels)


def test_grid_shape_fits_a_screen() -> None:
    for resolution in (16, 64, 128, 256, 512):
        columns, rows = grid_shape(resolution)
        assert columns >= 3
        assert rows >= 2
        assert columns <= 12
        assert rows <= 8


def test_png_is_exact_and_leaves_nothing_else(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "a" / "p.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "p.png")), picture)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["p.png"]
