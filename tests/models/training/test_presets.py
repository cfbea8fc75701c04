import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from models.training.config import DCGANConfig, StyleGAN2Config, TrainingConfig
from models.training.presets import PRESETS, preset_names, resolve_preset


def stylegan2(config: TrainingConfig) -> StyleGAN2Config:
    assert isinstance(config.algorithm, StyleGAN2Config)
    return config.algorithm


@pytest.mark.parametrize("name", preset_names())
def test_every_row_resolves_and_survives_json(name: str) -> None:
    config = resolve_preset(name)
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config
    assert "\n" not in PRESETS[name].about


@pytest.mark.parametrize(
    ("resolution", "world", "batch", "gamma", "base", "rate", "half_life"),
    [  # the figures that StyleGAN2-ADA's automatic configuration is known for
        (64, 1, 32, 0.0256, 16384, 0.0025, 10.0),
        (128, 1, 32, 0.1024, 16384, 0.0025, 10.0),
        (256, 1, 16, 0.8192, 16384, 0.0025, 5.0),
        (512, 1, 8, 6.5536, 32768, 0.0025, 2.5),
        (1024, 1, 4, 52.4288, 32768, 0.002, 1.25),
        (256, 8, 64, 0.2048, 16384, 0.0025, 20.0),
        (1024, 8, 32, 6.5536, 32768, 0.002, 10.0),
        (256, 5, 60, 0.2184533, 16384, 0.0025, 18.75),  # 64 cannot be shared by five
    ],
)
def test_automatic_settings(
    resolution: int, world: int, batch: int, gamma: float, base: int, rate: float, half_life: float
) -> None:
    config = resolve_preset("stylegan2-ada", {"resolution": resolution}, world)
    algorithm = stylegan2(config)
    assert config.batch == batch
    assert algorithm.r1_gamma == pytest.approx(gamma, rel=1e-6)
    assert (algorithm.channel_base, algorithm.learning_rate) == (base, rate)
    assert config.ema_half_life_kimg == pytest.approx(half_life)
    assert (algorithm.mapping_layers, algorithm.mbstd_group) == (2, 4)
    assert (algorithm.augment, algorithm.augment_pipe) == ("ada", "bgc")


def test_what_is_given_wins_and_the_rest_follows_from_it() -> None:
    config = resolve_preset("stylegan2-ada", {"resolution": 128, "batch": 8, "algorithm": {"mapping_layers": 8}})
    algorithm = stylegan2(config)
    assert (config.batch, algorithm.mapping_layers) == (8, 8)
    assert algorithm.r1_gamma == pytest.approx(0.0002 * 128 * 128 / 8)
    own = resolve_preset("stylegan2-ada", {"resolution": 128, "algorithm": {"r1_gamma": 3.0}})
    assert (stylegan2(own).r1_gamma, own.batch) == (3.0, 32)


def test_gamma_follows_the_pixels_of_a_picture_that_is_not_square() -> None:
    config = resolve_preset("stylegan2-ada", {"resolution": 512, "aspect": (4, 3)})
    assert (config.height, config.width) == (512, 384)
    assert stylegan2(config).r1_gamma == pytest.approx(0.0002 * 512 * 384 / config.batch)


@pytest.mark.parametrize(("changes", "group"), [({"batch": 2}, 2), ({"batch": 16, "micro_batch": 4}, 4), ({}, 4)])
def test_minibatch_groups_fit_into_what_is_computed_at_once(changes: dict[str, Any], group: int) -> None:
    assert stylegan2(resolve_preset("stylegan2-ada", changes)).mbstd_group == group


def test_a_transfer_has_no_ramp_and_a_faster_augmentation() -> None:
    config = resolve_preset("stylegan2-ada", {"transfer": "a" * 64})
    assert config.ema_ramp_up is None
    assert stylegan2(config).ada_kimg == 100
    own = resolve_preset("stylegan2-ada", {"transfer": "a" * 64, "ema_ramp_up": 0.1, "algorithm": {"ada_kimg": 300}})
    assert (own.ema_ramp_up, stylegan2(own).ada_kimg) == (0.1, 300)
    assert stylegan2(resolve_preset("stylegan2", {"transfer": "a" * 64})).ada_kimg == 500


@pytest.mark.parametrize(
    ("name", "batch", "group", "base", "rate", "gamma", "half_life", "mapping"),
    [
        ("stylegan2", 32, 4, 32768, 0.002, 10, 10, 8),
        ("stylegan2-paper256", 64, 8, 16384, 0.0025, 1, 20, 8),
        ("stylegan2-paper512", 64, 8, 32768, 0.0025, 0.5, 20, 8),
        ("stylegan2-paper1024", 32, 4, 32768, 0.002, 2, 10, 8),
        ("stylegan2-cifar", 64, 32, 32768, 0.0025, 0.01, 500, 2),
    ],
)
def test_published_settings(
    name: str, batch: int, group: int, base: int, rate: float, gamma: float, half_life: float, mapping: int
) -> None:
    config = resolve_preset(name)
    algorithm = stylegan2(config)
    assert (config.batch, config.ema_half_life_kimg) == (batch, half_life)
    assert (algorithm.mbstd_group, algorithm.channel_base, algorithm.mapping_layers) == (group, base, mapping)
    assert (algorithm.learning_rate, algorithm.r1_gamma) == (rate, gamma)


def test_the_extended_model_leaves_out_what_it_was_freed_of() -> None:
    config = resolve_preset("stylegan2-ext")
    algorithm = stylegan2(config)
    assert (algorithm.path_weight, algorithm.style_mixing, algorithm.normalize_latent) == (0, 0, False)
    assert (algorithm.augment, config.mirror) == ("none", False)
    assert (algorithm.z_dim, algorithm.w_dim, algorithm.channel_max, algorithm.mapping_layers) == (1024, 1024, 1024, 4)


def test_the_write_up_is_the_dcgan_default() -> None:
    assert resolve_preset("dcgan-paintings-64") == TrainingConfig()
    wider = resolve_preset("dcgan-demo", {"algorithm": {"width": 48}, "batch": 32})
    assert isinstance(wider.algorithm, DCGANConfig)
    assert (wider.algorithm.width, wider.algorithm.learning_rate, wider.batch) == (48, 3e-4, 32)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no preset 'stylegan3'.*stylegan2-ada.*dcgan-demo"):
        resolve_preset("stylegan3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 100}, "power of two"),
        ({"resolution": 8}, "at least 16"),
        ({"batch": 1}, "batch"),
        ({"bach": 16}, "bach"),
        ({"algorithm": {"gamma": 1.0}}, "gamma"),
    ],
)
def test_wrong_changes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        resolve_preset("stylegan2-ada", changes)


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ValueError, match="20 cannot be shared out to 3 processes"):
        resolve_preset("stylegan2-ada", {"batch": 20}, world=3)


def test_presets_are_read_without_torch() -> None:
    code = (
        "import sys, models.training.presets as p; p.resolve_preset('stylegan2-ada'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
