import math

import pytest
import torch

from models.gan.penalties import gradient_penalty, path_lengths, path_penalty


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_r1_of_a_quadratic_discriminator_is_known(rng: torch.Generator) -> None:
    """D(x) = a/2 |x|^2 + b . x has the gradient a x + b."""
    reals = torch.randn(3, 2, 4, 5, generator=rng, dtype=torch.float64).requires_grad_()
    slope = torch.randn(2, 4, 5, generator=rng, dtype=torch.float64)
    curvature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    logits = (curvature / 2 * reals.square() + slope * reals).sum(dim=(1, 2, 3))

    penalty = gradient_penalty(logits, reals)

    gradient = 0.7 * reals.detach() + slope
    assert penalty.shape == (3,)
    torch.testing.assert_close(penalty.detach(), gradient.square().sum(dim=(1, 2, 3)))
    # its own derivative: d/da |a x + b|^2 = 2 (a x + b) . x
    penalty.sum().backward()
    assert curvature.grad is not None
    torch.testing.assert_close(curvature.grad, (2 * gradient * reals.detach()).sum())


def test_r1_sees_each_picture_alone(rng: torch.Generator) -> None:
    reals = torch.randn(4, 1, 3, 3, generator=rng).requires_grad_()
    logits = reals.pow(3).sum(dim=(1, 2, 3)) * torch.tensor([1.0, 0.0, 2.0, -1.0])
    penalty = gradient_penalty(logits, reals)
    assert penalty[1] == 0
    expected = (3 * reals.detach()[2].square() * 2).square().sum()
    torch.testing.assert_close(penalty[2].detach(), expected)


def test_path_length_of_a_linear_synthesis_is_known(rng: torch.Generator) -> None:
    """images = A w_k summed over layers: J^T y = A^T y for each layer, whose mean square over layers is its own."""
    count, layers, w_dim, shape = 5, 3, 7, (2, 4, 6)
    matrix = torch.randn(math.prod(shape), w_dim, generator=rng, dtype=torch.float64)
    ws = torch.randn(count, layers, w_dim, generator=rng, dtype=torch.float64).requires_grad_()
    noise = torch.randn(count, *shape, generator=rng, dtype=torch.float64)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    images = scale * (ws.sum(dim=1) @ matrix.T).reshape(count, *shape)

    lengths = path_lengths(images, ws, noise)

    expected = (noise.reshape(count, -1) @ matrix / (4 * 6) ** 0.5).norm(dim=1)
    torch.testing.assert_close(lengths.detach(), expected)
    # the length is proportional to the scale, so the penalty's derivative is known too
    path_penalty(lengths, torch.tensor(2.0, dtype=torch.float64)).sum().backward()
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad, (2 * (expected - 2.0) * expected).sum())


def test_path_length_averages_over_layers(rng: torch.Generator) -> None:
    """Only one of four layers moves the picture: half the length of one that all four move alike."""
    ws = torch.randn(2, 4, 6, generator=rng).requires_grad_()
    noise = torch.randn(2, 1, 2, 3, generator=rng)
    one = path_lengths(ws[:, 0].reshape(2, 1, 2, 3), ws, noise)
    torch.testing.assert_close(one.detach(), noise.flatten(1).norm(dim=1) / 6**0.5 / 2)


def test_path_length_of_an_orthogonal_map_does_not_depend_on_resolution(rng: torch.Generator) -> None:
    """y is scaled by the root of the pixels: a nearest-neighbour enlargement, whose columns grow, keeps its length."""
    lengths = []
    for factor in (1, 8):
        ws = torch.randn(512, 1, 16, generator=rng).requires_grad_()
        images = ws.reshape(512, 1, 4, 4).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        lengths.append(path_lengths(images, ws, torch.randn(images.shape, generator=rng)).detach().mean())
    torch.testing.assert_close(lengths[0], lengths[1], rtol=0.03, atol=0.0)
