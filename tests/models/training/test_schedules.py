import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.config import DCGANConfig, R3GANConfig, StyleGAN2Config, TrainingConfig
from models.training.schedules import R3GANMoment, average_half_life, cosine, r3gan_moment

PAPER = R3GANConfig(r1_gamma=2.0, augment_p=0.3)  # FFHQ-64


@pytest.mark.parametrize(
    ("nimg", "expected"),
    [
        (0, R3GANMoment(2e-4, 0.9, 2.0, 0.0)),
        (10_000_000, R3GANMoment(1.25e-4, 0.945, 1.1, 0.15)),
        (20_000_000, R3GANMoment(5e-5, 0.99, 0.2, 0.3)),
        (50_000_000, R3GANMoment(5e-5, 0.99, 0.2, 0.3)),
    ],
)
def test_the_published_schedules(nimg: int, expected: R3GANMoment) -> None:
    found = r3gan_moment(PAPER, nimg)
    for name, value in vars(expected).items():
        assert getattr(found, name) == pytest.approx(value), name


def test_a_quarter_of_the_way_is_that_of_a_cosine() -> None:
    assert r3gan_moment(PAPER, 5_000_000).augment_p == pytest.approx(0.3 * (1 - math.cos(math.pi / 4)) / 2)


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(-1, 3, allow_nan=False), st.floats(-1, 3, allow_nan=False))
def test_a_schedule_stays_between_its_ends_and_never_turns_back(start: float, end: float, a: float, b: float) -> None:
    earlier, later = (cosine(start, end, progress) for progress in sorted((a, b)))
    low, high = min(start, end) - 1e-9, max(start, end) + 1e-9
    assert low <= earlier <= high and low <= later <= high
    assert (later - earlier) * (end - start) >= -1e-9


def test_a_larger_gamma_and_rate_scale_the_whole_schedule() -> None:
    doubled = PAPER.model_copy(update={"r1_gamma": 4.0, "learning_rate": 4e-4})
    for nimg in (0, 7_000_000, 20_000_000):
        one, two = r3gan_moment(PAPER, nimg), r3gan_moment(doubled, nimg)
        assert (two.gamma, two.learning_rate) == (pytest.approx(2 * one.gamma), pytest.approx(2 * one.learning_rate))


@pytest.mark.parametrize(("augment", "expected"), [("fixed", [0.3, 0.3]), ("none", [0.0, 0.0])])
def test_other_augmentations_follow_no_schedule(augment: str, expected: list[float]) -> None:
    config = PAPER.model_copy(update={"augment": augment})
    assert [r3gan_moment(config, nimg).augment_p for nimg in (0, 20_000_000)] == expected


def test_the_half_life_of_the_average_rises_for_r3gan_alone() -> None:
    config = TrainingConfig(algorithm=PAPER, ema_half_life_kimg=500.0)
    assert [average_half_life(config, nimg) for nimg in (0, 10_000_000, 20_000_000, 10**9)] == pytest.approx(
        [0, 250_000, 500_000, 500_000]
    )
    for other in (DCGANConfig(), StyleGAN2Config()):
        plain = TrainingConfig(algorithm=other, ema_half_life_kimg=10.0)
        assert [average_half_life(plain, nimg) for nimg in (0, 10**9)] == [10_000, 10_000]


def test_an_average_that_was_taken_over_is_kept_from_the_first_step() -> None:
    config = TrainingConfig(algorithm=PAPER, ema_half_life_kimg=500.0, transfer="a" * 64)
    assert [average_half_life(config, nimg) for nimg in (0, 10_000_000, 10**9)] == [500_000] * 3


def test_the_schedule_does_not_depend_on_the_length_of_the_training() -> None:
    short, long = (TrainingConfig(algorithm=PAPER, kimg=kimg) for kimg in (5.0, 30_000.0))
    assert average_half_life(short, 3_000) == average_half_life(long, 3_000) > 0


def test_schedules_are_read_without_torch() -> None:
    code = "import sys, models.training.schedules; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
