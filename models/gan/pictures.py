"""Between a network's tensors and pictures that people look at."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image


def to_input(images: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """uint8 (N, C, H, W) to float32 in -1..1 on `device`, channels last in memory; 0 is -1 and 255 is 1."""
    moved = images.to(device=device, memory_format=torch.channels_last, non_blocking=True)
    return moved.float().div_(127.5).sub_(1.0)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """float (N, C, H, W) in -1..1 to uint8 (N, H, W, C), rounded to nearest; values outside are clamped."""
    scaled = images.detach().clamp(-1, 1).add(1.0).mul(127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 (H, W, C) to uint8 (height, width, C), the aspect ratio not kept.

    Each side that shrinks is averaged over areas (antialiased), each that grows is interpolated with Lanczos.
    """
    for size in ((width, picture.shape[0]), (width, height)):  # one side at a time: a picture may shrink on one only
        old = (picture.shape[1], picture.shape[0])
        if size != old:
            shrinks = size[0] * size[1] < old[0] * old[1]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
            resized = cv2.resize(picture, size, interpolation=method)
            picture = resized if resized.ndim == 3 else resized[:, :, None]
    return picture


def tile(pictures: Sequence[np.ndarray] | np.ndarray, columns: int) -> np.ndarray:
    """Equal pictures, uint8 (H, W, C) each, row by row into one uint8 (rows * H, columns * W, C); the rest is black."""
    if columns < 1 or len(pictures) == 0:
        raise ValueError(f"a grid needs at least one column and one picture, got {columns} and {len(pictures)}")
    height, width, channels = pictures[0].shape
    rows = -(-len(pictures) // columns)
    grid = np.zeros((rows, columns, height, width, channels), np.uint8)
    for k, picture in enumerate(pictures):
        grid[k // columns, k % columns] = picture
    return np.ascontiguousarray(grid.transpose(0, 2, 1, 3, 4)).reshape(rows * height, columns * width, channels)


def grid_shape(resolution: int) -> tuple[int, int]:
    """(columns, rows) of a grid that fills about a screen: 1024 x 640 pixels, at most 12 x 8 and at least 3 x 2."""
    return min(max(1024 // resolution, 3), 12), min(max(640 // resolution, 2), 8)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB, (H, W, 4) RGBA or (H, W, 1) grey to `path`, all of it or nothing."""
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        image.save(temporary, format="PNG")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
