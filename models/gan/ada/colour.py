"""Colour transforms as homogeneous matrices, float64 (N, 4, 4), on the CPU, and how they are applied.

They act on column vectors (red, green, blue, 1) with colours in -1..1, so that 0 is the middle grey. Later transforms
multiply from the left. The luma axis is (1, 1, 1), the line of greys. N values make N matrices.
"""

import math

import torch

_GREY = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64) / math.sqrt(3)
_LUMA = torch.outer(_GREY, _GREY)  # projects a colour on the luma axis
_CROSS = torch.zeros(4, 4, dtype=torch.float64)  # takes a colour to the cross product of the luma axis with it
_CROSS[:3, :3] = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / math.sqrt(3)
_EYE = torch.eye(4, dtype=torch.float64)


def brightnesses(amount: torch.Tensor) -> torch.Tensor:
    """Add (N,) amounts to every colour."""
    matrices = _EYE.repeat(len(amount), 1, 1)
    matrices[:, :3, 3] = amount[:, None]
    return matrices


def contrasts(factor: torch.Tensor) -> torch.Tensor:
    """Multiply the distance from middle grey by (N,) factors."""
    matrices = _EYE.repeat(len(factor), 1, 1)
    for k in range(3):
        matrices[:, k, k] = factor
    return matrices


def luma_flips(flipped: torch.Tensor) -> torch.Tensor:
    """Mirror the luma axis at middle grey where `flipped`, bool (N,): light becomes dark, the hue stays."""
    return _EYE - 2 * _LUMA * flipped.double()[:, None, None]


def hue_turns(angles: torch.Tensor) -> torch.Tensor:
    """Rotate by (N,) radians about the luma axis (Rodrigues' formula); 2 pi / 3 takes red to green to blue."""
    cosine, sine = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    around = torch.eye(4, dtype=torch.float64)
    around[3, 3] = 0.0
    matrices = _LUMA + (around - _LUMA) * cosine + _CROSS * sine
    matrices[:, 3, 3] = 1.0
    return torch.where((angles == 0)[:, None, None], _EYE, matrices)  # no turn is the identity to the last bit


def saturations(factor: torch.Tensor) -> torch.Tensor:
    """Multiply the distance from the luma axis by (N,) factors: 0 is grey."""
    matrices = _LUMA + (_EYE - _LUMA) * factor[:, None, None]
    matrices[:, 3, 3] = 1.0
    return torch.where((factor == 1)[:, None, None], _EYE, matrices)


def recolour(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Apply matrices (N, 4, 4) to the colours of images, (N, C, H, W) in -1..1; values may leave that range.

    C = 3: red, green, blue. C = 4: alpha stays. C = 1: grey is taken as red = green = blue, and the mean of what
    becomes of the three is kept; so brightness, contrast and luma flip act, hue and saturation do not.
    """
    moves = matrices[:, :3].to(images)
    if images.shape[1] == 1:
        gain, offset = moves[:, :, :3].sum(2).mean(1), moves[:, :, 3].mean(1)
        return images * gain[:, None, None, None] + offset[:, None, None, None]
    colours = torch.baddbmm(moves[:, :, 3:], moves[:, :, :3], images[:, :3].flatten(2)).unflatten(2, images.shape[2:])
    return torch.cat((colours, images[:, 3:]), 1) if images.shape[1] == 4 else colours
