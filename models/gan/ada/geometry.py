"""Plane transforms as homogeneous matrices, float64 (N, 3, 3), on the CPU.

They take a place in the picture before to its place after: column vectors (x, y, 1) in pixels from the picture's
centre, x to the right, y down. Later transforms multiply from the left. N values make N matrices.
"""

import torch


def _matrices(count: int) -> torch.Tensor:
    return torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)


def translations(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """By `x` pixels to the right and `y` pixels down, (N,) each."""
    matrices = _matrices(len(x))
    matrices[:, 0, 2] = x
    matrices[:, 1, 2] = y
    return matrices


def scalings(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """By the factors `x` and `y`, (N,) each, about the centre: over 1 enlarges, -1 mirrors."""
    matrices = _matrices(len(x))
    matrices[:, 0, 0] = x
    matrices[:, 1, 1] = y
    return matrices


def _turns(cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    matrices = _matrices(len(cosine))
    matrices[:, 0, 0] = cosine
    matrices[:, 0, 1] = sine  # y points down, so this sign turns as a reader sees it
    matrices[:, 1, 0] = -sine
    matrices[:, 1, 1] = cosine
    return matrices


def rotations(angles: torch.Tensor) -> torch.Tensor:
    """Counterclockwise, as one sees it, by (N,) radians about the centre. An angle of 0 gives exactly the identity."""
    return _turns(torch.cos(angles), torch.sin(angles))


def quarter_turns(quarters: torch.Tensor) -> torch.Tensor:
    """Counterclockwise by whole quarters, int64 (N,), as numpy.rot90 counts them; every entry is exactly -1, 0 or 1."""
    cosine = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64)
    sine = torch.tensor([0.0, 1.0, 0.0, -1.0], dtype=torch.float64)
    return _turns(cosine[quarters % 4], sine[quarters % 4])


def from_corner(matrices: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """The same transforms (N, 3, 3) with the origin in the middle of the top left pixel instead of the centre."""
    x = torch.full((len(matrices),), (width - 1) / 2, dtype=torch.float64)
    y = torch.full((len(matrices),), (height - 1) / 2, dtype=torch.float64)
    return translations(x, y) @ matrices @ translations(-x, -y)
