"""TensorBoard, where it is installed: the same figures as stats.jsonl, and the grids."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

log = logging.getLogger(__name__)


class Board:
    """Writes event files into a run's folder; without the tensorboard package it writes nothing and says so once.

    stats.jsonl and the grids are the record; this is a view of them, so a machine without it trains all the same.
    """

    def __init__(self, folder: Path | None, nimg: int) -> None:
        """
        folder: the run's; None writes nothing.
        nimg: pictures seen so far; what an earlier, interrupted run wrote beyond them is hidden.
        """
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            log.warning("tensorboard is not installed: the figures are in stats.jsonl alone")
            return
        self._writer = SummaryWriter(str(folder), purge_step=nimg + 1, flush_secs=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def show_grid(self, grid: np.ndarray, nimg: int) -> None:
        """A grid of fakes, uint8 (H, W, C), after `nimg` pictures."""
        if self._writer is not None:
            self._writer.add_image("fakes", grid, nimg, dataformats="HWC")

    def show_stats(self, stats: Mapping[str, float], nimg: int) -> None:
        """One tick's figures."""
        if self._writer is not None:
            for name, value in stats.items():
                self._writer.add_scalar(name, value, nimg)
