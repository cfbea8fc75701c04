"""Where networks compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def best_device() -> torch.device:
    """The first CUDA device if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """What `best_device` is called: `cpu`, or the card's name. Part of a version's lineage: results depend on it."""
    device = best_device()
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def in_full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast off: half precision would blur and shift pictures. Devices without autocast (meta) need nothing."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Within, float32 means float32 on a GPU too (no TF32), and cuDNN picks the fastest way for shapes that stay.

    StyleGAN2's penalties and small maps were trained so. These are switches of the whole process.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = False, False, True
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before
