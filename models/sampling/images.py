"""Pictures by seed: one file each, or a grid. A seed gives the same picture alone, in a list, in a grid of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.gan.latents import draw_latents, generate
from models.gan.pictures import resize, tile, write_png
from models.training.config import DatasetRef, TrainingConfig
from models.training.networks import build_generator
from models.training.run import find_snapshot
from models.training.snapshot import SnapshotError, load_weights, read_record, weights_path


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator ready to sample from, and where it comes from."""

    network: nn.Module  # in eval mode, on the device asked for
    z_dim: int  # normal values per latent
    resolution: int  # pixels a side
    channels: int  # 3 = RGB, 1 = grey
    config: TrainingConfig  # of its training
    dataset: DatasetRef  # it was trained on
    nimg: int  # real pictures seen
    weights: Path  # the .safetensors it was loaded from


def load_generator(run_or_snapshot: Path, ema: bool = True, device: torch.device | str = "cpu") -> LoadedGenerator:
    """The generator of a run folder's newest sound snapshot, or of a snapshot's `.json` or `.safetensors`.

    ema: the averaged weights (what the grids of a run show), else those of the last step.
    Raises RunError or SnapshotError, with what to do, if there is no usable snapshot.
    """
    path = find_snapshot(run_or_snapshot)
    record = read_record(path)
    weights = weights_path(path)
    network = build_generator(record.config)
    try:
        network.load_state_dict(load_weights(weights, "G_ema" if ema else "G"))
    except RuntimeError as error:
        raise SnapshotError(f"{weights} does not fit its own config: {error}") from error
    network.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval().requires_grad_(False)
    config = record.config
    return LoadedGenerator(
        network=network,
        z_dim=config.algorithm.z_dim,
        resolution=config.resolution,
        channels=config.channels,
        config=config,
        dataset=record.dataset,
        nimg=record.nimg,
        weights=weights,
    )


def sample(generator: LoadedGenerator, seeds: Sequence[int]) -> np.ndarray:
    """The pictures of `seeds`, uint8 (len(seeds), H, W, C)."""
    return generate(generator.network, draw_latents(seeds, generator.z_dim))


def sample_images(generator: LoadedGenerator, seeds: Sequence[int], folder: Path) -> list[Path]:
    """Write one PNG per seed, `seed-00000042.png`, as large as the network makes them; returns the paths in order."""
    paths = [folder / f"seed-{seed:08d}.png" for seed in seeds]
    for path, picture in zip(paths, sample(generator, seeds), strict=True):
        write_png(path, picture)
    return paths


def sample_grid(
    generator: LoadedGenerator,
    seeds: Sequence[int],  # row by row
    columns: int,
    path: Path,  # the PNG
    cell: int | None = None,  # pixels a side of each picture in the grid; None = as the network makes them
) -> Path:
    """Write the pictures of `seeds` as one PNG grid; returns `path`."""
    pictures = list(sample(generator, seeds))
    if cell is not None:
        pictures = [resize(picture, cell, cell) for picture in pictures]
    write_png(path, tile(pictures, columns))
    return path
