"""Executing plane transforms: whole-pixel moves are copied, all others are resampled without aliasing.

Resampling (arXiv:2006.06676, appendix B): mirror the border, upsample by 2, sample bilinearly, downsample by 2, with
the sym6 wavelet as low-pass filter. Its shifts by two are orthonormal, so that down(up(x)) is x. Its centre of mass is
at tap 5.0983, and its second central moment is 0: with samples placed by that centre, and not by the middle of the 12
taps, the upsampled samples meet every picture that is a quadratic in x and y exactly.

Apart from the paper: the border is mirrored by folding the places that are looked up, without end. The upsampled
picture is as large for one transform as for the next, and what becomes of a picture does not depend on its company.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from models.gan.ada.geometry import from_corner
from models.gan.ada.wavelets import SYM6, extend

MARGIN = 5  # mirrored pixels that are needed: pixel S - 1 is made of samples up to 2 S + 9, those of pixels up to S + 4
CENTRE = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6)  # in taps: where the filter's mass lies
SLACK = 0.01  # samples: well over float32's rounding at 1024 pixels, too little to see where it clamps
SMALLEST = 8  # pixels a side; below it the mirrored margin is most of what a transform sees


def upsample(images: torch.Tensor, dim: int) -> torch.Tensor:
    """Twice the samples along `dim`: size S to 2 S + 10. Sample j lies at pixel (j - CENTRE) / 2, borders mirrored."""
    samples: torch.Tensor = _Upsample.apply(extend(images, MARGIN, dim), dim)
    return samples


def downsample(samples: torch.Tensor, dim: int) -> torch.Tensor:
    """Undo `upsample` along `dim`: size 2 S + 10 to S."""
    images: torch.Tensor = _Downsample.apply(samples, dim)
    return images


class _Upsample(torch.autograd.Function):
    """Size S to 2 (S - 5) along dim, no border: sample j = sqrt 2 times the sum of h[j - 2 k] pixel[k].

    Each filter's gradient is the other one on a border of zeros, which saves three quarters of what autograd would
    spend on the slices.
    """

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, dim: int) -> torch.Tensor:
        ctx.dim = dim
        count = images.shape[dim] - MARGIN
        phases = []
        for taps in (SYM6[0::2], SYM6[1::2]):  # even samples, odd samples
            phase = images.narrow(dim, MARGIN, count) * (math.sqrt(2) * taps[0])
            for k, tap in enumerate(taps[1:], 1):
                phase.add_(images.narrow(dim, MARGIN - k, count), alpha=math.sqrt(2) * tap)
            phases.append(phase)
        return torch.stack(phases, dim + 1).flatten(dim, dim + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return 2 * _Downsample.apply(_surround(gradients[0], 2 * MARGIN, ctx.dim), ctx.dim), None


class _Downsample(torch.autograd.Function):
    """Size 2 S + 10 to S along dim: pixel k = the sum of h[i] sample[2 k + i], over sqrt 2."""

    @staticmethod
    def forward(ctx: Any, samples: torch.Tensor, dim: int) -> torch.Tensor:
        ctx.dim = dim
        count = samples.shape[dim] // 2 - MARGIN
        phases = samples.unflatten(dim, (-1, 2)).unbind(dim + 1)
        images = phases[0].narrow(dim, 0, count) * (SYM6[0] / math.sqrt(2))
        for i, tap in enumerate(SYM6[1:], 1):
            images.add_(phases[i % 2].narrow(dim, i // 2, count), alpha=tap / math.sqrt(2))
        return images

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return 0.5 * _Upsample.apply(_surround(gradients[0], MARGIN, ctx.dim), ctx.dim), None


def _surround(images: torch.Tensor, margin: int, dim: int) -> torch.Tensor:
    """Zeros along dim, `margin` of them to each side."""
    return F.pad(images, (margin, margin) if dim == 3 else (0, 0, margin, margin))


class _Sample(torch.autograd.Function):
    """Bilinear sampling at fixed places. It is linear in the picture: its gradient is the transpose, whose gradient is
    the sampling again.

    torch's own second derivative came with pull request 177487, after 2.11, and works out the grid's as well.
    """

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _SampleTransposed.apply(gradients[0], grid, ctx.shape), None


class _SampleTransposed(torch.autograd.Function):
    """The transpose of `_Sample`: every value is shared out to the four samples that it would have been read from."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, grid: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        ctx.save_for_backward(grid)
        unread = values.new_empty(
            shape
        )  # the operator looks at its shape only, as the grid's gradient is not asked for
        bilinear, border, align_corners = 0, 1, True
        images, _ = torch.ops.aten.grid_sampler_2d_backward(
            values, unread, grid, bilinear, border, align_corners, [True, False]
        )
        return images

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(gradients[0], grid), None, None


