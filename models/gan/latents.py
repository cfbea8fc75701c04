"""Seeds to latents to pictures, so that a seed gives the same picture wherever and with whatever it is asked for."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from models.gan.pictures import to_uint8

BATCH = 32  # of every call: another batch shape changes about 2 pixel values in 100,000 by one level


def draw_latents(seeds: Sequence[int], z_dim: int) -> np.ndarray:
    """float32 (len(seeds), z_dim) of standard normal values; row k depends on seeds[k] (0 or more) alone.

    Each seed has a generator of its own: numpy's PCG64, the same on every platform.
    """
    negative = [seed for seed in seeds if seed < 0]
    if negative:
        raise ValueError(f"seeds must be 0 or more, got {negative[0]}")
    rows = [np.random.Generator(np.random.PCG64(seed)).standard_normal(z_dim, dtype=np.float32) for seed in seeds]
    return np.stack(rows) if rows else np.empty((0, z_dim), np.float32)


@torch.inference_mode()
def generate(generator: nn.Module, latents: np.ndarray) -> np.ndarray:
    """Pictures of latents, float32 (N, z_dim), as uint8 (N, H, W, C); `generator` must be in eval mode.

    Every call of the network has `BATCH` rows, the last filled up with zeros: a picture does not depend on its company.
    """
    if generator.training:
        raise ValueError("the generator must be in eval mode: batch norm would mix the pictures of a batch")
    device = next(generator.parameters()).device
    parts = []
    for start in range(0, len(latents), BATCH):
        rows = latents[start : start + BATCH]
        padded = np.zeros((BATCH, latents.shape[1]), np.float32)
        padded[: len(rows)] = rows
        parts.append(to_uint8(generator(torch.from_numpy(padded).to(device)))[: len(rows)])
    if not parts:
        raise ValueError("no latents given, so there is no picture to generate")
    return np.concatenate(parts)


def parse_seeds(text: str | Iterable[int]) -> list[int]:
    """Seeds as people write them: "0-15", "1,5,7-9" (ends included), or any iterable of integers."""
    if not isinstance(text, str):
        return [int(seed) for seed in text]
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ValueError(
                f"cannot read seeds {text!r}: write single seeds and rising ranges, such as 0-15 or 1,5,7-9"
            )
        seeds += range(int(first), int(last or first) + 1)
    return seeds
