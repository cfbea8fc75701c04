"""Augmentations that take something away: white noise and cutout (arXiv:2006.06676, appendix B)."""

import torch

CUTOUT = 0.5  # side of the square, as a share of the picture's


def add_noise(images: torch.Tensor, deviation: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Add normal noise of the standard deviations (N,) to the colours of images (N, C, H, W), not to alpha.

    seeds: int64 (N,); each picture's noise has a generator of its own, on the images' device.
    """
    colours = min(images.shape[1], 3)
    noise = torch.zeros_like(images)
    for k, (sigma, seed) in enumerate(zip(deviation.tolist(), seeds.tolist(), strict=True)):
        own = torch.Generator(images.device).manual_seed(seed)
        shape = (colours, *images.shape[2:])
        noise[k, :colours] = sigma * torch.randn(shape, generator=own, dtype=images.dtype, device=images.device)
    return images + noise


def cut_out(images: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Set every channel to 0, the middle, in a square about each centre: (N, 2), shares of width and height."""
    kept = []
    for centre, size in zip(centres.to(images).unbind(1), (images.shape[3], images.shape[2]), strict=True):
        places = (torch.arange(size, dtype=images.dtype, device=images.device) + 0.5) / size
        kept.append((places - centre[:, None]).abs() >= CUTOUT / 2)
    mask = kept[0][:, None, None, :] | kept[1][:, None, :, None]  # (N, 1, H, W)
    return torch.where(mask, images, 0.0)
