"""`kaobako models export`: a folder that is complete, whose card tells the truth and whose snippets run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from models.gan import dcgan
from models.gan.stylegan2 import initialise
from models.training.atomic import sha256
from models.training.config import DatasetRef, DCGANConfig, DeviceChoice, StyleGAN2Config, TrainingConfig
from models.training.networks import build_discriminator, build_generator
from models.training.run import RunFolder, find_snapshot
from models.training.snapshot import list_networks, load_weights, save_snapshot, weights_path

STYLE = TrainingConfig(
    algorithm=StyleGAN2Config(z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8),
    resolution=16,
    device=DeviceChoice.CPU,
)
PLAIN = TrainingConfig(algorithm=DCGANConfig(width=4, z_dim=8), resolution=16, device=DeviceChoice.CPU)
DATASET = DatasetRef("blobs", 1, "0f" * 32, 10)


def make_run(folder: Path, config: TrainingConfig) -> Path:
    """A run that was never trained; returns its snapshot's record."""
    networks = {"G": build_generator(config), "G_ema": build_generator(config), "D": build_discriminator(config)}
    for seed, network in enumerate(networks.values()):
        start = dcgan.initialise if isinstance(config.algorithm, DCGANConfig) else initialise
        start(network, torch.Generator().manual_seed(seed))
    run = RunFolder(folder)
    run.write_config(config, DATASET, torch.device("cpu"))
    return save_snapshot(run.snapshots, 2000, config, DATASET, networks, {})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "runs" / "a_run", STYLE)
    return tmp_path / "runs" / "a_run"


