import pytest
import torch
from torch import nn

from models.training.ema import ExponentialMovingAverage, ema_beta


def test_half_life_in_pictures() -> None:
    beta = ema_beta(batch=50, nimg=10**9, half_life=1000, ramp_up=0.05)
    assert beta ** (1000 / 50) == pytest.approx(0.5)


def test_ramp_up_shortens_the_half_life_early() -> None:
    assert ema_beta(64, 64, 10_000, 0.05) == pytest.approx(0.5**20)
    assert ema_beta(64, 10**9, 10_000, 0.05) == ema_beta(64, 10**8, 10_000, 0.05)
    assert ema_beta(64, 64, 0, 0.05) == 0.0


def test_the_average_lags_behind_and_copies_buffers() -> None:
    source = nn.BatchNorm1d(1)
    average = ExponentialMovingAverage(source, half_life=100, ramp_up=1e9)
    source.load_state_dict({**source.state_dict(), "weight": torch.tensor([3.0]), "running_mean": torch.tensor([7.0])})
    for step in range(10):
        average.update(source, batch=10, nimg=10 * (step + 1))
    state = average.network.state_dict()
    assert state["weight"].item() == pytest.approx(2.0)  # half way from 1 to 3 after one half-life
    assert state["running_mean"].item() == 7.0
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
