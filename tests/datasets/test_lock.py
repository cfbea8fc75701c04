"""The lock: one holder at a time, named to the others, and no dead holder in the way for long."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from datasets import lock
from datasets.errors import LockedError
from datasets.lock import hold_lock, process_start, read_holder

HOLDER = """
import sys, time
from pathlib import Path
from datasets.lock import hold_lock
with hold_lock(Path(sys.argv[1]), "curate faces"):
    print("held", flush=True)
    time.sleep(60)
"""
# every racer waits for the starting gun, tries once, and holds what it got until all others have lost
RACER = """
import sys, time
from pathlib import Path
from datasets.errors import LockedError
from datasets.lock import hold_lock
path, gun = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
while not gun.exists():
    time.sleep(0.001)
try:
    with hold_lock(path, "race"):
        print("won", flush=True)
        sys.stdin.read()
except LockedError:
    print("lost", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "faces" / "lock.json"


def write_lease(path: Path, **changes: Any) -> None:
    lease = {"token": "t", "host": socket.gethostname(), "pid": os.getpid(), "what": "curate faces"}
    lease |= {"process_start": process_start(os.getpid()), "taken": time.time(), "refreshed": time.time()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(lease | changes))


def leases(path: Path) -> list[str]:
    """What lies beside the lock, the empty file of the takers' turns left out."""
    return sorted(p.name for p in path.parent.iterdir() if not p.name.endswith(".turn"))


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_held_and_released(path: Path) -> None:
    with hold_lock(path, "curate faces"):
        holder = read_holder(path)
        assert holder is not None
        assert (holder["pid"], holder["what"]) == (os.getpid(), "curate faces")
    assert leases(path) == []


def test_a_second_holder_is_refused_and_told_by_whom(path: Path) -> None:
    with hold_lock(path, "curate faces"):
        with pytest.raises(LockedError, match=rf"faces .*process {os.getpid()} on .*\(curate faces\)"):
            hold_lock(path, "publish").__enter__()
        assert read_holder(path) is not None
    with hold_lock(path, "publish"):
        pass


def test_an_exception_releases_the_lock(path: Path) -> None:
    with pytest.raises(KeyError), hold_lock(path, "curate"):
        raise KeyError
    assert not path.exists()


def test_waiting_for_a_holder_that_ends(path: Path) -> None:
    process = start(HOLDER, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(LockedError), hold_lock(path, "second", wait_seconds=0.3):
        pass
    process.kill()
    with hold_lock(path, "second", wait_seconds=20):
        assert read_holder(path)["pid"] == os.getpid()  # type: ignore[index]
    process.wait()


def test_a_killed_holder_is_replaced_at_once_even_before_it_is_buried(path: Path) -> None:
    process = start(HOLDER, path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but a zombie still
    with hold_lock(path, "second"):
        assert read_holder(path)["what"] == "second"  # type: ignore[index]
    process.wait()


def test_a_reused_process_id_is_not_taken_for_the_holder(path: Path) -> None:
    write_lease(path, process_start="1")
    with hold_lock(path, "second"):
        pass


def test_a_live_holder_of_this_machine_is_respected(path: Path) -> None:
    write_lease(path)
    with pytest.raises(LockedError), hold_lock(path, "second"):
        pass


def test_a_lease_of_another_machine_goes_stale_by_age_alone(path: Path) -> None:
    write_lease(path, host="elsewhere", pid=1, refreshed=time.time() - lock.STALE_AFTER + 20)
    with pytest.raises(LockedError, match="elsewhere"), hold_lock(path, "second"):
        pass
    write_lease(path, host="elsewhere", pid=1, refreshed=time.time() - lock.STALE_AFTER - 1)
    with hold_lock(path, "second"):
        pass


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}", '{"refreshed": "soon"}', '{"pid": null}', "\x00"])
def test_a_broken_lease_blocks_until_it_is_old(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(LockedError, match="unreadable"), hold_lock(path, "second"):
        pass
    os.utime(path, (1, 1))
    with hold_lock(path, "second"):
        pass


def test_a_holder_keeps_its_lease_fresh(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "REFRESH_EVERY", 0.02)
    with hold_lock(path, "curate"):
        first = json.loads(path.read_text())["refreshed"]
        deadline = time.monotonic() + 10
        while json.loads(path.read_text())["refreshed"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_lease_that_was_taken_over_is_left_to_its_new_holder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "REFRESH_EVERY", 0.02)
    with hold_lock(path, "slept too long"):
        write_lease(path, token="other", host="elsewhere", what="new holder")
        time.sleep(0.1)
    assert json.loads(path.read_text())["what"] == "new holder"


def test_a_fresh_lease_that_was_renamed_away_by_mistake_is_given_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a taker's look (stale) and its rename, a faster taker may have put its own fresh lease there."""
    write_lease(path)
    looks = []

    def look(asked: Path) -> dict[str, Any] | None:
        looks.append(asked)
        return None if len(looks) == 1 else read_holder(asked)

    monkeypatch.setattr(lock, "read_holder", look)
    with pytest.raises(LockedError, match="curate faces"), hold_lock(path, "slow taker"):
        pass
    assert looks[1] != path  # it did look at what it had renamed
    assert leases(path) == [path.name]
    assert read_holder(path) is not None


@pytest.mark.parametrize("stale", [False, True])
def test_of_racing_processes_exactly_one_wins(path: Path, tmp_path: Path, stale: bool) -> None:
    path.parent.mkdir(parents=True)
    if stale:
        write_lease(path, process_start="1")
    gun = tmp_path / "gun"
    racers = [start(RACER, path, gun) for _ in range(4)]
    try:
        assert all(racer.stdout is not None and racer.stdout.readline() == "ready\n" for racer in racers)
        gun.touch()
        results = [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]
        assert sorted(results) == ["lost", "lost", "lost", "won"]
    finally:
        for racer in racers:
            racer.communicate("")
    assert leases(path) == []
