"""`kaobako train` whose Prefect server is gone: Ctrl-C still ends it soon, with a snapshot and the way to go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.training.run import RunFolder

TINY = (
    "--preset", "dcgan-demo", "--resolution", "16", "--batch", "8", "--kimg", "100000", "--set", "algorithm.width=2",
    "--set", "algorithm.z_dim=4", "--set", "device=cpu", "--set", "tick_kimg=0.4", "--set", "snapshot_ticks=1",
)  # fmt: skip
PATIENCE = 200  # seconds for a server to come up on a busy machine
SOON = 60  # Prefect's client alone tried again for more than three minutes


@pytest.mark.slow
@pytest.mark.prefect
def test_a_training_whose_server_is_gone_ends_well(tmp_path: Path) -> None:
    pictures, run, log = tmp_path / "pictures", tmp_path / "run", tmp_path / "log.txt"
    pictures.mkdir()
    (tmp_path / "store").mkdir()
    for k in range(12):
        noise = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(pictures / f"{k:02d}.png")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "KAOBAKO_"))}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    script = Path(sys.executable).with_name("kaobako")
    command = [script, "train", "--data", pictures, "--out", run, "--store", tmp_path / "store", *TINY]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(part) for part in command],
            env=environment,
            stdout=stream,
            stderr=stream,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        wait_for(lambda: bool(RunFolder(run).snapshot_records()), process, log)
        (server,) = find_children(process.pid, "flows.server")
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: "server of this command has ended" in log.read_text(encoding="utf-8"), process, log)
        process.send_signal(signal.SIGINT)
        process.wait(SOON)
    finally:
        process.kill()
        process.wait()
    said = log.read_text(encoding="utf-8")
    assert process.returncode == 0, said
    assert "Traceback" not in said
    stopped = re.search(r"^Stopped after (\d+) pictures", said, re.MULTILINE)
    assert stopped is not None, said
    assert f"kaobako train --resume latest --out {run}" in said
    snapshot = RunFolder(run).latest_snapshot(with_state=True)
    assert snapshot is not None
    assert int(snapshot.stem.rpartition("-")[2]) == int(stopped[1])


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.1)


def find_children(parent: int, module: str) -> list[int]:
    """The child processes that run a module."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()
    return [int(pid) for pid in children if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
