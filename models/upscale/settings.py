"""What upscaling can be told, and what follows from it on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from models.device import best_device
from models.upscale.catalogue import DEFAULT_NETWORK, get_network
from models.upscale.ncnn_backend import ncnn_present
from models.upscale.precision import DTYPES
from models.upscale.torch_backend import Speedup


@dataclass(frozen=True)
class UpscaleSettings:
    """Everything that a result can depend on besides the picture, its target and the machine."""

    network: str = DEFAULT_NETWORK  # a name in `catalogue.NETWORKS`
    tta: bool = False  # the mean of eight flips and rotations: a little better, eight times the work
    backend: Literal["auto", "ncnn", "torch"] = "auto"
    device: str = "auto"  # "cpu", "cuda", "cuda:1", ...; auto: the first CUDA device, else the CPU
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"  # auto: measured, see `precision`
    workers: int = 0  # threads that decode, encode and (ncnn) compute; 0: one per core
    model_file: Path | None = None  # an ESRGAN-family network of one's own, instead of ``network``
    speedup: Speedup = "none"  # torch only: "compile", or on CUDA "graphs"


def choose_device(name: str) -> torch.device:
    """The torch device of a name. ValueError when there is none."""
    if name == "auto":
        return best_device()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"the device must be 'auto', 'cpu' or 'cuda', not {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"torch sees {torch.cuda.device_count()} CUDA devices here, so not {name!r}: use device 'auto'"
        )
    return device


def choose_ncnn(settings: UpscaleSettings, device: torch.device) -> bool:
    """Whether ncnn computes: on a CPU, where it is installed and has the network's files, if nothing speaks against it.

    Raises ValueError for settings that do not go together.
    """
    _check_values(settings)
    obstacle = _find_obstacle(settings, device)
    if settings.backend == "ncnn" and obstacle:
        raise ValueError(f"backend 'ncnn' cannot be used: {obstacle}. Choose backend 'auto' or 'torch'")
    return settings.backend != "torch" and not obstacle


def _check_values(settings: UpscaleSettings) -> None:
    if settings.backend not in ("auto", "ncnn", "torch"):
        raise ValueError(f"the backend must be 'auto', 'ncnn' or 'torch', not {settings.backend!r}")
    if settings.precision != "auto" and settings.precision not in DTYPES:
        raise ValueError(f"the precision must be 'auto' or one of {', '.join(DTYPES)}, not {settings.precision!r}")
    if settings.speedup not in ("none", "compile", "graphs"):
        raise ValueError(f"speedup must be 'none', 'compile' or 'graphs', not {settings.speedup!r}")
    if settings.workers < 0:
        raise ValueError(f"workers must be 0 (one per core) or more, not {settings.workers}")


def _find_obstacle(settings: UpscaleSettings, device: torch.device) -> str | None:
    """Why ncnn cannot do it."""
    if device.type != "cpu":
        return f"it computes on the CPU, not on {device}"
    if settings.model_file is not None:
        return "it does not read networks of one's own"
    if not get_network(settings.network).has_ncnn_files:
        return f"{settings.network} has no ncnn files"
    if settings.precision not in ("auto", "float32"):
        return f"it computes in float32, not in {settings.precision}"
    if settings.speedup != "none":
        return f"speedup {settings.speedup!r} is torch's"
    return None if ncnn_present() else "the package ncnn is not installed (pip install ncnn)"


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
