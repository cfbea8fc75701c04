"""Seeds to latents to pictures, so that a seed gives the same picture wherever and with whatever it is asked for."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from models.gan.pictures import to_uint8

BATCH = 32  # of every call: another batch shape changes about 2 pixel values in 100,000 by one level
BATCH_PIXELS = BATCH * 128 * 128  # larger pictures go in smaller batches: 32 of 512 x 512 fill a consumer's card


def picture_batch(height: int, width: int) -> int:
    """How many pictures of `height` x `width` pixels a call of the network computes: BATCH up to 128 x 128, then fewer.

    It depends on the size alone, never on how many are asked for or on the device, and is a power of two.
    """
    batch = BATCH
    while batch > 1 and batch * height * width > BATCH_PIXELS:
        batch //= 2
    return batch


def pad_rows(rows: np.ndarray, batch: int) -> np.ndarray:
    """float32 (n, ...), n at most `batch`, to (batch, ...): filled up with zeros."""
    padded = np.zeros((batch, *rows.shape[1:]), np.float32)
    padded[: len(rows)] = rows
    return padded


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
def generate(
    generator: nn.Module,  # in eval mode
    latents: np.ndarray,  # float32 (N, z_dim)
    labels: np.ndarray | None = None,  # float32 (N, labels), for a conditional generator
    batch: int = BATCH,  # rows of every call: `picture_batch` of the pictures' size
) -> np.ndarray:
    """Pictures of latents, uint8 (N, H, W, C).

    Every call of the network has `batch` rows, the last filled up with zeros: a picture does not depend on its company.
    """
    if generator.training:
        raise ValueError("the generator must be in eval mode: batch norm would mix the pictures of a batch")
    if len(latents) == 0:
        raise ValueError("no latents given, so there is no picture to generate")
    device = next(generator.parameters()).device
    parts = []
    for start in range(0, len(latents), batch):
        inputs = [rows[start : start + batch] for rows in (latents, labels) if rows is not None]
        tensors = [torch.from_numpy(pad_rows(rows, batch)).to(device) for rows in inputs]
        parts.append(to_uint8(generator(*tensors))[: len(inputs[0])])
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
