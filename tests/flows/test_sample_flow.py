"""The sample flow on a real server: figures and progress on the run's page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import flows.sample
from flows.sample import SHOWN_BYTES, sample
from models.gan.stylegan2 import initialise
from models.training.config import DatasetRef, DeviceChoice, StyleGAN2Config, TrainingConfig
from models.training.networks import build_generator
from models.training.run import RunFolder
from models.training.snapshot import save_snapshot
from tasks.sample import SampleParams

pytestmark = pytest.mark.prefect


def test_figures_and_progress_are_artifacts(
    tmp_path: Path,
    prefect_api: Any,
    read_artifacts: Callable[[Any], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    algorithm = StyleGAN2Config(z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    config = TrainingConfig(algorithm=algorithm, resolution=16, channels=4, device=DeviceChoice.CPU)
    network = build_generator(config)
    initialise(network, torch.Generator().manual_seed(0))
    dataset = DatasetRef("blobs", 1, "0" * 64, 10)
    folder = RunFolder(tmp_path / "elsewhere")
    folder.write_config(config, dataset, torch.device("cpu"))
    save_snapshot(folder.snapshots, 0, config, dataset, {"G_ema": network}, {})
    monkeypatch.setattr(flows.sample, "SECONDS_BETWEEN_REPORTS", 0.0)

    params = SampleParams(seeds="0-7", psi_sweep=True, mix="0-1:2", walk_seconds=0.2, cell=256)
    state = sample(str(folder.path), params, tmp_path / "store", str(tmp_path / "out"), return_state=True)
    made = state.result()
    assert list(made) == ["grid", "psi-sweep", "mixing", "walk"]
    artifacts = read_artifacts(state)
    shown = artifacts["samples"].data
    for name in ("grid", "psi-sweep", "mixing"):
        assert f"![{name}](data:image/jpeg;base64," in shown
    assert all(f"`{path}`" in shown for path in made.values())
    assert len(shown) < 1.5 * SHOWN_BYTES
    assert float(artifacts["sampling"].data) == 100.0
