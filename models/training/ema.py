"""Exponential moving average of a network's weights, by half-life in pictures (as in StyleGAN2-ADA and edm2)."""

import copy

import torch
from torch import nn


def ema_beta(
    batch: int,  # pictures in this step
    nimg: int,  # pictures seen, this step included
    half_life: float,  # pictures after which a weight's share has halved; 0 = no averaging
    ramp_up: float | None,  # early on, the half-life is at most this share of nimg; None = no ramp
) -> float:
    """The share that the old average keeps in one step: 0.5 ** (batch / min(half_life, ramp_up * nimg)), in 0..1.

    The ramp makes the average forget the random start quickly: a fixed half-life would show it for several
    half-lives.
    """
    effective = half_life if ramp_up is None else min(half_life, ramp_up * nimg)
    return 0.5 ** (batch / effective) if effective > 0 else 0.0


class ExponentialMovingAverage:
    """A network beside the trained one, whose parameters follow it slowly.

    Buffers are copied as they are: what a buffer means (running statistics, say) only its algorithm knows, and
    `Algorithm.settle_average` puts them right before the average is used.

    Attributes:
        half_life: in pictures; may be set before any update, where a schedule says so.
    """

    def __init__(self, network: nn.Module, half_life: float, ramp_up: float | None) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.half_life = half_life
        self.ramp_up = ramp_up

    @torch.no_grad()
    def update(self, source: nn.Module, batch: int, nimg: int) -> None:
        """Move towards `source` after a step of `batch` pictures that made it `nimg` in all."""
        share = 1 - ema_beta(batch, nimg, self.half_life, self.ramp_up)
        for average, current in zip(self.network.parameters(), source.parameters(), strict=True):
            average.lerp_(current, share)
        for kept, buffer in zip(self.network.buffers(), source.buffers(), strict=True):
            kept.copy_(buffer)
