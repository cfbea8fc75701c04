"""Sampling a run: what is made, under which names, the same again; and what is refused before anything is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.errors import StoreError
from datasets.store import Store
from models.gan import dcgan, stylegan2
from models.sampling.settings import SamplingError, WalkPath
from models.training.config import DatasetRef, DCGANConfig, DeviceChoice, StyleGAN2Config, TrainingConfig
from models.training.networks import build_generator
from models.training.run import RunFolder
from models.training.snapshot import save_snapshot
from tasks.sample import SWEEP_ROWS, SampleParams, find_classes, find_run, sample_run
from tasks.train import DATA_FILE

DATASET = DatasetRef("blobs", 1, "0" * 64, 10)


def write_run(folder: Path, config: TrainingConfig, initialise: Callable[..., None]) -> Path:
    """A run that was never trained."""
    network = build_generator(config)
    initialise(network, torch.Generator().manual_seed(0))
    run = RunFolder(folder)
    run.write_config(config, DATASET, torch.device("cpu"))
    save_snapshot(run.snapshots, 0, config, DATASET, {"G_ema": network}, {})
    return folder


@pytest.fixture(scope="module")
def styles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a StyleGAN2 run, 16 x 12 pixels with three classes."""
    algorithm = StyleGAN2Config(z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    config = TrainingConfig(
        algorithm=algorithm, resolution=16, aspect=(4, 3), channels=4, labels=3, device=DeviceChoice.CPU
    )
    return write_run(tmp_path_factory.mktemp("runs") / "styles", config, stylegan2.initialise)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a DCGAN run, 16 x 16 pixels."""
    config = TrainingConfig(algorithm=DCGANConfig(z_dim=8, width=4), resolution=16, device=DeviceChoice.CPU)
    return write_run(tmp_path_factory.mktemp("runs") / "plain", config, dcgan.initialise)


def everything(**changes: Any) -> SampleParams:
    asked = {
        "seeds": "0-9",
        "columns": 5,
        "cell": 32,
        "images": True,
        "psi_sweep": True,
        "psis": "0,1",
        "mix": "0-1:2-4",
        "walk_seconds": 0.5,
        "walk_cells": 2,
        "fps": 8,
        "classes": "1",
    }
    return SampleParams.model_validate({**asked, **changes})


def test_all_that_can_be_made_is_made_and_the_same_again(styles: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    out = tmp_path / "out"
    made = sample_run(styles, everything(), out, lambda *at: seen.append(at))
    assert list(made) == ["grid", "images", "psi-sweep", "mixing", "walk"]
    assert all(Path(path).is_relative_to(out) for path in made.values())
    sizes = {}
    for name in ("grid", "psi-sweep", "mixing"):
        with Image.open(made[name]) as image:
            sizes[name] = image.size
    assert sizes["grid"] == (5 * 24, 2 * 32)
    assert sizes["mixing"] == (4 * 24 + 8, 3 * 32 + 8)
    assert sizes["psi-sweep"][1] == SWEEP_ROWS * 32 + 20
    with av.open(made["walk"]) as film:
        assert film.streams.video[0].frames == 4
    ends = [(what, total) for what, done, total in seen if done == total]
    assert ends == [("grid", 10), ("images", 10), ("psi sweep", 16), ("mixing", 11), ("walk", 8)]

    files = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    assert len(files) == 4 + 10
    for path in files:
        path.write_bytes(b"something else")
    assert sample_run(styles, everything(), out) == made
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == files


def test_a_label_is_a_class_written_out(styles: Path, tmp_path: Path) -> None:
    only = {"walk": False, "images": False, "psi_sweep": False, "mix": ""}
    grids = [
        Path(sample_run(styles, everything(**only, **asked), tmp_path / str(k))["grid"]).read_bytes()
        for k, asked in enumerate(({}, {"classes": "", "label": "0,1,0"}, {"classes": "2"}))
    ]
    assert grids[0] == grids[1] != grids[2]


def test_classes_by_name(styles: Path) -> None:
    names = ["red", "2", "blue, light"]
    assert find_classes("red", names) == [0]
    assert find_classes("2", names) == [1]  # a name goes before a number
    assert find_classes("blue, light", names) == [2]
    assert find_classes("red, 1", names) == [0, 1]
    with pytest.raises(StoreError, match="no class 'green': it is one of red, 2"):
        find_classes("green", names)
    with pytest.raises(StoreError, match="and 5 more"):
        find_classes("green", [str(k) for k in range(100, 115)])


def test_names_of_classes_come_from_the_run(styles: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(styles, run)
    only = {"walk": False, "images": False, "psi_sweep": False, "mix": ""}
    (run / DATA_FILE).write_text(json.dumps({"labels": {"names": ["red", "green", "blue"]}}), encoding="utf-8")
    named, numbered = (
        Path(sample_run(run, everything(**only, classes=text), tmp_path / text)["grid"]).read_bytes()
        for text in ("blue", "2")
    )
    assert named == numbered
    with pytest.raises(SamplingError, match="give --class, one of red, green, blue"):
        sample_run(run, everything(classes=""))
    (run / DATA_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"cannot read the names.*data\.json"):
        sample_run(run, everything(classes="blue"))


def test_a_snapshots_samples_lie_in_its_run(plain: Path) -> None:
    record = RunFolder(plain).snapshot_records()[0]
    for source in (plain, record, record.with_suffix(".safetensors")):
        made = sample_run(source, SampleParams(seeds="0-3", walk=False))
        assert made == {"grid": (plain / "samples" / "grid.png").as_posix()}


def test_samples_of_a_snapshot_outside_a_run_lie_beside_it(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = RunFolder(plain).snapshot_records()[0]
    alone = tmp_path / "elsewhere" / "mine.safetensors"
    alone.parent.mkdir()
    shutil.copyfile(record.with_suffix(".safetensors"), alone)
    asked = SampleParams(seeds="0-3", walk=False)
    assert sample_run(alone, asked) == {"grid": (alone.parent / "samples" / "grid.png").as_posix()}
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    monkeypatch.chdir(record.parent)  # named without its folder, it is still in its run
    assert sample_run(Path(record.name), asked) == {"grid": (plain / "samples" / "grid.png").as_posix()}


def test_a_dcgan_walks_from_seed_to_seed_or_at_random(plain: Path, tmp_path: Path) -> None:
    films = {}
    for path in WalkPath:
        params = SampleParams(seeds="0-7", grid=False, walk_path=path, walk_seconds=0.5, fps=8, walk_cells=1)
        films[path] = Path(sample_run(plain, params, tmp_path / path)["walk"]).read_bytes()
    assert films[WalkPath.AUTO] == films[WalkPath.SLERP] != films[WalkPath.RANDOM]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"trunc": 0.7}, r"truncation \(--trunc\) needs a network with styles"),
        ({"trunc_layers": 3}, r"truncation \(--trunc\) needs"),
        ({"mix": "0-1:2"}, r"style mixing \(--mix\) needs"),
        ({"psi_sweep": True}, r"the psi sweep \(--psi-sweep\) needs"),
        ({"noise": "random"}, "noise = random needs"),
        ({"classes": "0"}, "without labels"),
    ],
)
def test_what_a_dcgan_cannot_do(plain: Path, tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(SamplingError, match=said):
        sample_run(plain, SampleParams.model_validate(asked), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"seeds": "a"}, "cannot read seeds"),
        ({"mix": "0-3"}, "seeds of rows and of columns"),
        ({"mix": "0-3:x"}, "cannot read seeds"),
        ({"mix_layers": "finest"}, "cannot read layers"),
        ({"psis": "one"}, "cannot read psis"),
        ({"label": "1,0,0"}, "a class or a label, not both"),
        ({"classes": ""}, "conditional"),
        ({"classes": "3"}, "0 to 2, got 3"),
        ({"classes": "red"}, "knows no names"),
        ({"trunc_layers": 7}, "1 to 6"),
        ({"grid": False, "images": False, "psi_sweep": False, "mix": "", "walk": False}, "nothing to make"),
    ],
)
def test_what_is_refused_before_anything_is_made(
    styles: Path, tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises((StoreError, SamplingError), match=said):
        sample_run(styles, everything(**asked), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_is_found_by_its_id_anywhere_or_as_the_newest(styles: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="Train one"):
        find_run(store, "newest")
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    assert find_run(store, "mine") == find_run(store, "newest") == run
    assert find_run(store, str(styles)) == styles
    with pytest.raises(StoreError, match="runs there: mine"):
        find_run(store, "yours")


def test_grids_of_grey_pictures(tmp_path: Path) -> None:
    algorithm = StyleGAN2Config(z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    config = TrainingConfig(algorithm=algorithm, resolution=16, channels=1, device=DeviceChoice.CPU)
    run = write_run(tmp_path / "grey", config, stylegan2.initialise)
    made = sample_run(run, everything(classes=""))
    for name in ("grid", "psi-sweep", "mixing"):
        with Image.open(made[name]) as image:
            assert image.mode == "L", name
            assert np.asarray(image).std() > 1
