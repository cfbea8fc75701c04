"""`kaobako sample` on the command line, without Prefect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.gan.stylegan2 import initialise
from models.training.config import DatasetRef, DeviceChoice, StyleGAN2Config, TrainingConfig
from models.training.networks import build_generator
from models.training.run import RunFolder
from models.training.snapshot import save_snapshot


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder outside any store: a StyleGAN2 of 16 pixels that was never trained."""
    algorithm = StyleGAN2Config(z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    config = TrainingConfig(algorithm=algorithm, resolution=16, device=DeviceChoice.CPU)
    network = build_generator(config)
    initialise(network, torch.Generator().manual_seed(0))
    dataset = DatasetRef("blobs", 1, "0" * 64, 10)
    folder = RunFolder(tmp_path / "elsewhere")
    folder.write_config(config, dataset, torch.device("cpu"))
    save_snapshot(folder.snapshots, 0, config, dataset, {"G_ema": network}, {})
    return folder.path


def test_every_output_of_a_run_folder_anywhere(kaobako: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    said = kaobako(
        *("sample", run, "--store", tmp_path / "store", "--no-prefect", "--json", "--out", out, "--seeds", "0-3"),
        *("--trunc", ".5", "--trunc-layers", "3", "--images", "--psi-sweep", "--psis", "-1,0,1", "--mix", "0-1:2-3"),
        *("--mix-layers", "middle", "--walk-path", "slerp", "--walk-seconds", "0.2", "--noise", "random", "--even"),
    )
    assert said.code == 0, said.err
    made = json.loads(said.out)
    assert made == {
        "grid": f"{out}/grid.png",
        "images": f"{out}/images",
        "psi-sweep": f"{out}/psi-sweep.png",
        "mixing": f"{out}/mixing.png",
        "walk": f"{out}/walk.mp4",
    }
    assert all(Path(path).exists() for path in made.values())
    assert sorted(path.name for path in (out / "images").iterdir()) == [f"seed-{k:08d}.png" for k in range(4)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--trunc-layers", "99"), "--trunc-layers must be 1 to 6"),
        (("--mix", "0-3"), "rows and of columns"),
        (("--seeds", "x"), "cannot read seeds"),
        (("--mix", "0:1", "--mix-layers", "fine"), "no fine layers"),
        (("--no-grid", "--no-walk"), "nothing to make"),
        (("--class", "1"), "without labels"),
    ],
)
def test_refusals_are_one_line(
    kaobako: Callable[..., Any], run: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    told = kaobako("sample", run, "--store", tmp_path / "store", "--no-prefect", *options)
    assert told.code == 1
    assert told.err.startswith("error: ")
    assert said in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not (run / "samples").exists()
