"""Two processes that train together do what one does with the whole batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.training.algorithm import build_algorithm
from models.training.config import DeviceChoice, StyleGAN2Config, TrainingConfig
from models.training.distributed import ALONE, Workers
from models.training.run import RunFolder
from models.training.snapshot import load_weights, weights_path

CONFIG = TrainingConfig(
    algorithm=StyleGAN2Config(
        z_dim=16,
        w_dim=16,
        mapping_layers=2,
        channel_base=128,
        channel_max=16,
        r1_interval=2,
        path_interval=2,
        augment="ada",
        augment_p=0.3,
    ),
    resolution=16,
    kimg=0.064,
    batch=16,
    tick_kimg=0.032,
    grid_ticks=1,
    snapshot_ticks=2,
    device=DeviceChoice.CPU,
)

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np, torch
from models.training.config import DatasetRef, TrainingConfig
from models.training.distributed import joined_workers
from models.training.trainer import train

torch.set_num_threads(1)
config = TrainingConfig.model_validate_json(sys.argv[1])
with joined_workers() as workers:
    part = workers.part_of(config.batch)

    def data(start):
        while True:
            samples = range(start, start + config.batch)[part.start : part.stop]
            yield np.stack([
                np.random.default_rng(k).integers(0, 256, (3, 2, 2), np.uint8).repeat(8, 1).repeat(8, 2)
                for k in samples
            ])
            start += config.batch

    result = train(config, data, DatasetRef("blocks", 0, "0" * 64, 1000), Path(sys.argv[2]), workers=workers)
    print(json.dumps({"nimg": result.nimg, "stats": dict(result.stats)}))
"""


def run(folder: Path, world: int) -> list[dict[str, object]]:
    """What each process of a training says at its end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = str(Path(__file__).parents[3])
    common = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    command = [sys.executable, "-c", PROGRAM, CONFIG.model_dump_json(), str(folder)]
    processes = [
        subprocess.Popen(
            command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world
    return [json.loads(text.splitlines()[-1]) for text in said]


def test_two_processes_do_what_one_does_with_the_whole_batch(tmp_path: Path) -> None:
    (alone,) = run(tmp_path / "one", 1)
    leader, other = run(tmp_path / "two", 2)
    assert alone["nimg"] == leader["nimg"] == other["nimg"] == 64
    folders = [RunFolder(tmp_path / name) for name in ("one", "two")]
    paths = [weights_path(folder.snapshot_records()[-1]) for folder in folders]
    for prefix in ("G", "D", "G_ema"):
        one, two = (load_weights(path, prefix) for path in paths)
        differences = torch.cat([(one[name] - two[name]).abs().flatten() for name in one])
        sizes = torch.cat([one[name].abs().flatten() for name in one])
        # sums are in another order; Adam divides by a gradient's own size, so where that is nearly 0 rounding shows
        assert differences.mean() < 1e-6 * sizes.mean(), prefix
    lines = [list(folder.read_stats())[-1] for folder in folders]
    for name in ("loss_G", "loss_D", "sign_D_real", "ada_p"):
        assert lines[0][name] == pytest.approx(lines[1][name], abs=2e-3), name


def test_only_the_leader_writes(tmp_path: Path) -> None:
    assert ALONE.leads and Workers(0, 2).leads and not Workers(1, 2).leads
    assert list(Workers(1, 2).part_of(8)) == [4, 5, 6, 7]
    with pytest.raises(ValueError, match="cannot be shared by 3 processes"):
        Workers(0, 3).part_of(8)


def test_alone_nothing_is_exchanged() -> None:
    tensor = torch.arange(3.0)
    ALONE.average([tensor])
    assert torch.equal(tensor, torch.arange(3.0)) and ALONE.sum(tensor) is tensor
    assert ALONE.any(True, torch.device("cpu")) and not ALONE.any(False, torch.device("cpu"))


def test_a_dcgan_is_not_shared_out() -> None:
    with pytest.raises(ValueError, match="without torchrun"):
        build_algorithm(TrainingConfig(), torch.device("cpu"), torch.Generator(), Workers(0, 2))
