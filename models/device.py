"""Where networks compute."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """The first CUDA device if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """What `best_device` is called: `cpu`, or the card's name. Part of a version's lineage: results depend on it."""
    device = best_device()
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
