"""A little folder of pictures, the command line in-process, and one real Prefect server for the whole session."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

PICTURES = 24
START_SECONDS = 150
OWN_VARIABLES = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE", "KAOBAKO_STORE", "KAOBAKO_TRACEBACK")


class Served(NamedTuple):
    """A running `kaobako serve`."""

    ui: str
    api: str
    home: Path
    store: Path
    board: Path


class Said(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


def draw_picture(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """Colours and hard edges enough for every cleaning rule, and a hash of its own: uint8 (side, side, 3)."""
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    for _ in range(4):
        x, y = (int(v) for v in rng.integers(0, side - 20, 2))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.rectangle(picture, (x, y), (x + int(rng.integers(8, 20)), y + int(rng.integers(8, 20))), colour, -1)
    return picture


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 sound pictures, one exact copy and one file that is no picture. Only read it."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(7)
    for index in range(PICTURES):
        cv2.imwrite(str(folder / f"{index:02d}.png"), draw_picture(rng))
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    return folder


@pytest.fixture(scope="session")
def recipe_file(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for `pictures` that needs no weights and no detector."""
    path = tmp_path_factory.mktemp("recipes") / "little.toml"
    path.write_text(
        f'dataset = "little"\n[source]\nkind = "folder"\nroot = "{pictures.as_posix()}"\n'
        '[crop]\nmethod = "whole"\n[upscale]\nsize = 0\n[training]\npreset = "dcgan-demo"\nkimg = 0.032\n',
        encoding="utf-8",
    )
    return path


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A user with an empty home (which is given back) and no settings; os.environ is restored afterwards."""
    before = dict(os.environ)
    for name in (*OWN_VARIABLES, *(name for name in os.environ if name.startswith("PREFECT_"))):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    yield home
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def kaobako(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Run a command line as the installed script does, in this process."""

    def run(*arguments: str | Path) -> Said:
        from flows.cli import main

        monkeypatch.setattr(sys, "argv", ["kaobako", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`kaobako serve` on a drawn board: server, UI and deployments, all on their own port and folder."""
    from datasets.booru.board import draw_board

    folder = tmp_path_factory.mktemp("served")
    draw_board(folder / "board", posts=22, seed=3, workers=1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ui, home, store = f"http://127.0.0.1:{port}", folder / "home", folder / "store"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "KAOBAKO_"))}
    command = [Path(sys.executable).with_name("kaobako"), "serve", "--port", str(port), "--store", store]
    command += ["--recipe", Path(__file__).parents[2] / "recipes" / "demo.toml"]
    command += ["--set", f"source.root={folder / 'board'}", "--set", "upscale.size=0"]
    log = folder / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(part) for part in command],
            env={**kept, "PREFECT_HOME": str(home), "PYTHONFAULTHANDLER": "1"},
            cwd=folder,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            # tests that a shell runs in the background inherit an ignored Ctrl-C, and it would pass that on
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        wait_until(lambda: answers(f"{ui}/api/deployments/name/sample/on-demand"), process, log)
        yield Served(ui, f"{ui}/api", home, store, folder / "board")
    finally:
        stop_group(process, log)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"kaobako serve did not come up:\n{log.read_text(encoding='utf-8', errors='replace')}")
        time.sleep(0.3)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def stop_group(leader: subprocess.Popen[bytes], log: Path) -> None:
    """End `kaobako serve` as a user would; whatever it left behind is killed, and is a failure."""
    groups = {leader.pid, *child_groups(leader.pid)}
    leader.send_signal(signal.SIGINT)
    try:
        leader.wait(60)  # 4 s on an idle machine; its parts may take 40 s on a busy one
    except subprocess.TimeoutExpired:
        leader.send_signal(signal.SIGABRT)  # says where each thread stands (PYTHONFAULTHANDLER)
        time.sleep(2)
        kill_groups(groups)
        leader.wait()
        said = log.read_text(encoding="utf-8", errors="replace")[-6000:]
        pytest.fail(f"kaobako serve did not end within a minute of Ctrl-C:\n{said}")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        groups = {group for group in groups if signal_group(group, 0)}
        if not groups:
            return
        time.sleep(0.2)
    if kill_groups(groups):
        pytest.fail("kaobako serve left processes behind")


def child_groups(parent: int) -> set[int]:
    """The process groups of a process's children: its Prefect server has one of its own."""
    groups = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            _, ppid, group = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:3]
            if int(ppid) == parent:
                groups.add(int(group))
    return groups


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False if nobody is left in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def kill_groups(groups: set[int]) -> bool:
    """Whether anybody was left to be killed."""
    killed = [signal_group(group, signal.SIGKILL) for group in groups]
    return any(killed)


@pytest.fixture
def prefect_api(served: Served) -> Iterator[Served]:
    """Flows that run in this process (and workers that they start) use the session's server.

    By environment: Prefect's own threads (logs, events) see no settings that are set for a context only, and would
    start a temporary server.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", served.api)
        patch.setenv("PREFECT_HOME", str(served.home))
        patch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")
        refresh_global_settings_context()
        yield served
        APILogWorker.drain_all(timeout=10)
        EventsWorker.drain_all(timeout=10)
    refresh_global_settings_context()


@pytest.fixture
def read_artifacts(prefect_api: Served) -> Callable[[Any], dict[str, Any]]:
    """The artifacts of a flow run, by key, from the state that it ended with."""

    def read(state: Any) -> dict[str, Any]:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import ArtifactFilter

        run_filter = ArtifactFilter.model_validate({"flow_run_id": {"any_": [state.state_details.flow_run_id]}})
        with get_client(sync_client=True) as client:
            return {str(artifact.key): artifact for artifact in client.read_artifacts(artifact_filter=run_filter)}

    return read
