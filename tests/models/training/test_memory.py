import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from models.training.config import DeviceChoice, TrainingConfig
from models.training.memory import Allocations, describe_config
from models.training.presets import resolve_preset

ROOT = Path(__file__).parents[3]

MEASURE = """
import sys
import torch
from models.training.algorithm import TrainingBatch, build_algorithm
from models.training.config import TrainingConfig
from models.training.ema import ExponentialMovingAverage
from models.training.peak_memory import peak_memory_gb

config = TrainingConfig.model_validate_json(sys.argv[1])
torch.nn.functional.conv2d(torch.randn(1, 8, 16, 16, requires_grad=True), torch.randn(8, 8, 3, 3)).sum().backward()
before = peak_memory_gb()
rng = torch.Generator().manual_seed(0)
algorithm = build_algorithm(config, torch.device("cpu"), rng)
average = ExponentialMovingAverage(algorithm.networks()["G"], 1000.0, None)
images = torch.zeros(config.batch, config.channels, config.height, config.width, dtype=torch.uint8)
for _ in range(2):
    algorithm.step(TrainingBatch(images, None, 0, config.batch, 0), rng)
    average.update(algorithm.networks()["G"], config.batch, config.batch)
print(peak_memory_gb() - before)
"""

EVERY_PHASE = {"path_interval": 1, "r1_interval": 1, "augment": "none"}


@pytest.fixture
def small() -> TrainingConfig:
    """16 px with every phase in every step."""
    return resolve_preset("stylegan2-demo", {"resolution": 16, "batch": 32, "device": "cpu", "algorithm": EVERY_PHASE})


@pytest.mark.skipif(sys.platform != "linux", reason="the heap is another elsewhere")
@pytest.mark.parametrize(("preset", "changes"), [("stylegan2-demo", EVERY_PHASE), ("r3gan-demo", {"augment": "none"})])
def test_the_estimate_is_near_the_peak_of_a_training(preset: str, changes: dict[str, Any]) -> None:
    larger = resolve_preset(preset, {"batch": 32, "device": "cpu", "algorithm": changes})  # 32 px
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, larger.model_dump_json()],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert describe_config(larger).peak_gb == pytest.approx(float(done.stdout), rel=0.25)


def test_a_live_tensor_counts_until_its_last_user_is_gone() -> None:
    with Allocations() as allocations:
        a = torch.empty(1000, device="meta", requires_grad=True)
        assert allocations.live == 4000
        view = a[10:]
        doubled = a * 2
        assert allocations.live == 8000
        result = doubled.exp().sum()  # exp keeps its own output for the backward pass
        del doubled
        assert allocations.live == 8004
        result.backward()
        del result
        assert allocations.live == 8000  # a and its gradient
        del a, view
        assert allocations.live == 0
        assert allocations.peak >= 12004
        b = torch.empty(50, device="meta")  # may get the address of one that is gone
        assert allocations.live == 200
        del b


def test_kept_memory_is_weights_moments_and_the_average(small: TrainingConfig) -> None:
    summary = describe_config(small)
    expected = 4 * (4 * summary.generator_parameters + 3 * summary.discriminator_parameters)
    assert summary.kept_gb * 1e9 == pytest.approx(expected, rel=0.1)  # and buffers
    assert summary.tensors_gb > summary.kept_gb


def test_smaller_parts_take_less_and_half_precision_too(small: TrainingConfig) -> None:
    whole = describe_config(small)
    parts = describe_config(small.model_copy(update={"micro_batch": 8}))
    assert (whole.at_once, parts.at_once) == (32, 8)
    assert parts.tensors_gb - parts.kept_gb < 0.4 * (whole.tensors_gb - whole.kept_gb)
    assert describe_config(small, world=4).tensors_gb == pytest.approx(parts.tensors_gb, rel=0.1)
    half = TrainingConfig.model_validate({**small.model_dump(), "precision": "bfloat16"})
    assert describe_config(half).tensors_gb < 0.85 * whole.tensors_gb


def test_published_sizes_are_found_without_memory_for_them() -> None:
    """The sizes of StyleGAN2-ADA's automatic configuration at 64 px."""
    config = resolve_preset("stylegan2-ada", {"resolution": 64, "batch": 4, "device": "cpu"})
    summary = describe_config(config)
    assert summary.generator_parameters / 1e6 == pytest.approx(22.24, abs=0.01)
    assert summary.discriminator_parameters / 1e6 == pytest.approx(23.41, abs=0.01)
    assert "22.24 M" in summary.lines()[0]


def test_augmentation_is_counted(small: TrainingConfig) -> None:
    augmented = small.algorithm.model_copy(update={"augment": "ada"})
    both = describe_config(small), describe_config(small.model_copy(update={"algorithm": augmented}))
    assert both[1].tensors_gb > both[0].tensors_gb


def test_on_a_gpu_the_estimate_is_that_of_the_tensors(small: TrainingConfig) -> None:
    summary = describe_config(small.model_copy(update={"device": DeviceChoice.CUDA}))
    assert summary.peak_gb == summary.tensors_gb
    assert summary.tensors_gb < describe_config(small).tensors_gb  # half precision is the default there


def test_the_dcgan_is_summed_up_as_well() -> None:
    summary = describe_config(resolve_preset("dcgan-demo", {"device": "cpu"}))
    assert summary.generator_parameters > summary.discriminator_parameters > 100_000
    expected = 4 * (5 * summary.generator_parameters + 4 * summary.discriminator_parameters)  # keeps its gradients
    assert summary.kept_gb * 1e9 == pytest.approx(expected, rel=0.1)
    assert 0.1 < summary.peak_gb < 0.2
