"""Which arithmetic a device does a network in: measured once, and only where it is both clearly faster and as good."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.upscale.network import UpscaleNetwork

Precision = Literal["float32", "float16", "bfloat16"]

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CLEARLY_FASTER = 1.25  # times float32's rate: below it, noise of the clock could decide what is published
CLOSE = 2.0  # 1/255: the largest difference from float32 anywhere on the test picture
TRIALS = 3  # of which the fastest counts


@dataclass(frozen=True)
class Trial:
    """One arithmetic's seconds, and its largest difference from float32 on the test picture in 1/255."""

    precision: Precision
    seconds: float
    difference: float


def choose_precision(trials: Sequence[Trial]) -> Precision:
    """The fastest of those that are close to float32 and clearly faster than it; else float32, the first trial."""
    exact = trials[0]
    fit = [t for t in trials[1:] if t.difference <= CLOSE and t.seconds * CLEARLY_FASTER <= exact.seconds]
    return min(fit, key=lambda trial: trial.seconds).precision if fit else exact.precision


def try_precisions(
    network: UpscaleNetwork, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> list[Trial]:
    """float32 and what else the device may know, each timed on a drawn picture. Those it cannot do are left out."""
    side, batch, names = _extent(device)
    picture = torch.from_numpy(_draw(network, side)).to(device).repeat(batch, 1, 1, 1)
    exact: Tensor | None = None
    trials: list[Trial] = []
    for name in names:
        try:
            seconds, result = _time(network, device, DTYPES[name], picture, clock)
        except (RuntimeError, NotImplementedError):
            if name == "float32":
                raise  # the device cannot do the work at all
            continue
        exact = result if exact is None else exact
        difference = float((result - exact).abs().max()) * 255
        trials.append(Trial(name, seconds, difference if np.isfinite(difference) else np.inf))
    return trials


def _extent(device: torch.device) -> tuple[int, int, tuple[Precision, ...]]:
    """Side and number of the test pictures, and what is tried."""
    if device.type == "cpu":  # no CPU is faster in float16 than in bfloat16
        return 64, 1, ("float32", "bfloat16")
    return 192, 16, ("float32", "float16", "bfloat16")


@torch.inference_mode()
def _time(
    network: UpscaleNetwork, device: torch.device, dtype: torch.dtype, picture: Tensor, clock: Callable[[], float]
) -> tuple[float, Tensor]:
    """Seconds of the fastest of some passes, and the clipped float32 result."""
    copied = copy.deepcopy(network).to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = picture.to(dtype).contiguous(memory_format=torch.channels_last)
    fastest = np.inf
    with exact_arithmetic():
        result = copied(pixels)  # the first pass chooses algorithms and is not timed
        for _ in range(TRIALS):
            _wait(device)
            start = clock()
            result = copied(pixels)
            _wait(device)
            fastest = min(fastest, clock() - start)
    return float(fastest), result[:1].float().clamp(0, 1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


_computing = threading.RLock()


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within the body cuDNN takes algorithms that give equal bits every time, and no TF32 behind a float32's name.

    These are switches of the whole process, so one thread at a time is let in.
    """
    with (
        _computing,
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        yield


def _draw(network: UpscaleNetwork, side: int) -> np.ndarray:
    """(1, 3, H, W) float32: slopes, hard edges, thin lines and a little grain, of a size that the network takes."""
    inner = -(-side // network.multiple) * network.multiple
    side = inner + 2 * network.loss
    y, x = np.mgrid[:side, :side] / side
    planes = np.stack([x, y, 0.5 + 0.5 * np.sin(9 * (x + y * y))])
    planes[:, (x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06] = np.array([0.98, 0.85, 0.75])[:, None]
    planes[:, np.abs(x - y) < 0.01] = 0.05
    grain = np.random.default_rng(0).normal(0, 0.02, planes.shape)
    return np.clip(planes + grain, 0, 1).astype(np.float32)[None]


_chosen: dict[tuple[str, str], Precision] = {}
_choosing = threading.Lock()


def best_precision(name: str, load: Callable[[], UpscaleNetwork], device: torch.device) -> Precision:
    """What `choose_precision` says for a network on a device, measured at the first call and remembered.

    Args:
        name: what the answer is remembered under, besides the device.
        load: the network; not called when the answer is known.
    """
    key = (name, str(device))
    with _choosing:
        if key not in _chosen:
            _chosen[key] = choose_precision(try_precisions(load(), device))
        return _chosen[key]
