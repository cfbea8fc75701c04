"""Figures of quality in the midst of a training: when they are due, and where they go."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from models.training.board import Board
from models.training.config import TrainingConfig
from models.training.metrics_file import record_metrics
from models.training.run import RunFolder

log = logging.getLogger(__name__)

Evaluate = Callable[[torch.nn.Module, int], Sequence[Mapping[str, Any]]]
"""How good a generator is, in eval mode on its device, after so many pictures: lines for metrics.jsonl, each with a
`name` and a `value`. It must leave the network, and every random stream of torch, as they are."""


class Evaluation:
    """Measures where somebody asked for it. What goes wrong in it ends no training: the snapshot can be measured later.

    Attributes:
        seconds: spent here; they are not the training's.
    """

    def __init__(self, evaluate: Evaluate | None, config: TrainingConfig, folder: RunFolder) -> None:
        self.evaluate = evaluate
        self.config = config
        self.folder = folder
        self.seconds = 0.0

    def is_due(self, tick: int, nimg: int) -> bool:
        """Whether this tick is the first one past a multiple of metrics_kimg, or the last: the same after a resume."""
        if self.evaluate is None or not self.config.metrics_kimg:
            return False
        every, batch = max(round(self.config.metrics_kimg * 1000), 1), self.config.batch
        before = -(-(tick - 1) * self.config.tick_images // batch) * batch  # pictures seen at the tick before
        return nimg // every > before // every or nimg >= self.config.total_images

    def measure(self, network: torch.nn.Module, nimg: int, board: Board) -> tuple[dict[str, float], list[str]]:
        """Figures of quality of the averaged generator by name, written before they are returned; and a warning
        instead where that failed."""
        assert self.evaluate is not None
        started = time.perf_counter()
        log.info("measuring the quality after %.1f kimg", nimg / 1000)
        try:
            lines = self.evaluate(network, nimg)
            record_metrics(self.folder.path, lines)
            metrics = {str(line["name"]): float(line["value"]) for line in lines}
            board.show_stats({f"metrics/{name}": value for name, value in metrics.items()}, nimg)
        except Exception as error:  # noqa: BLE001 - a full disk, memory, a network of the user's: days of training weigh more
            said = " ".join(str(error).split()) or type(error).__name__
            return {}, [f"the quality could not be measured, and the training goes on: {said[:500]}"]
        finally:
            spent = time.perf_counter() - started
            self.seconds += spent
        said = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        log.info("measured in %.1f s: %s", spent, said)
        return metrics, []
