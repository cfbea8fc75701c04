"""Gradient penalties: R1 and R2 on the discriminator, path length on the generator.

Both differentiate a network's output, so that their own gradient is a second derivative: every layer in between has to
be differentiable twice, and none may run through torch.compile (its graphs refuse a second derivative).
"""

import torch


def gradient_penalty(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squared norm of D's gradient at each picture, float (N,). At reals it is R1 of Mescheder et al. 2018
    (arXiv:1801.04406), at fakes it is R2 of the same paper.

    logits: (N,) of `images`, (N, C, H, W), which require gradients. The loss is gamma / 2 times its mean. Where logits
    depend on other pictures of the batch (minibatch standard deviation), the gradient is that of their sum.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def path_lengths(images: torch.Tensor, ws: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """|J^T y| of each picture, float (N,): the path length of Karras et al. 2020 (arXiv:1912.04958, eq. 4).

    images: (N, C, H, W) synthesised from `ws`, (N, layers, w), which require gradients. noise: standard normal, of the
    images' shape; y is noise / sqrt(H * W), so that the length does not depend on the resolution. The square is
    averaged over the layers that use w.
    """
    pixels = images.shape[2] * images.shape[3]
    projected = (images * (noise / pixels**0.5)).sum()
    (gradient,) = torch.autograd.grad(projected, ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_penalty(lengths: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Squared distance of each length, (N,), from the running mean of lengths, a scalar: float (N,)."""
    return (lengths - mean).square()