def _fold(places: torch.Tensor, size: int) -> torch.Tensor:
    """Pixel coordinates mirrored at pixels 0 and size - 1 as often as it takes to fall between them."""
    period = 2 * (size - 1)
    places = torch.remainder(places, period)
    return torch.minimum(places, period - places)


def _lookup(places: torch.Tensor, size: int) -> torch.Tensor:
    """Pixel coordinates to those of grid_sample (-1 is the first upsampled sample, 1 the last), mirrored where the
    upsampled picture ends."""
    last = 2 * (size + MARGIN) - 1
    samples = 2 * places + CENTRE
    # a little slack, or rounding would throw the identity's first and last samples to the other side
    within = (samples > -SLACK) & (samples < last + SLACK)
    samples = torch.where(within, samples, 2 * _fold(places, size) + CENTRE)
    return samples * (2 / last) - 1


def _grid(inverses: torch.Tensor, width: int, height: int, like: torch.Tensor) -> torch.Tensor:
    """Where each upsampled sample of the result is looked up: (N, 2 H + 10, 2 W + 10, 2)."""
    a = from_corner(inverses, width, height)[:, :2].to(like)[:, :, :, None, None]  # (N, 2, 3, 1, 1)
    steps = [torch.arange(2 * (size + MARGIN), dtype=like.dtype, device=like.device) for size in (width, height)]
    x, y = ((step - CENTRE) / 2 for step in steps)
    x, y = x[None, None, :], y[None, :, None]
    across = a[:, 0, 0] * x + (a[:, 0, 1] * y + a[:, 0, 2])
    down = a[:, 1, 0] * x + (a[:, 1, 1] * y + a[:, 1, 2])
    return torch.stack((_lookup(across, width), _lookup(down, height)), 3)


def warp(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Resample images, float (N, C, H, W), through the transforms, float64 (N, 3, 3) in pixels about the centre.

    Differentiable twice with respect to the images, on any version of torch; not with respect to the transforms.
    """
    height, width = images.shape[2:]
    inverses = torch.linalg.inv(matrices)
    samples = upsample(upsample(images, 3), 2)
    samples = _Sample.apply(samples, _grid(inverses, width, height, samples))
    return downsample(downsample(samples, 2), 3)


def find_copies(blit: torch.Tensor, geometry: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Which transforms, geometry after blit, both (N, 3, 3), take every pixel to a pixel: bool (N,).

    All with no geometry, except for a quarter turn when width - height is odd: its centre lies between pixels.
    """
    corner = from_corner(blit, width, height)
    still = (geometry == torch.eye(3, dtype=geometry.dtype)).all(2).all(1)
    return still & ((corner - corner.round()).abs() < 1e-6).all(2).all(1)


def copy_pixels(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Move images (N, C, H, W) through transforms for which `find_copies` holds: no value changes, borders mirrored."""
    height, width = images.shape[2:]
    inverses = torch.linalg.inv(from_corner(matrices, width, height)).round().to(torch.int64)
    a = inverses.to(images.device)[:, :2, :, None, None]  # (N, 2, 3, 1, 1)
    x = torch.arange(width, device=images.device)[None, None, :]
    y = torch.arange(height, device=images.device)[None, :, None]
    across = _fold(a[:, 0, 0] * x + a[:, 0, 1] * y + a[:, 0, 2], width)
    down = _fold(a[:, 1, 0] * x + a[:, 1, 1] * y + a[:, 1, 2], height)
    return pick_pixels(images, across, down)


def pick_pixels(images: torch.Tensor, across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Pixel (n, y, x) of the result is pixel (n, down[n, y, x], across[n, y, x]) of images, (N, C, H, W)."""
    height, width = images.shape[2:]
    places = (down * width + across).flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, places).unflatten(2, (height, width))
