"""Where networks compute."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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
