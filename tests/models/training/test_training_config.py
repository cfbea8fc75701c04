import subprocess
import sys

import pytest
from pydantic import ValidationError

from models.training.config import DCGANConfig, TrainingConfig, differences
from models.training.presets import PRESETS


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


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_json(name: str) -> None:
    preset = PRESETS[name]
    assert TrainingConfig.model_validate_json(preset.model_dump_json()) == preset


def test_a_resumed_run_may_go_on_longer_but_not_be_another() -> None:
    config = TrainingConfig()
    assert differences(config, config.model_copy(update={"kimg": 9000.0, "tick_kimg": 1.0})) == []
    wider = config.model_copy(update={"algorithm": DCGANConfig(width=96)})
    assert len(differences(config, wider)) == 1
    assert "algorithm" in differences(config, wider)[0]


def test_a_config_is_read_without_torch() -> None:
    code = "import sys, models.training.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