@pytest.fixture
def export(kaobako: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    return lambda *words: kaobako("models", "export", "--store", tmp_path / "store", *words)


def test_a_model_goes_out_with_a_card_whose_snippets_run(
    export: Callable[..., Any], kaobako: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    weights = weights_path(next((run / "snapshots").glob("*.json")))
    metrics = [
        {"name": "kid_here", "value": 0.5, "ema": True, "nimg": 2000, "weights_sha256": sha256(weights)},
        {"name": "kid_while_training", "value": 0.5, "ema": True, "nimg": 2000, "weights_sha256": None},
        {"name": "kid_of_another", "value": 0.1, "ema": True, "nimg": 2000, "weights_sha256": "0" * 64},
        {"name": "kid_earlier", "value": 0.1, "ema": True, "nimg": 1000, "weights_sha256": None},
        {"name": "kid_last_step", "value": 0.1, "ema": False, "nimg": 2000, "weights_sha256": sha256(weights)},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics), encoding="utf-8")
    (run / "origin.json").write_text(json.dumps({"file": "cats.pkl", "licence": "not said"}), encoding="utf-8")
    out = tmp_path / "deep" / "model"
    said = export(run, "--out", out, "--licence", "CC0-1.0", "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    names = ["D.safetensors", "G_ema.safetensors", "README.md", "generator.onnx", "kaobako.json", "samples.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    assert told["onnx"]["pictures"] == 20
    assert told["onnx"]["largest"] < 1e-4
    for file in told["files"]:
        data = (out / file["name"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    record = json.loads((out / "kaobako.json").read_text(encoding="utf-8"))
    assert record["files"] == {name: sha256(out / name) for name in names if name != "kaobako.json"}
    assert record["dataset"]["digest"] == "0f" * 32
    assert len(load_file(out / "G_ema.safetensors")) == 54  # 1 + 2 + 13 + 2 * 19, as in the original

    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlicense: "cc0-1.0"\n')
    assert "# a\\_run" in card
    assert "kid\\_here" in card
    assert "kid\\_while" in card
    assert not re.search("another|earlier|last\\\\_step", card)
    assert "file: cats.pkl; licence: not said" in card
    assert str(tmp_path) not in card

    for code in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        done = subprocess.run([sys.executable, "-c", code], cwd=out, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    sampled = tmp_path / "sampled"
    words = ("--no-walk", "--no-grid", "--images", "--seeds", "0", "--out", sampled, "--no-prefect")
    assert kaobako("sample", run, "--store", tmp_path / "store", *words).code == 0
    ours = np.asarray(Image.open(sampled / "images" / "seed-00000000.png"), np.int16)
    theirs = np.asarray(Image.open(out / "seed-0.png"), np.int16)
    assert np.abs(ours - theirs).max() <= 1  # a value on the edge between two levels
    grid = np.asarray(Image.open(out / "samples.png"), np.int16)
    assert grid.shape == (64, 64, 3)
    assert np.abs(grid[:16, :16] - ours).max() <= 1


def test_what_came_in_goes_out_bit_by_bit(
    export: Callable[..., Any], kaobako: Callable[..., Any], published: Any, tmp_path: Path
) -> None:
    """A published snapshot, imported and exported: its own state dicts again, filters and constructor arguments too."""
    networks = {
        "G_ema": published.generator(seed=1, c_dim=3, clamp=None, layers=3),
        "G": published.generator(seed=2, c_dim=3, clamp=None, layers=3),
        "D": published.discriminator(seed=3, c_dim=3, clamp=None, group=2, base=128),
    }
    file = published.snapshot(tmp_path / "cats.pkl", **networks)
    assert kaobako("models", "import", file, "--out", tmp_path / "run").code == 0
    said = export(tmp_path / "run", "--out", tmp_path / "model", "--format", "safetensors", "--networks", "G_ema,G,D")
    assert said.code == 0, said.err
    for name, network in networks.items():
        path = tmp_path / "model" / f"{name}.safetensors"
        back, tensors = load_file(path), published.flatten(network)
        assert back.keys() == tensors.keys()
        assert all(torch.equal(back[key], tensor) for key, tensor in tensors.items())
        with safe_open(path, framework="pt") as opened:
            arguments = json.loads(opened.metadata()["init_kwargs"])
        assert network.state["_init_kwargs"].items() <= arguments.items()
    told = json.loads(kaobako("models", "show", tmp_path / "model", "--json").out)
    assert (told["problem"], told["kind"]) == (None, "StyleGAN2 exported by Kaobako")
    assert [network["name"] for network in told["networks"]] == ["G_ema", "G", "D"]
    for source, names in (("model", ["D", "G", "G_ema"]), ("model/G_ema.safetensors", ["G", "G_ema"])):
        again = tmp_path / f"again-{len(names)}"
        said = kaobako("models", "import", tmp_path / source, "--out", again)
        assert said.code == 0, said.err
        weights = [weights_path(find_snapshot(folder)) for folder in (tmp_path / "run", again)]
        assert list_networks(weights[1]) == names
        for name in set(names) - ({"G"} if len(names) == 2 else set()):  # G is a copy of G_ema where it is missing
            first, second = (load_weights(path, name) for path in weights)
            assert first.keys() == second.keys()
            assert all(torch.equal(first[key], second[key]) for key in first)
        configs = [RunFolder(folder).read_config()[0].algorithm.model_dump() for folder in (tmp_path / "run", again)]
        kept = {key for key in configs[0] if len(names) == 3 or not key.startswith(("d_channel", "mbstd"))}
        assert {key: configs[0][key] for key in kept} == {key: configs[1][key] for key in kept}
    alone = kaobako("models", "import", tmp_path / "model" / "D.safetensors", "--out", tmp_path / "nothing")
    assert "holds D, and a run needs G_ema.safetensors" in alone.err
    first = export(tmp_path / "model", "--out", tmp_path / "second")
    assert "import it first" in first.err
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert f"file: cats.pkl; sha256: {sha256(file)}; " in card
    assert "licence: not said in the file." in card
    assert "calls its data portraits" in card


def test_again_replaces_and_what_a_person_changed_stays(export: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    words = (run, "--out", out, "--format", "safetensors")
    others = [tmp_path / name for name in (".model.partial", ".model.old", ".model.partial-mine")]
    for folder in others:
        folder.mkdir()
        (folder / "mine.txt").touch()
    first = export(*words, "--networks", "G, D")
    assert first.code == 0, first.err
    assert "licence is unknown" in first.out
    names = ["D.safetensors", "G.safetensors", "README.md", "kaobako.json", "samples.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert export(*words, "--networks", "G_ema").code == 0
    assert sorted(path.name for path in out.iterdir()) == ["G_ema.safetensors", *names[2:]]
    left = sorted(path.name for path in tmp_path.iterdir() if "model" in path.name)
    assert left == sorted(["model", *(folder.name for folder in others)])
    assert all((folder / "mine.txt").is_file() for folder in others)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask

    card = out / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "My own words.\n", encoding="utf-8")
    said = export(*words)
    assert said.code == 1
    assert "README.md was changed since it was exported" in said.err
    assert card.read_text(encoding="utf-8").endswith("My own words.\n")


def test_an_older_export_is_not_lost_between_two_names(
    export: Callable[..., Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, words = tmp_path / "model", ("--format", "safetensors", "--networks", "G")
    assert export(run, "--out", out, *words).code == 0
    before = (out / "kaobako.json").read_bytes()
    rename = Path.rename

    def stop(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", stop)
        export(run, "--out", out, *words)
    assert (out / "kaobako.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "model" in path.name] == ["model"]

    room = tmp_path / ".model.partial-killed"  # as a kill leaves it
    (room / "new").mkdir(parents=True)
    out.rename(room / "old")
    assert export(run, "--out", out, "--licence", "CC0-1.0", "--format", "nothing").code == 1
    monkeypatch.setattr("tasks.model_export.write_network", stop_writing)
    assert export(run, "--out", out, *words).code == 1
    assert (out / "kaobako.json").read_bytes() == before
    assert not (room / "old").exists()


def stop_writing(*_: object) -> None:
    raise OSError("the disk is full")


def test_other_files_are_never_touched(export: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    out.mkdir()
    (out / "mine.txt").write_text("kept", encoding="utf-8")
    said = export(run, "--out", out)
    assert said.code == 1
    assert "holds other files (mine.txt): choose a new folder" in said.err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert not list(tmp_path.glob(".pictures*"))


def test_a_failed_check_leaves_nothing(
    export: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run", PLAIN)
    monkeypatch.setattr("models.interchange.onnx_export.LIMIT", -1.0)
    said = export(tmp_path / "run", "--out", tmp_path / "model", "--format", "onnx")
    assert said.code == 1
    assert "generator.onnx is not this network and was removed: its pictures differ from torch's" in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if "model" in path.name) == []


def test_a_dcgan_goes_out_as_onnx_alone(export: Callable[..., Any], tmp_path: Path) -> None:
    record = make_run(tmp_path / "plain", PLAIN)
    said = export(record, "--out", tmp_path / "model")
    assert said.code == 0, said.err
    assert "onnxruntime" in said.out
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert files == ["README.md", "generator.onnx", "kaobako.json", "samples.png"]


@pytest.mark.parametrize(
    ("config", "words", "said"),
    [
        (PLAIN, ("--format", "safetensors"), "are for StyleGAN2, and this is a dcgan: use onnx"),
        (STYLE, ("--format", "pickle"), "--format must be of safetensors, onnx, got 'pickle'"),
        (STYLE, ("--networks", "augment_pipe"), "no network 'augment_pipe' to export: it has G_ema, G, D"),
        (STYLE, ("--format", "onnx", "--networks", "D"), "--networks chooses among the safetensors"),
        (STYLE, ("--licence", "do what you like"), "SPDX identifier"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    export: Callable[..., Any], tmp_path: Path, config: TrainingConfig, words: tuple[str, ...], said: str
) -> None:
    make_run(tmp_path / "run", config)
    told = export(tmp_path / "run", "--out", tmp_path / "model", *words)
    assert told.code == 1
    assert said in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if "model" in path.name) == []
