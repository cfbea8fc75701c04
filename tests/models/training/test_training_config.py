import subprocess
import sys

import pytest
from pydantic import ValidationError

from models.gan.ada.pipeline import PRESETS as PIPES
from models.training.config import DCGANConfig, R3GANConfig, StyleGAN2Config, TrainingConfig, differences


def test_defaults_are_the_write_up() -> None:
    algorithm = TrainingConfig().algorithm
    assert (algorithm.z_dim, algorithm.learning_rate, algorithm.betas) == (200, 2e-4, (0.5, 0.999))
    assert algorithm.label_swap == 0.03
    assert TrainingConfig().resolution == 64


@pytest.mark.parametrize(
    "wrong",
    [
        {"resolution": 60},
        {"batch": 1},
        {"kimg": 0},
        {"tick_kimg": 0.01},
        {"algorithm": {"betas": (0.5, 1.0)}},
        {"algorithm": {"real_labels": (1.2, 0.7)}},
        {"algorithm": {"label_swap": 0.5}},
        {"algorithm": {"name": "stylegan9"}},
        {"batchsize": 4},
    ],
)
def test_wrong_settings_are_refused_before_any_work(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate(wrong)


STYLE = {"name": "stylegan2"}


def test_sides_follow_from_the_longer_one_and_the_smallest_map() -> None:
    config = TrainingConfig(algorithm=StyleGAN2Config(), resolution=512, aspect=(3, 4))
    assert (config.height, config.width) == (384, 512)
    assert (TrainingConfig().height, TrainingConfig().width) == (64, 64)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"algorithm": STYLE, "resolution": 384, "aspect": (3, 4)}, "times a power of two"),
        ({"algorithm": STYLE, "resolution": 8}, "at least 16"),
        ({"algorithm": STYLE, "batch": 32, "micro_batch": 6}, "divide the batch"),
        ({"algorithm": STYLE, "batch": 12, "micro_batch": 6}, "multiple of 4"),
        ({"aspect": (3, 4)}, r"aspect must be \(4, 4\)"),
        ({"channels": 4}, "channels must be 1 or 3"),
        ({"labels": 5}, "labels must be 0"),
        ({"batch": 8, "micro_batch": 4}, "batch norm needs the whole batch"),
    ],
)
def test_what_does_not_go_together_is_said(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainingConfig.model_validate(wrong)


@pytest.mark.parametrize(
    ("config", "names"), [(StyleGAN2Config, list(PIPES)), (R3GANConfig, [name for name in PIPES if name != "none"])]
)
def test_the_augmentations_there_are_can_be_asked_for_and_no_other(
    config: type[StyleGAN2Config | R3GANConfig], names: list[str]
) -> None:
    assert [config.model_validate({"augment_pipe": name}).augment_pipe for name in names] == names
    for wrong in {"xyz", "cgb", "none"} - set(names):
        with pytest.raises(ValidationError, match=r"augment_pipe\n.*'bg', 'bgc'"):
            config.model_validate({"augment_pipe": wrong})


def test_a_config_from_before_stylegan2_is_read_as_it_was() -> None:
    new = {"aspect", "labels", "micro_batch", "precision", "compile", "transfer"}
    old = TrainingConfig().model_dump(mode="json", exclude=new)
    for field in ("kernel", "dropout", "optimiser", "clip_weights"):
        del old["algorithm"][field]
    assert TrainingConfig.model_validate(old) == TrainingConfig()


def test_a_resumed_run_may_go_on_longer_but_not_be_another() -> None:
    config = TrainingConfig()
    assert differences(config, config.model_copy(update={"kimg": 9000.0, "tick_kimg": 1.0})) == []
    wider = config.model_copy(update={"algorithm": DCGANConfig(width=96)})
    assert len(differences(config, wider)) == 1
    assert "algorithm" in differences(config, wider)[0]


def test_a_config_is_read_without_torch() -> None:
    code = "import sys, models.training.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
