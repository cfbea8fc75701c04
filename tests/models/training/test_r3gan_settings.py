"""What R3GAN is told: settings that go together, presets with their lengths, and what a step of them will need."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from models.training.config import Precision, R3GANConfig, TrainingConfig
from models.training.memory import describe_config
from models.training.networks import resolve_precision
from models.training.presets import resolve_preset
from models.training.schedules import average_half_life, r3gan_moment


def test_half_precision_is_bfloat16_wherever_it_is() -> None:
    config = TrainingConfig(algorithm=R3GANConfig())
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert resolve_precision(config.precision, cuda, config.gpu_precision) is torch.bfloat16
    assert resolve_precision(config.precision, cpu, config.gpu_precision) is None
    assert TrainingConfig().gpu_precision is Precision.FLOAT16


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"precision": "float16"}, "float16 would overflow: use precision auto or bfloat16"),
        ({"algorithm": {"name": "r3gan", "channel_max": 60}}, "that of side 4 would have 60"),
        ({"algorithm": {"name": "r3gan", "channel_base": 768}}, "that of side 64 would have 12"),
        ({"algorithm": {"name": "r3gan", "freeze_d": 2}}, "freeze_d"),
        ({"algorithm": {"name": "r3gan", "augment": "ada"}}, "'scheduled', 'fixed' or 'none'"),
        ({"batch": 10, "micro_batch": 4}, "divide the batch"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainingConfig.model_validate({"algorithm": {"name": "r3gan"}} | wrong)


@pytest.mark.parametrize(
    ("name", "resolution", "gamma", "p", "batch", "half_life"),
    [
        ("r3gan-64", 64, 2, 0.3, 256, 500),
        ("r3gan-128", 128, 17, 0.3, 256, 500),
        ("r3gan-256", 256, 150, 0.3, 256, 500),
        ("r3gan-cifar", 32, 0.05, 0.55, 512, 5000),
    ],
)
def test_published_settings(name: str, resolution: int, gamma: float, p: float, batch: int, half_life: float) -> None:
    config = resolve_preset(name)
    algorithm = config.algorithm
    assert isinstance(algorithm, R3GANConfig)
    assert (config.resolution, config.batch, config.ema_half_life_kimg) == (resolution, batch, half_life)
    assert (algorithm.r1_gamma, algorithm.augment_p, algorithm.schedule_kimg) == (gamma, p, 20_000)
    assert (algorithm.learning_rate, algorithm.beta2, algorithm.beta2_end) == (2e-4, 0.9, 0.99)
    assert config.ema_ramp_up is None


@pytest.mark.parametrize(
    ("name", "changes", "schedule", "half_life"),
    [
        ("r3gan-64", {"kimg": 300}, 300, 7.5),
        ("r3gan-cifar", {"kimg": 300}, 300, 75),
        ("r3gan-demo", {}, 24, 2),
        ("r3gan-demo", {"kimg": 48}, 48, 4),
        ("r3gan-64", {"kimg": 300, "algorithm": {"schedule_kimg": 20_000}}, 20_000, 500),  # the long one's beginning
        ("r3gan-256", {"kimg": 300, "ema_half_life_kimg": 20}, 300, 20),
    ],
)
def test_a_short_training_has_a_short_schedule(
    name: str, changes: dict[str, Any], schedule: float, half_life: float
) -> None:
    config = resolve_preset(name, changes)
    assert isinstance(config.algorithm, R3GANConfig)
    assert (config.algorithm.schedule_kimg, config.ema_half_life_kimg) == (schedule, half_life)
    whole = max(schedule, config.kimg) * 1000
    assert average_half_life(config, int(whole)) == half_life * 1000
    assert r3gan_moment(config.algorithm, int(whole)).augment_p == config.algorithm.augment_p


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kimg": 0}, r"^1 validation error.*\nkimg\n"),
        ({"kimg": "long"}, r"^1 validation error.*\nkimg\n"),
        ({"algorithm": {"schedule_kimg": "long"}}, r"^1 validation error.*\nalgorithm\.r3gan\.schedule_kimg\n"),
        ({"ema_half_life_kimg": -1}, r"^1 validation error.*\nema_half_life_kimg\n"),
    ],
)
def test_a_wrong_length_is_named_once(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        resolve_preset("r3gan-64", changes)


def test_a_step_is_rehearsed_with_both_penalties() -> None:
    config = resolve_preset("r3gan-demo", {"batch": 16, "device": "cpu", "resolution": 16})
    whole = describe_config(config)
    expected = 4 * (4 * whole.generator_parameters + 3 * whole.discriminator_parameters)
    assert whole.kept_gb * 1e9 == pytest.approx(expected, rel=0.02)
    parts = describe_config(config.model_copy(update={"micro_batch": 4}))
    assert (parts.at_once, parts.part_step) == (4, 1)
    assert parts.tensors_gb - parts.kept_gb < 0.4 * (whole.tensors_gb - whole.kept_gb)
    bare = config.algorithm.model_copy(update={"augment": "none"})
    assert describe_config(config.model_copy(update={"algorithm": bare})).tensors_gb < whole.tensors_gb
