import pytest
import torch

from models.gan.losses import discriminator_loss, draw_labels, generator_loss


def draw(swap: float) -> torch.Tensor:
    return draw_labels(20_000, (0.7, 1.2), (0.0, 0.3), swap, torch.Generator().manual_seed(0))


def test_soft_labels_fill_their_range() -> None:
    labels = draw(swap=0.0)
    assert labels.min() >= 0.7
    assert labels.max() <= 1.2
    assert labels.mean().item() == pytest.approx(0.95, abs=0.01)


def test_three_percent_are_swapped() -> None:
    swapped = draw(swap=0.03) <= 0.3
    assert swapped.float().mean().item() == pytest.approx(0.03, abs=0.005)


def test_losses_against_their_formulas() -> None:
    logits, labels = torch.tensor([0.5, -2.0]), torch.tensor([0.9, 0.1])
    p = torch.sigmoid(logits)
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    assert torch.allclose(discriminator_loss(logits, labels), expected)
    assert torch.allclose(generator_loss(logits), -p.log().mean())


def test_generator_loss_does_not_saturate() -> None:
    logits = torch.tensor([-20.0], requires_grad=True)
    generator_loss(logits).backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-1.0, abs=1e-3)
