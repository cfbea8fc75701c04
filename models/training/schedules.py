"""Settings that change in the course of a training: functions of the pictures seen so far alone, so a resume is exact.

Imports no torch.
"""

import math
from dataclasses import dataclass

from models.training.config import R3GANConfig, TrainingConfig


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` (progress 0) to `end` (1 and beyond) along half a period of a cosine: level at both ends."""
    share = (1 - math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
    return start + (end - start) * share


@dataclass(frozen=True)
class R3GANMoment:
    """What R3GAN's schedules say at one moment (arXiv:2501.05441, appendix on hyper-parameters)."""

    learning_rate: float  # of both networks
    beta2: float  # of Adam
    gamma: float  # weight of R1, and of R2
    augment_p: float  # 0..1


def r3gan_moment(config: R3GANConfig, nimg: int) -> R3GANMoment:
    """The settings of a step before which `nimg` pictures were seen."""
    progress = _progress(config, nimg)
    p = {"scheduled": cosine(0.0, config.augment_p, progress), "fixed": config.augment_p, "none": 0.0}
    return R3GANMoment(
        learning_rate=cosine(config.learning_rate, config.learning_rate * config.learning_rate_fall, progress),
        beta2=cosine(config.beta2, config.beta2_end, progress),
        gamma=cosine(config.r1_gamma, config.r1_gamma * config.gamma_fall, progress),
        augment_p=p[config.augment],
    )


def average_half_life(config: TrainingConfig, nimg: int) -> float:
    """Half-life of the average of G's weights, in pictures, in a step before which `nimg` pictures were seen.

    R3GAN's rises from 0, which forgets a random start. An average that was taken over is not one: it is kept, by the
    whole half-life in every step.
    """
    whole = config.ema_half_life_kimg * 1000
    if isinstance(config.algorithm, R3GANConfig) and config.transfer is None:
        return cosine(0.0, whole, _progress(config.algorithm, nimg))
    return whole


def _progress(config: R3GANConfig, nimg: int) -> float:
    return nimg / (config.schedule_kimg * 1000)
