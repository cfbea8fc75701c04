"""The losses of the DCGAN and of R3GAN.

The DCGAN's is the non-saturating logistic one (Goodfellow et al. 2014) on soft, sometimes swapped labels.

Soft labels: Salimans et al. 2016 (arXiv:1606.03498, section 3.4) smooth the label of reals; the uniform ranges
0.7..1.2 for reals and 0..0.3 for fakes are those of "How to train a GAN" (soumith/ganhacks, tip 6), as are swapped
labels for the discriminator. A target above 1 alone has no optimum, but the mean target of reals is 0.95.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, softplus


def draw_labels(
    count: int,
    own: tuple[float, float],
    other: tuple[float, float],
    swap: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Targets for one batch of one kind, float32 (count,), on the CPU.

    Each is uniform in the kind's `own` (low, high) range, or, with probability `swap`, in the `other` kind's range.
    """
    swapped = torch.rand(count, generator=generator) < swap
    position = torch.rand(count, generator=generator)
    low = torch.where(swapped, other[0], own[0])
    high = torch.where(swapped, other[1], own[1])
    return low + position * (high - low)


def discriminator_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy of logits (N,) against soft labels (N,) of one kind of batch, real or fake."""
    return binary_cross_entropy_with_logits(logits, labels)


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """Non-saturating: -log D(G(z)) with D = sigmoid(logit), averaged; the generator's labels are neither soft nor
    swapped."""
    return softplus(-fake_logits).mean()


def relativistic_loss(winners: torch.Tensor, losers: torch.Tensor) -> torch.Tensor:
    """How far each logit of `winners` (N,) is from being above its partner in `losers` (N,): float (N,), not averaged.

    The relativistic pairing loss (Jolicoeur-Martineau 2018, arXiv:1807.00734; R3GAN, arXiv:2501.05441, eq. 2), with
    f(t) = -softplus(-t): D learns with reals as winners, G with fakes.
    """
    return softplus(losers - winners)
