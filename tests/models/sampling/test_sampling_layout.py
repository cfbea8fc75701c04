import numpy as np
import pytest

from models.sampling.layout import CHECK, cell_size, draw_ground, fit_cell, lay_grid
from models.sampling.settings import Ground


def test_cells_keep_the_shape_of_the_pictures() -> None:
    assert cell_size(32, 24, None) == (32, 24)
    assert cell_size(32, 24, 64) == (64, 48)
    assert cell_size(24, 32, 16) == (12, 16)
    assert cell_size(512, 4, 16) == (16, 1)


def test_the_checkerboard() -> None:
    ground = draw_ground(Ground.CHECKER, 3 * CHECK, 2 * CHECK)[:, :, 0]
    squares = ground.reshape(3, CHECK, 2, CHECK)
    assert (squares == squares[:, :1, :, :1]).all()
    assert squares[:, 0, :, 0].tolist() == [[255, 204], [204, 255], [255, 204]]
    assert (draw_ground(Ground.WHITE, 2, 2) == 255).all()
    assert (draw_ground(Ground.BLACK, 2, 2) == 0).all()


def test_transparency_shows_the_ground_in_its_share() -> None:
    picture = np.zeros((1, 3, 4), np.uint8)
    picture[0, :, 0] = 200
    picture[0, :, 3] = (255, 51, 0)  # a fifth of 255
    laid = fit_cell(picture, 1, 3, Ground.WHITE)
    assert laid[0].tolist() == [[200, 0, 0], [244, 204, 204], [255, 255, 255]]
    assert fit_cell(picture, 1, 3, Ground.BLACK)[0].tolist() == [[200, 0, 0], [40, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("side", [2, 7, 32])
def test_the_colour_of_invisible_pixels_never_shows(side: int) -> None:
    seen = np.zeros((8, 8, 4), np.uint8)
    seen[:, 4:] = (10, 200, 30, 255)
    hidden = seen.copy()
    hidden[:, :4, :3] = (255, 0, 255)
    assert np.array_equal(fit_cell(seen, side, side, Ground.WHITE), fit_cell(hidden, side, side, Ground.WHITE))


def test_opaque_pictures_and_grey_ones_are_only_scaled() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    assert np.array_equal(fit_cell(grey, 4, 4, Ground.CHECKER), grey)
    assert fit_cell(grey, 8, 6, Ground.CHECKER).shape == (8, 6, 1)


def test_a_grid_takes_cells_one_by_one() -> None:
    cells = (np.full((2, 3, 3), k, np.uint8) for k in range(1, 6))
    grid = lay_grid(cells, 5, 4)
    assert grid.shape == (4, 12, 3)
    assert grid[::2, ::3, 0].tolist() == [[1, 2, 3, 4], [5, 0, 0, 0]]
    with pytest.raises(ValueError, match="at least one column"):
        lay_grid([], 0, 4)
