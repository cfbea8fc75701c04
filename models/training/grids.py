"""Grids that show how a training goes: the reals once, and the same fakes again and again."""

from pathlib import Path

import numpy as np
from torch import nn

from models.gan.latents import draw_latents, generate, picture_batch
from models.gan.pictures import grid_shape, tile, write_png
from models.training.config import TrainingConfig
from models.training.run import RunFolder


class Grids:
    """Cell k of every grid of fakes is seed k, by the averaged weights.

    Attributes:
        labels: of the cells, float32 (cells, labels), None where the training has none: those of the first reals.
        newest: the grid that was written last.
    """

    def __init__(self, config: TrainingConfig, folder: RunFolder) -> None:
        self._folder = folder
        self._z_dim = config.algorithm.z_dim
        self._batch = picture_batch(config.height, config.width)
        self._columns, rows = grid_shape(config.resolution)
        self.cells = self._columns * rows
        self.labels: np.ndarray | None = None
        self.newest: Path | None = None

    def write_reals(self, reals: np.ndarray) -> None:
        """uint8 (cells, H, W, C)."""
        write_png(self._folder.reals_file, tile(reals, self._columns))

    def make_fakes(self, generator: nn.Module) -> np.ndarray:
        """The pictures of this moment, uint8 (cells, H, W, C)."""
        latents = draw_latents(range(self.cells), self._z_dim)
        return generate(generator, latents, self.labels, self._batch)

    def write_fakes(self, fakes: np.ndarray, nimg: int) -> np.ndarray:
        """Write their grid, as that after `nimg` pictures, and return it: uint8 (H, W, C)."""
        grid = tile(fakes, self._columns)
        self.newest = self._folder.fakes_file(nimg)
        write_png(self.newest, grid)
        return grid
