"""A film of a walk through latent space: a closed loop from key picture to key picture, several side by side."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from models.gan.latents import draw_latents, generate
from models.gan.pictures import resize, tile
from models.sampling.images import LoadedGenerator
from models.sampling.video import write_mp4

LATENTS_AT_ONCE = 64  # bounds memory, whatever the length of the film


def slerp(start: np.ndarray, end: np.ndarray, t: float | np.ndarray) -> np.ndarray:
    """Along the great circle from `start` to `end`, float (..., z_dim) each, at t in 0..1 (scalar or (..., 1)).

    Shoemake 1985: sin((1 - t) w) / sin w * start + sin(t w) / sin w * end, w the angle between the two. Latents of
    many normal values lie near a sphere, and a straight line would lead through its empty inside (White 2016,
    arXiv:1609.04468). The length goes evenly from one to the other. Opposite vectors have no one great circle
    (ValueError); parallel ones are interpolated straight.
    """
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    start_length = np.linalg.norm(start, axis=-1, keepdims=True)
    end_length = np.linalg.norm(end, axis=-1, keepdims=True)
    if (start_length == 0).any() or (end_length == 0).any():
        raise ValueError("cannot interpolate from or to a zero vector: it has no direction")
    start, end = start / start_length, end / end_length
    # by the half chord, which unlike the arc cosine stays exact for small angles
    angle = 2 * np.arcsin(np.clip(np.linalg.norm(end - start, axis=-1, keepdims=True) / 2, 0, 1))
    if (np.pi - angle < 1e-6).any():
        raise ValueError("cannot interpolate between opposite vectors: every great circle through one meets the other")
    parallel = angle < 1e-8
    sine = np.where(parallel, 1.0, np.sin(angle))
    from_start = np.where(parallel, 1 - t, np.sin((1 - t) * angle) / sine)
    from_end = np.where(parallel, t, np.sin(t * angle) / sine)
    length = (1 - t) * start_length + t * end_length
    moved: np.ndarray = length * (from_start * start + from_end * end)
    return moved


def loop_latents(keys: np.ndarray, position: float) -> np.ndarray:
    """The point at `position` in 0..1 of the closed loop through `keys`, float (K, z_dim); 0 and 1 are keys[0].

    A function of time, not of frames: the same film at any frame rate.
    """
    scaled = (position % 1.0) * len(keys)
    k = int(scaled)
    return slerp(keys[k], keys[(k + 1) % len(keys)], scaled - k)


def slerp_walk(
    generator: LoadedGenerator,
    seeds: Sequence[int],  # key pictures: the first `keys` are the first cell's loop, and so on
    path: Path,  # the MP4
    keys: int = 4,  # key pictures per cell
    columns: int = 3,  # cells side by side
    seconds: float = 8.0,  # one round of the loop
    fps: int = 30,
    cell: int = 256,  # pixels a side of a cell in the film
) -> Path:
    """Write the walk as an MP4 that loops without a seam; returns `path`.

    The same arguments give the same bytes (same device and library versions). len(seeds) must be a multiple of `keys`.
    """
    if keys < 2 or len(seeds) == 0 or len(seeds) % keys:
        raise ValueError(f"give a whole number of loops of {keys} (2 or more) seeds each, got {len(seeds)} seeds")
    if not (seconds > 0 and fps > 0 and cell > 0):
        raise ValueError(f"seconds, fps and cell must be above 0, got {seconds}, {fps} and {cell}")
    loops = draw_latents(seeds, generator.z_dim).reshape(-1, keys, generator.z_dim)
    write_mp4(path, _frames(generator, loops, max(round(seconds * fps), 1), columns, cell), fps)
    return path


def _frames(generator: LoadedGenerator, loops: np.ndarray, count: int, columns: int, cell: int) -> Iterator[np.ndarray]:
    at_once = max(LATENTS_AT_ONCE // len(loops), 1)
    for first in range(0, count, at_once):
        frames = range(first, min(first + at_once, count))
        latents = np.stack([loop_latents(keys, frame / count) for frame in frames for keys in loops])
        pictures = generate(generator.network, latents.astype(np.float32))
        for k in range(len(frames)):
            cells = pictures[k * len(loops) : (k + 1) * len(loops)]
            yield tile([resize(picture, cell, cell) for picture in cells], columns)
