"""Antialiased resizing of pictures for the networks of metrics, as two products with matrices.

Bicubic with a = -0.5, its support widened by the factor by which a side shrinks: what Pillow does, and what Parmar et
al. (2022, arXiv:2104.11222) found to change FID least; a resize that skips pixels moves it by more than many a
generator does. A matrix product is the same on any device, whatever a library's own resize does.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import torch

SUPPORT = 2.0  # of the kernel, in pixels of the smaller scale
SHARPNESS = -0.5  # Keys (1981): reproduces quadratics, as Pillow has it


def resize_pictures(pictures: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """float (N, C, H, W) to (N, C, height, width), of the same dtype and device; the aspect ratio is not kept.

    Not clamped: beside an edge, values overshoot by up to 7 % of its height.
    """
    if pictures.shape[-2] != height:
        rows = torch.from_numpy(resize_matrix(pictures.shape[-2], height)).to(pictures)
        pictures = rows @ pictures
    if pictures.shape[-1] != width:
        columns = torch.from_numpy(resize_matrix(pictures.shape[-1], width)).to(pictures)
        pictures = pictures @ columns.T
    return pictures


@functools.lru_cache(maxsize=32)
def resize_matrix(old: int, new: int) -> npt.NDArray[np.float64]:
    """float64 (new, old): every new pixel as a weighted mean of old ones; rows add up to 1. Do not write to it."""
    if old < 1 or new < 1:
        raise ValueError(f"a picture has at least one pixel: cannot resize {old} to {new}")
    scale = old / new
    stretch = max(scale, 1.0)  # antialiasing: the kernel covers as many old pixels as become one
    centres = (np.arange(new) + 0.5) * scale
    weights = _cubic((np.arange(old) + 0.5 - centres[:, None]) / stretch)
    return weights / weights.sum(axis=1, keepdims=True)


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys (1981), equation 4."""
    a, x = SHARPNESS, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < SUPPORT, far, 0.0))
