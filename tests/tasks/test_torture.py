"""Builds killed at random times, again and again: no version is half there, and the last one is what it should be.

The real command line runs with two threads (and, a few times, two processes); SIGKILL comes at seeded random times
drawn over the duration of an undisturbed build, not at the borders of shards. 30 kills by default;
KAOBAKO_TORTURE=long makes it 300.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LONG = os.environ.get("KAOBAKO_TORTURE") == "long"
KILLS = 300 if LONG else 30
pytestmark = [pytest.mark.slow, pytest.mark.timeout(6000 if LONG else 600)]

Look = dict[str, tuple[bytes, int, int]]


class Server:
    """A process that runs `kaobako` on request; see build_server.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONPATH": path, "PREFECT_HOME": str(folder / "prefect")}
        command = [sys.executable, str(Path(__file__).with_name("build_server.py")), "2"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, arguments: list[str] | None, verify: Path | None = None) -> int:
        """Start a run; gives its process id."""
        request = {"arguments": arguments, "output": str(self.folder), "root": None, "fault": None}
        request["verify"] = [str(verify), "faces"] if verify else None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self._read()["pid"])

    def wait(self) -> dict[str, Any]:
        """How the run ended: status and report. Until then its process id is its own, even when it is dead."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def curate(self, recipe: Path, store: Path) -> dict[str, Any]:
        self.start(curate(recipe, store), verify=store)
        return self.wait()

    def find_problems(self, store: Path) -> list[str]:
        self.start(None, verify=store)
        problems: list[str] = self.wait()["report"]["before"]
        return problems

    def said(self) -> str:
        return (self.folder / "err").read_text()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server died"
        read: dict[str, Any] = json.loads(line)
        return read

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def curate(recipe: Path, store: Path, runner: str = "threads") -> list[str]:
    options = ["--no-prefect", "--runner", runner, "--workers", "2", "--json"]
    return ["curate", str(recipe), "--store", str(store), *options]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server"))
    yield started
    started.close()


@dataclass(frozen=True)
class Work:
    """Two recipes that take turns, and what undisturbed builds of them come to."""

    recipes: tuple[Path, Path]
    digests: tuple[tuple[str, str], tuple[str, str]]
    seconds: float  # of an undisturbed build
    source: Path
    seen: Look


def look(source: Path) -> Look:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(source.iterdir())}


def versions(store: Path) -> list[Path]:
    return sorted((store / "datasets" / "faces").glob("v*"))


def digests(version: Path) -> tuple[str, str]:
    lineage = json.loads((version / "version.json").read_text())
    return lineage["content_digest"], lineage["ledger_digest"]


@pytest.fixture(scope="module")
def work(
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    draw: Callable[..., np.ndarray],
    png: Callable[[np.ndarray], bytes],
) -> Work:
    """Six pictures, a mirrored copy, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("work")
    source = folder / "source"
    source.mkdir()
    for k in range(6):
        (source / f"{k}.png").write_bytes(png(draw(k, 96 + k, 96)))
    (source / "mirrored.png").write_bytes(png(draw(3, 99, 96)[:, ::-1]))
    (source / "text.png").write_bytes(b"<html>404</html>")
    recipes = []
    for mirror in (False, True):
        recipes.append(folder / f"recipe{mirror}.toml")
        text = f'dataset = "faces"\n[source]\nkind = "folder"\nroot = {json.dumps(str(source))}\n'
        text += f'[crop]\nmethod = "whole"\n[upscale]\nsize = 0\n[augment]\nmirror = {str(mirror).lower()}\n'
        recipes[-1].write_text(text)
    found, took = [], []
    for k, recipe in enumerate(recipes):
        begun = time.monotonic()
        server.start(curate(recipe, folder / f"store{k}"))
        assert server.wait()["status"] == 0, server.said()
        took.append(time.monotonic() - begun)
        found.append(digests(*versions(folder / f"store{k}")))
    assert found[0] != found[1]
    return Work((recipes[0], recipes[1]), (found[0], found[1]), min(took), source, look(source))


