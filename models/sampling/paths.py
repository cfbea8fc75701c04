"""Closed loops through latent space, as functions of time: a film of one is the same at any frame rate."""

from collections.abc import Callable, Sequence

import numpy as np

LatentPath = Callable[[np.ndarray], np.ndarray]
"""Positions in the round, float64 (P,), to latents, float64 (P, z_dim). Position p and p + 1 are the same place."""

WALK_STREAM = 2  # beside a seed: its random loop is independent of its latent and of its noise
LEFT_OUT = 1e-8  # share of a random loop's variance that its band limit may cut off


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


def slerp_path(keys: np.ndarray) -> LatentPath:
    """The closed loop through `keys`, float (K, z_dim), along great circles, at K keys a round; 0 is keys[0]."""

    def walk(positions: np.ndarray) -> np.ndarray:
        scaled = (np.asarray(positions, np.float64) % 1.0) * len(keys)
        k = np.minimum(scaled.astype(np.int64), len(keys) - 1)
        return slerp(keys[k], keys[(k + 1) % len(keys)], (scaled - k)[:, None])

    return walk


def random_path(seed: int, z_dim: int, changes: float) -> LatentPath:
    """A smooth random loop: a periodic, stationary, band-limited Gaussian process in each of the z_dim values.

    At every position the latent is standard normal, as the network was trained on. Positions that lie t of a round
    apart are correlated by exp(-t² / 2l²) (summed over rounds) with l = 2 / (pi changes): as fast as a slerp loop of
    `changes` keys, without its bends. A Fourier series: harmonic k has a normal sine and cosine, of variance
    proportional to exp(-(2 pi k l)² / 2), up to where less than LEFT_OUT of all would follow. The same seed gives the
    same path, whatever it is sampled at.
    """
    if seed < 0 or not changes > 0:
        raise ValueError(f"a path needs a seed of 0 or more and changes above 0, got {seed} and {changes}")
    length = 2 / (np.pi * changes)
    harmonics = np.arange(int(np.ceil(9 / (2 * np.pi * length))) + 1)
    variances = np.exp(-((2 * np.pi * harmonics * length) ** 2) / 2)
    variances[1:] *= 2  # of k and -k
    kept = int(np.searchsorted(np.cumsum(variances) / variances.sum(), 1 - LEFT_OUT)) + 1
    scales = np.sqrt(variances[:kept] / variances[:kept].sum())
    rng = np.random.Generator(np.random.PCG64([seed, WALK_STREAM]))
    weights = rng.standard_normal((kept, 2, z_dim)) * scales[:, None, None]

    def walk(positions: np.ndarray) -> np.ndarray:
        angles = 2 * np.pi * (np.asarray(positions, np.float64)[:, None] % 1.0)
        moved = np.zeros((len(angles), z_dim))
        for k, (cosine, sine) in enumerate(weights):  # a matrix product's last bits would depend on the row's company
            moved += np.cos(k * angles) * cosine + np.sin(k * angles) * sine
        return moved

    return walk


def even_path(path: LatentPath, change: Callable[[np.ndarray], np.ndarray], count: int) -> LatentPath:
    """The same loop, walked so that the picture changes as much in every second.

    change: positions, float64 (P,), to how much the picture changes from each to the next and from the last to the
    first, float64 (P,). It is asked at `count` positions a round, and once more at those that came out of it.
    """
    rounds = np.linspace(0.0, 1.0, count + 1)
    positions = rounds
    for _ in range(2):
        arcs = np.concatenate([[0.0], np.cumsum(change(positions[:-1]))])
        if not arcs[-1] > 0:  # a picture that never changes does so evenly
            return path
        positions = np.interp(rounds, arcs / arcs[-1], positions)

    def walk(times: np.ndarray) -> np.ndarray:
        return path(np.interp(np.asarray(times, np.float64) % 1.0, rounds, positions))

    return walk


def slerp_paths(latents: np.ndarray, keys: int) -> Sequence[LatentPath]:
    """One loop for every `keys` rows of `latents`, float (loops * keys, z_dim); ValueError unless it comes out even."""
    if keys < 2 or len(latents) == 0 or len(latents) % keys:
        raise ValueError(f"give a whole number of loops of {keys} (2 or more) seeds each, got {len(latents)} seeds")
    return [slerp_path(loop) for loop in latents.reshape(-1, keys, latents.shape[1])]
