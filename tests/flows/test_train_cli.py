"""`kaobako train` on a plain folder, as a user types it; killed in the middle, resumed, in two processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flows.cli.training import train
from models.training.run import RunFolder
from models.training.snapshot import weights_path
from tasks.train import TrainParams

TINY = (
    "--preset", "dcgan-demo", "--resolution", "16", "--batch", "8", "--set", "algorithm.width=2", "--set",
    "algorithm.z_dim=4", "--set", "device=cpu", "--set", "tick_kimg=0.016", "--set", "snapshot_ticks=1", "--no-prefect",
)  # fmt: skip
PATIENCE = 60  # seconds for a process to come up on a busy machine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of 16 px."""
    root = tmp_path / "pictures"
    root.mkdir()
    for k in range(12):
        noise = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{k:02d}.png")
    return root


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of several threads are added up in another order: bits are compared with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[bytes]:
    """A `kaobako train` of its own, on one thread."""
    code = "import sys; from flows.cli import main; sys.argv[0] = 'kaobako'; main()"
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "KAOBAKO_"))}
    environment = {**known, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **environment}
    command = [sys.executable, "-c", code, "train", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(weights_path(RunFolder(run).snapshot_records()[-1]))


def assert_same(first: Path, second: Path) -> None:
    a, b = last_weights(first), last_weights(second)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_killed_and_resumed_equals_never_disturbed(
    kaobako: Callable[..., Any], folder: Path, tmp_path: Path, one_thread: None
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start("--data", folder, "--out", killed, "--kimg", "500", *TINY)
    try:
        deadline = time.monotonic() + PATIENCE
        while len(list(killed.glob("snapshots/*.json"))) < 3:
            assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL

    (killed / "snapshots" / "snapshot-999999999.json").write_text("{")  # cut off by a power cut: passed over
    done = RunFolder(killed).latest_snapshot(with_state=True)
    assert done is not None
    end = str((int(done.stem.rpartition("-")[2]) + 40) / 1000)
    (killed / "snapshots" / "snapshot-999999999.json").unlink()
    said = kaobako("train", "--resume", "latest", "--out", killed, "--kimg", end, "--no-prefect", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["images"] == round(float(end) * 1000)
    said = kaobako("train", "--data", folder, "--out", whole, "--kimg", end, *TINY)
    assert said.code == 0, said.err
    assert_same(killed, whole)
    lines = [[json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()] for run in (killed, whole)]
    assert [one["loss_G"] for one in lines[0]] == [one["loss_G"] for one in lines[1]]


@pytest.mark.slow
def test_two_processes_train_as_one(
    kaobako: Callable[..., Any], folder: Path, tmp_path: Path, one_thread: None
) -> None:
    """StyleGAN2, as batch norm sees one process's part only. Rank 0 alone speaks."""
    style = ("--preset", "stylegan2-demo", "--batch", "8", "--resolution", "16", "--kimg", "0.032")
    small = ("z_dim=4", "w_dim=4", "channel_max=8", "mapping_layers=1", "mbstd_group=4")
    style += tuple(part for one in small for part in ("--set", f"algorithm.{one}"))
    style += ("--set", "device=cpu", "--set", "tick_kimg=0.016", "--no-prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common = ("--data", folder, "--out", tmp_path / "two", *style)
    ranks = [start(*common, **world, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    said = [process.communicate(timeout=PATIENCE)[1].decode() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    assert "32 of 32 pictures" in said[0]
    assert "pictures" not in said[1]
    one = kaobako("train", "--data", folder, "--out", tmp_path / "one", *style)
    assert one.code == 0, one.err
    a, b = last_weights(tmp_path / "two"), last_weights(tmp_path / "one")
    assert a.keys() == b.keys()
    worst = max(float((a[name] - b[name]).abs().max()) for name in a)
    assert worst < 2e-5  # sums are added up in another order; without the exchange it is a thousand times as much


def test_processes_need_no_prefect_and_a_place(
    kaobako: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "add --no-prefect" in kaobako("train", "--data", folder).err
    assert "--out FOLDER" in kaobako("train", "--data", folder, "--no-prefect").err


def test_a_folder_needs_no_store(
    kaobako: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = [part for part in TINY if part != "--no-prefect"]
    said = kaobako("train", "--data", "pictures", "--out", "run", "--kimg", "0.016", *plain)
    assert said.code == 0, said.err
    assert "Trained after 16 pictures" in said.out
    assert "kaobako sample run" in said.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "pictures", "run"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["dataset"]["name"] == "pictures"

    again = kaobako("train", "--data", "pictures", "--out", "run", *plain)
    assert again.code == 1
    assert "holds a run already" in again.err


def test_unfit_pictures_are_listed_and_nothing_is_begun(
    kaobako: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    (folder / "torn.png").write_bytes((folder / "00.png").read_bytes()[:-20])
    Image.new("RGB", (8, 8)).save(folder / "small.png")
    Image.new("L", (16, 16), 90).save(folder / "grey.png")
    Image.new("RGBA", (16, 16), (9, 8, 7, 128)).save(folder / "clear.png")
    (folder / "out.png").symlink_to("/etc/hostname")
    said = kaobako("train", "--data", folder, "--out", tmp_path / "run", *TINY)
    assert said.code == 1
    assert "2 of 16 pictures" in said.err
    assert "torn.png: truncated" in said.err
    assert "small.png: 8x8: too small" in said.err
    assert "left out: out.png: a link that leaves the source folder" in said.err
    assert not any(name in said.err for name in ("grey.png", "clear.png"))
    assert not (tmp_path / "run").exists()

    for name in ("torn.png", "small.png"):
        (folder / name).unlink()
    said = kaobako("train", "--data", folder, "--out", tmp_path / "run", "--kimg", "0.016", *TINY)
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "run" / "data.json").read_text())["count"] == 14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gamma", "3", *TINY), "r1_gamma: dcgan has no such setting, but stylegan2 has"),
        (("--resolution", "60", "--preset", "stylegan2-ada"), "resolution must be 4"),
        (("--kimg", "-1"), "kimg: Input should be greater than 0"),
        (("--preset", "stylegan9"), "preset: Input should be"),
        (("--augment", "much", "--preset", "stylegan2-ada"), "augment: Input should be 'ada', 'fixed'"),
        (("--set", "algorithm.pathweight=0", "--preset", "stylegan2-ada"), "did you mean path_weight"),
        (("--transfer", "nowhere", *TINY), "no run or snapshot nowhere"),
        (("--run", "x"), "not by both"),
        (("faces",), "train on one of them"),
    ],
)
def test_wrong_settings_cost_no_work(
    kaobako: Callable[..., Any], folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = kaobako("train", "--data", folder, "--out", tmp_path / "run", "--no-prefect", *arguments)
    assert said.code != 0
    assert message in " ".join(said.err.replace("│", " ").split())
    assert "Traceback" not in said.err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_shows_everything_and_does_nothing(kaobako: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    arguments = ("train", "--data", folder, "--out", tmp_path / "run", "--preset", "stylegan2-ada")
    arguments += ("--resolution", "16", "--gamma", "0.7", "--batch", "8", "--dry-run", "--store", tmp_path / "store")
    said = kaobako(*arguments)
    assert said.code == 0, said.err
    for word in ("algorithm.path_weight", "algorithm.r1_gamma", "0.7", "micro_batch", "pictures             12"):
        assert word in said.out
    plan = json.loads(kaobako(*arguments, "--json").out)
    assert (plan["pictures"], plan["config"]["resolution"], plan["config"]["batch"]) == (12, 16, 8)
    assert plan["config"]["algorithm"]["r1_gamma"] == 0.7
    assert plan["generator_parameters"] > 10**6
    assert plan["peak_gb"] > 0
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists()


def test_the_help_names_every_augmentation() -> None:
    (option,) = get_type_hints(train, include_extras=True)["augment"].__metadata__
    choices, _none = get_args(TrainParams.model_fields["augment"].annotation)
    assert set(option.metavar.split("|")) == set(get_args(choices))


def test_presets_are_listed(kaobako: Callable[..., Any]) -> None:
    said = kaobako("train", "--list-presets", "--json")
    listed = {row["preset"]: row for row in json.loads(said.out)}
    assert {"stylegan2-ada", "dcgan-demo", "dcgan-paintings-64"} <= listed.keys()
    assert listed["dcgan-demo"]["size"] == "32x32"
    assert all(row["about"] for row in listed.values())
    assert "dcgan-demo" in kaobako("train", "--list-presets").out


def test_the_help_shows_how(kaobako: Callable[..., Any]) -> None:
    said = " ".join(kaobako("train", "--help").out.split())
    for words in ("--data FOLDER --resolution 64 --kimg 5 --out RUN", "--resume latest --out RUN", "torchrun"):
        assert words in said


def test_a_version_brings_its_recipe_and_a_run_goes_on_by_its_id(
    kaobako: Callable[..., Any], recipe_file: Path, tmp_path: Path
) -> None:
    store = ("--store", tmp_path / "store")
    tiny = ("training.algorithm.width=2", "training.algorithm.z_dim=4", "training.resolution=16", "training.batch=8")
    settings = [part for one in (*tiny, "training.tick_kimg=0.008") for part in ("--set", one)]
    said = kaobako("curate", recipe_file, *settings, *store, "--no-prefect")
    assert said.code == 0, said.err

    def plan(*arguments: str) -> Any:
        said = kaobako("train", "little@v1", *arguments, *store, "--dry-run", "--json")
        assert said.code == 0, said.err
        return json.loads(said.out)["config"]

    config = plan("--set", "algorithm.kernel=5", "--kimg", "7")
    assert (config["algorithm"]["width"], config["algorithm"]["z_dim"], config["algorithm"]["kernel"]) == (2, 4, 5)
    assert (config["resolution"], config["kimg"]) == (16, 7)
    other = plan("--preset", "dcgan-paintings-64")
    assert (other["algorithm"]["width"], other["resolution"]) == (64, 64)
    named = plan("--preset", "dcgan-paintings-64", "--recipe", str(recipe_file))
    assert (named["resolution"], named["kimg"]) == (64, 0.032)

    said = kaobako("train", "--run", "mine", "--kimg", "0.016", *store, "--no-prefect", "little", "--json")
    assert said.code == 0, said.err
    said = kaobako("train", "--run", "mine", "--kimg", "0.024", *store, "--no-prefect", "--resume", "latest", "--json")
    assert said.code == 0, said.err
    resumed = json.loads(said.out)
    assert (resumed["dataset"], resumed["images"]) == ("little@v1", 24)
    assert "Go on" not in kaobako("train", "--resume", "--run", "mine", "--kimg", "0.03", *store, "--no-prefect").out
    more = ("train", "--resume", "--run", "mine", "--kimg", "0.04", *store, "--no-prefect", "--preset")
    for preset in ("stylegan2-ada", "dcgan-paintings-256"):
        said = kaobako(*more, preset)
        assert said.code == 1
        assert f"this run is a dcgan of 16 px, {preset} is a" in said.err
    assert kaobako(*more, "dcgan-demo", "--resolution", "16", "--dry-run").code == 0