def test_kills_at_random_times_leave_no_trace_in_what_is_published(server: Server, work: Work, tmp_path: Path) -> None:
    """After each kill the same build starts again; once it has published, the other recipe's turn comes, in one store.

    A third of the kills come while it publishes: that is the shortest part and the one that matters most.
    """
    rng = random.Random(20)
    store = tmp_path / "store"
    killed = published = turn = 0
    for _ in range(4 * KILLS):
        pid = server.start(curate(work.recipes[turn], store))
        if rng.random() < 1 / 3:
            wait_for_staging(store, pid)
            wait(pid, rng.uniform(0.0, work.seconds / 20))
        else:
            wait(pid, rng.uniform(0.0, work.seconds))
        os.kill(pid, signal.SIGKILL)
        ended = server.wait()
        assert ended["status"] in (-signal.SIGKILL, 0), server.said()
        killed += ended["status"] != 0
        assert server.find_problems(store) == []
        assert look(work.source) == work.seen
        if versions(store) and digests(versions(store)[-1]) == work.digests[turn]:
            published += 1
            turn = 1 - turn
            if len(versions(store)) == 3:
                check_last(server, work, store, turn)
                shutil.rmtree(store)
                turn = 0
        if killed >= KILLS:
            break
    assert killed >= KILLS
    assert published >= 1
    check_last(server, work, store, turn)


def wait(pid: int, seconds: float) -> None:
    """Wait, or until the process ends."""
    end = time.monotonic() + seconds
    while is_running(pid) and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.002))


def wait_for_staging(store: Path, pid: int) -> None:
    """Until a build writes its version, or ends."""
    folder = store / "datasets" / "faces"
    before = set(folder.glob(".staging-*"))
    while is_running(pid) and not set(folder.glob(".staging-*")) - before:
        time.sleep(0.001)


def check_last(server: Server, work: Work, store: Path, turn: int) -> None:
    """An undisturbed build in a store that has seen kills."""
    ended = server.curate(work.recipes[turn], store)
    assert ended["status"] == 0, server.said()
    assert ended["report"]["after"] == []
    assert digests(versions(store)[-1]) == work.digests[turn]
    folder = store / "datasets" / "faces"
    assert [p.name for p in sorted(folder.iterdir()) if p.is_dir()] == [p.name for p in versions(store)]


def family(pid: int) -> set[int]:
    """The processes below one, by /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue  # it has just ended
    found, open_ids = set(), {pid}
    while open_ids:
        open_ids = {child for child, parent in parents.items() if parent in open_ids}
        found |= open_ids
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_killed_build_takes_its_worker_processes_with_it(server: Server, work: Work, tmp_path: Path) -> None:
    """Orphans would go on writing, and would hold memory for ever."""
    store = tmp_path / "store"
    rng = random.Random(2)
    for _ in range(2):
        pid = server.start(curate(work.recipes[0], store, "processes"))
        workers: set[int] = set()
        end = time.monotonic() + 60
        while len(workers) < 3 and time.monotonic() < end:  # two workers, and Python's resource tracker
            workers |= family(pid)
            time.sleep(0.02)
        assert len(workers) >= 3
        time.sleep(rng.uniform(0.0, 1.0))
        workers |= family(pid)
        os.kill(pid, signal.SIGKILL)
        assert server.wait()["status"] == -signal.SIGKILL
        end = time.monotonic() + 20
        while any(map(is_running, workers)) and time.monotonic() < end:
            time.sleep(0.05)
        orphans = [worker for worker in workers if is_running(worker)]
        for worker in orphans:
            os.kill(worker, signal.SIGKILL)
        assert orphans == []
        assert server.find_problems(store) == []
    check_last(server, work, store, 0)
    assert look(work.source) == work.seen
