"""Commands whose Prefect server is gone: each says how its work ended, and none waits for a server for ever."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import flows.server
import flows.train
from models.training.run import RunError, RunFolder
from models.training.trainer import DivergedError

TINY = (
    "--preset", "dcgan-demo", "--resolution", "16", "--batch", "8", "--kimg", "100000", "--set", "algorithm.width=2",
    "--set", "algorithm.z_dim=4", "--set", "device=cpu", "--set", "tick_kimg=0.4", "--set", "snapshot_ticks=1",
)  # fmt: skip
PATIENCE = 200  # seconds for a server to come up on a busy machine
SOON = 60  # Prefect's client alone tried again for more than three minutes


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of 16 px, and a store beside them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (tmp_path / "store").mkdir()
    for k in range(12):
        noise = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{k:02d}.png")
    return folder


@pytest.fixture
def silent_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The train flow as it is once its server is gone: whatever its body came to, Prefect's client raises its own."""
    body = flows.train.train.fn

    def call(**given: Any) -> dict[str, Any]:
        try:
            return body(**given)
        finally:
            raise httpx.ConnectError("[Errno 111] Connection refused")

    def refuse(*given: object, **named: object) -> None:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr(flows.server, "server_for", lambda store, **given: contextlib.nullcontext(""))
    monkeypatch.setattr(flows.train, "train", call)
    monkeypatch.setattr(flows.train, "get_run_logger", lambda: logging.getLogger("flows.train"))
    monkeypatch.setattr(flows.train, "create_progress_artifact", refuse)


@pytest.mark.parametrize("reason", [DivergedError("loss_D is no longer finite"), RunError("the disk is full"), None])
def test_a_training_that_failed_says_so_though_its_server_is_gone(
    kaobako: Callable[..., Any],
    silent_flow: None,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: Exception | None,
) -> None:
    """The run's folder holds a sound snapshot, but of the time before. None: the loop was not reached."""
    place = ("--out", tmp_path / "run", "--store", tmp_path / "store")
    begun = kaobako("train", "--data", pictures, *place, *TINY, "--kimg", "0.016", "--no-prefect")
    assert begun.code == 0, begun.err

    def fail(*given: object, **named: object) -> None:
        raise reason or httpx.ConnectError("no slot of the GPU")

    if reason is None:
        monkeypatch.setattr(flows.train, "gpu_slot", fail)
    else:
        monkeypatch.setattr(flows.train, "run_training", fail)
    said = kaobako("train", "--resume", "latest", *place, "--kimg", "0.032")
    assert said.code == 1
    assert "Stopped after" not in said.out
    assert f"error: {reason or 'the Prefect server cannot be reached'}" in said.err


def test_a_training_that_ended_well_says_so_though_its_server_is_gone(
    kaobako: Callable[..., Any], silent_flow: None, pictures: Path, tmp_path: Path
) -> None:
    place = ("--out", tmp_path / "run", "--store", tmp_path / "store")
    said = kaobako("train", "--data", pictures, *place, *TINY, "--kimg", "0.016")
    assert said.code == 0, said.err
    assert "Trained after 16 pictures" in said.out
    assert "the Prefect server cannot be reached" in said.err


@pytest.mark.slow
@pytest.mark.prefect
def test_a_training_whose_server_is_gone_ends_well(pictures: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log.txt"
    process = start(log, "train", "--data", pictures, "--out", run, "--store", tmp_path / "store", *TINY)
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


@pytest.mark.slow
@pytest.mark.prefect
def test_serving_ends_with_its_server(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = start(log, "serve", "--port", port, "--store", tmp_path / "store")
    try:
        wait_for(lambda: "Prefect UI:" in log.read_text(encoding="utf-8"), process, log)
        (server,) = find_children(process.pid, "flows.server")
        os.kill(server, signal.SIGKILL)
        process.wait(SOON)
    finally:
        process.kill()
        process.wait()
    said = log.read_text(encoding="utf-8")
    assert process.returncode == 1, said
    last = said.splitlines()[-1]
    assert last.startswith("error: the Prefect server of this command has ended"), said
    assert last.endswith("Start kaobako serve again."), said


def start(log: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """The installed command, which writes into `log` and can be interrupted."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "KAOBAKO_"))}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(log.parent)}
    script = Path(sys.executable).with_name("kaobako")
    with log.open("wb") as stream:
        return subprocess.Popen(
            [str(script), *map(str, arguments)],
            env=environment,
            stdout=stream,
            stderr=stream,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


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
