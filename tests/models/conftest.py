"""A tiny training that takes about a second: 16 px discs of two colours."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.training.config import DatasetRef, DCGANConfig, DeviceChoice, TrainingConfig
from models.training.trainer import train

BATCH = 16
RESOLUTION = 16


def draw_sample(index: int) -> np.ndarray:
    """Sample `index` of an endless, deterministic data set, uint8 (3, 16, 16)."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:RESOLUTION, :RESOLUTION]
    cy, cx = rng.uniform(6, 10, 2)
    inside = (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(9, 25)
    colour = np.array([220, 60, 40] if rng.random() < 0.5 else [40, 90, 220])
    picture: np.ndarray = np.where(inside, colour[:, None, None], 235).astype(np.uint8)
    return picture


def draw_batches(start: int) -> Iterator[np.ndarray]:
    """Batches from sample `start` on, uint8 (16, 3, 16, 16)."""
    while True:
        yield np.stack([draw_sample(index) for index in range(start, start + BATCH)])
        start += BATCH


@pytest.fixture(scope="session")
def disc_data() -> Callable[[int], Iterator[np.ndarray]]:
    return draw_batches


@pytest.fixture(scope="session")
def tiny_training() -> TrainingConfig:
    return TrainingConfig(
        algorithm=DCGANConfig(width=4, z_dim=8),
        resolution=RESOLUTION,
        kimg=0.16,
        batch=BATCH,
        ema_half_life_kimg=0.02,
        tick_kimg=0.032,
        grid_ticks=2,
        snapshot_ticks=2,
        device=DeviceChoice.CPU,
    )


@pytest.fixture(scope="session")
def disc_dataset() -> DatasetRef:
    return DatasetRef(name="discs", version=3, digest="0123456789abcdef" * 4, count=1000)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_training: TrainingConfig, disc_dataset: DatasetRef) -> Path:
    """The folder of a finished tiny training; tests read it only."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(tiny_training, draw_batches, disc_dataset, folder)
    return folder


@pytest.fixture(scope="session")
def discs() -> Callable[..., np.ndarray]:
    """discs(seed, side=192) -> thirty coloured discs on a ground: uint8 (side, side, 3)."""

    def draw(seed: int, side: int = 192) -> np.ndarray:
        rng = np.random.default_rng(seed)
        picture = np.full((side, side, 3), rng.integers(60, 200, 3), np.uint8)
        for _ in range(30):
            centre, radius = rng.integers(0, side, 2).tolist(), int(rng.integers(5, side // 5))
            cv2.circle(picture, centre, radius, rng.integers(0, 256, 3).tolist(), -1)
        return picture

    return draw
