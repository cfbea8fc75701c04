"""StyleGAN2-ADA on faces that were drawn, curated and published here: the whole way, for two thousand pictures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.booru.board import draw_board
from datasets.store import Store
from datasets.version import read_version
from models.training.run import RunFolder
from models.weights import weight_status
from tasks.build import BuildResult
from tasks.train import TrainParams, open_training, plan_training, run_training

Build = Callable[..., BuildResult]

# stylegan2-demo, a little narrower and with an augmentation that follows faster: a minute instead of several
SMALLER = {"channel_max": 32, "z_dim": 32, "w_dim": 32, "ada_kimg": 5.0}


@pytest.fixture
def faces(tmp_path: Path, store: Store, build: Build) -> Store:
    """A store with a version of 32 px faces of a drawn board."""
    status = weight_status("lbpcascade-animeface")
    if status.state != "ok":
        (pytest.fail if os.environ.get("CI") else pytest.skip)(status.message)
    draw_board(tmp_path / "board", posts=60, seed=5, workers=2)
    source = {"source.kind": "danbooru", "source.root": str(tmp_path / "board")}
    result = build(**source, **{"crop.method": "face", "crop.detector": "lbp", "upscale.size": 32})
    assert result.counts["upscale"]["kept"] > 20
    return store


def grid(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, np.float64)


def test_stylegan2_ada_trains_on_curated_faces(faces: Store) -> None:
    params = TrainParams.model_validate({"preset": "stylegan2-demo", "kimg": 2, "algorithm": SMALLER})
    training = open_training(plan_training(faces, "faces", params))
    result = run_training(training)
    run = RunFolder(result.run_folder)
    stats = list(run.read_stats())
    assert result.nimg >= 2000 and not result.stopped
    assert all(math.isfinite(value) for line in stats for value in line.values())
    assert {"loss_G", "loss_D", "r1", "path_length", "ada_p", "sign_D_real", "diversity"} <= stats[-1].keys()
    assert stats[-1]["ada_p"] > 0  # so small a set is soon known by heart: ADA sees it, and augments
    first, last = grid(run.fakes_file(0)), grid(max(run.fakes.glob("*.png")))
    assert np.abs(first - last).mean() > 10
    reals = grid(run.reals_file).mean(axis=(0, 1))
    assert np.abs(last.mean(axis=(0, 1)) - reals).mean() < np.abs(first.mean(axis=(0, 1)) - reals).mean()
    config = json.loads(run.config_file.read_text(encoding="utf-8"))
    assert config["dataset"]["digest"] == training.dataset.digest == read_version(faces, "faces").content_digest
