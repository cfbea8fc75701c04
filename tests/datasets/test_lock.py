"""The lock: one holder at a time, named to the others, and no dead holder in the way for long."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets import leases, lock
from datasets.errors import LockedError
from datasets.leases import Watch, look_at, process_runs, process_start, this_process
from datasets.lock import STORE_LOCK_FILE, hold_dataset, hold_lock, hold_store, read_holder
from datasets.store import Store

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
# builds and gc, two threads of each per process: whoever is inside leaves a mark, and reports marks that must not be
CROWD = """
import random, sys, threading, time, uuid
from pathlib import Path
from datasets import lock
from datasets.errors import LockedError
from datasets.lock import hold_dataset, hold_store
from datasets.store import Store
store, marks, gun = Store(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
lock.LOOK_EVERY = 0.002
entered = {"build": 0, "gc": 0}

def work(kind, name, seed):
    chance = random.Random(seed)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        wait = chance.choice([0.0, 0.5])
        try:
            with hold_dataset(store, name, "curate", wait) if kind == "build" else hold_store(store, "gc", wait):
                mine = marks / f"{kind}-{name}-{uuid.uuid4().hex}"
                mine.touch()
                entered[kind] += 1
                time.sleep(chance.uniform(0, 0.004))
                for other in marks.iterdir():
                    if other != mine and ("gc" in (kind, other.name.split("-")[0]) or other.name.split("-")[1] == name):
                        print(f"CLASH {mine.name} {other.name}", flush=True)
                mine.unlink()
        except LockedError:
            pass
        time.sleep(chance.uniform(0, 0.05 if kind == "gc" else 0.005))  # gc is rare

print("ready", flush=True)
while not gun.exists():
    time.sleep(0.001)
seed = int(sys.argv[4])
crew = [("build", "one"), ("build", "two"), ("gc", "all"), ("build", "one")]
threads = [threading.Thread(target=work, args=(*who, seed * 10 + k)) for k, who in enumerate(crew)]
[t.start() for t in threads]
[t.join() for t in threads]
print("entered", entered["build"], entered["gc"], flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "faces" / "lock.json"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that go stale within about a second."""
    monkeypatch.setattr(leases, "REFRESH_EVERY", 0.4)
    monkeypatch.setattr(leases, "STALE_AFTER", 1.2)
    monkeypatch.setattr(lock, "LOOK_EVERY", 0.02)


def write_lease(path: Path, age: float = 0.0, **changes: Any) -> None:
    """A lease of this process, unless the changes say otherwise, whose last sign of life was `age` seconds ago."""
    content = {"token": "t", **this_process(), "what": "curate faces", "taken": time.time() - age}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes))
    os.utime(path, (time.time() - age,) * 2)


def beside(path: Path) -> list[str]:
    """What lies beside the lock, the empty file of the takers' turns left out."""
    return sorted(p.name for p in path.parent.iterdir() if not p.name.endswith(".turn"))


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def refused(path: Path, wait: float = 0.0) -> str:
    """What somebody is told who asks for a lock that is held."""
    with pytest.raises(LockedError) as caught, hold_lock(path, "second", wait):
        pass
    return str(caught.value)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_held_and_released(path: Path) -> None:
    with hold_lock(path, "curate faces"):
        holder = read_holder(path)
        assert holder is not None
        assert (holder["pid"], holder["what"]) == (os.getpid(), "curate faces")
    assert beside(path) == []


def test_a_second_holder_is_refused_and_told_by_whom_since_when_and_what_to_do(path: Path) -> None:
    with hold_lock(path, "curate faces"):
        told = refused(path)
        assert f"faces is being written by process {os.getpid()} on {socket.gethostname()} (curate faces)" in told
        assert f"since {time.strftime('%Y-%m-%d')}" in told
        assert "--wait MINUTES" in told
        assert read_holder(path) is not None
    with hold_lock(path, "publish"):
        pass


def test_an_exception_releases_the_lock(path: Path) -> None:
    with pytest.raises(KeyError), hold_lock(path, "curate"):
        raise KeyError
    assert not path.exists()


def test_waiting_for_a_holder_that_ends_and_saying_so_once(path: Path) -> None:
    process = start(HOLDER, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    waited: list[int] = []
    with (
        pytest.raises(LockedError),
        hold_lock(path, "second", wait_seconds=0.5, waiting=lambda holder: waited.append(holder["pid"])),
    ):
        pass
    assert waited == [process.pid]
    process.kill()
    with hold_lock(path, "second", wait_seconds=20):
        assert read_holder(path)["pid"] == os.getpid()  # type: ignore[index]
    process.wait()


def test_who_does_not_wait_is_not_told_of_waiting(path: Path) -> None:
    waited: list[Any] = []
    with hold_lock(path, "first"), pytest.raises(LockedError), hold_lock(path, "second", 0.0, waited.append):
        pass
    assert waited == []


def test_a_killed_holder_is_replaced_at_once_even_before_it_is_buried(path: Path) -> None:
    process = start(HOLDER, path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but a zombie still
    began = time.monotonic()
    with hold_lock(path, "second"):
        assert read_holder(path)["what"] == "second"  # type: ignore[index]
    assert time.monotonic() - began < leases.REFRESH_EVERY
    process.wait()


def test_a_reused_process_id_is_not_taken_for_the_holder(path: Path) -> None:
    write_lease(path, process_start="1")
    with hold_lock(path, "second"):
        pass


@pytest.mark.parametrize("age", [0.0, 3600.0, -3600.0])
def test_a_live_process_of_this_machine_is_respected_whatever_the_clock_says(path: Path, age: float) -> None:
    write_lease(path, age)
    assert "curate faces" in refused(path)


@pytest.mark.parametrize("elsewhere", [{"host": "elsewhere"}, {"boot": "other"}, {"pid_namespace": "pid:[1]"}])
def test_process_numbers_of_other_places_say_nothing(path: Path, elsewhere: dict[str, str]) -> None:
    gone = {"pid": 2**22 + 1, "process_start": "1"}
    assert process_runs({**this_process(), **gone}) is False
    assert process_runs({**this_process(), **gone, **elsewhere}) is None
    write_lease(path, **gone, **elsewhere)
    assert "curate faces" in refused(path)  # a container that shares our host's name may well be alive


def test_a_place_that_cannot_be_known_says_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = {**this_process(), "boot": None, "pid_namespace": None}
    monkeypatch.setattr(leases, "this_process", lambda: nowhere)
    assert process_runs({**nowhere, "pid": 2**22 + 1, "process_start": "1"}) is None


def test_a_process_that_is_hidden_from_us_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**this_process(), "process_start": "1"}
    monkeypatch.setattr(leases, "_read_stat", lambda pid: None)
    assert process_runs(other) is None


def test_a_dead_lease_of_another_machine_expires(path: Path, soon: None) -> None:
    write_lease(path, host="elsewhere", pid=1)
    assert "process 1 on elsewhere (curate faces)" in refused(path)
    waited: list[str] = []
    with hold_lock(path, "second", wait_seconds=20, waiting=lambda holder: waited.append(holder["host"])):
        assert read_holder(path)["what"] == "second"  # type: ignore[index]
    assert waited == ["elsewhere"]


def test_a_lease_that_looks_dead_is_watched_before_it_is_taken(path: Path, soon: None) -> None:
    write_lease(path, age=3600, host="elsewhere", pid=1)
    began = time.monotonic()
    with hold_lock(path, "second"):  # even by one who would not wait for a live holder
        pass
    assert time.monotonic() - began >= 1.5 * leases.REFRESH_EVERY


@pytest.mark.parametrize("offset", [-3600.0, 3600.0])
def test_a_live_lease_is_respected_however_wrong_its_clock(path: Path, soon: None, offset: float) -> None:
    """Its host's clock is an hour behind or ahead of ours, or ours was set: its signs of life count, not their time."""
    write_lease(path, age=-offset, host="elsewhere", pid=1)
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(0.05):
            os.utime(path, (time.time() + offset,) * 2)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert "elsewhere" in refused(path)
        assert "elsewhere" in refused(path, wait=2.0)
    finally:
        stop.set()
        thread.join()


def test_a_dead_lease_from_the_future_does_not_live_for_ever(path: Path, soon: None) -> None:
    write_lease(path, age=-86400, host="elsewhere", pid=1)
    with hold_lock(path, "second"):
        assert read_holder(path)["what"] == "second"  # type: ignore[index]


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}", '{"taken": "soon"}', '{"pid": null}', "\x00"])
def test_a_broken_lease_blocks_until_it_is_old(path: Path, soon: None, content: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert ("unreadable" if content else "full disk") in refused(path)
    os.utime(path, (1, 1))
    with hold_lock(path, "second"):
        pass


def test_a_holder_keeps_its_lease_fresh(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "REFRESH_EVERY", 0.02)
    with hold_lock(path, "curate"):
        first = path.stat().st_mtime_ns
        wait_for(lambda: path.stat().st_mtime_ns != first)


def test_a_lease_that_was_taken_over_is_left_to_its_new_holder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "REFRESH_EVERY", 0.02)
    with hold_lock(path, "slept too long") as lease:
        lease.ensure_held()
        path.unlink()
        write_lease(path, token="other", host="elsewhere", what="new holder")
        before = path.stat().st_mtime_ns
        time.sleep(0.1)
        assert path.stat().st_mtime_ns == before  # our signs of life do not keep another's lease alive
        with pytest.raises(LockedError, match=r"faces.*taken over or removed.*Run it again"):
            lease.ensure_held()
    assert json.loads(path.read_text())["what"] == "new holder"


def test_a_removed_lock_is_noticed(path: Path) -> None:
    with hold_lock(path, "curate") as lease:
        path.unlink()
        with pytest.raises(LockedError):
            lease.ensure_held()


def test_a_full_disk_costs_the_lock_only_after_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "STALE_AFTER", 1.0)
    with hold_lock(path, "curate") as lease:

        def no_room(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "utime", no_room)
        lease.ensure_held()  # the last sign of life is recent: nobody can have taken it over
        time.sleep(0.6)
        with pytest.raises(LockedError, match="No space left"):
            lease.ensure_held()
        monkeypatch.undo()
        lease.ensure_held()  # room again, and still ours


@pytest.mark.parametrize("room", [0, 7])
def test_a_lock_can_be_taken_on_a_full_disk(path: Path, soon: None, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    write = os.write

    def fill_disk(descriptor: int, data: bytes) -> int:
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:room])

    monkeypatch.setattr(os, "write", fill_disk)
    with hold_lock(path, "gc") as lease:
        monkeypatch.undo()
        assert path.stat().st_size == 0
        lease.ensure_held()
        assert "an unknown process (began on a full disk" in refused(path)
    assert beside(path) == []


def test_a_lease_that_gives_a_sign_of_life_at_the_last_moment_is_given_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a taker's look (stale) and its rename the holder refreshes."""
    write_lease(path, age=3600, host="elsewhere", pid=1)
    monkeypatch.setattr(Watch, "judge", lambda watch, look: judged.pop(0) if judged else leases.Standing.HELD)
    judged = [leases.Standing.STALE]
    rename = Path.rename

    def late(source: Path, target: Path) -> Path:
        os.utime(source)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", late)
    assert "elsewhere" in refused(path)
    assert judged == []
    assert beside(path) == [path.name]
    assert look_at(path).holder["token"] == "t"  # type: ignore[union-attr]


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
    assert beside(path) == []


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without hard links: exFAT, FUSE, a network share."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def test_a_lock_on_a_disk_without_hard_links(path: Path, no_links: None) -> None:
    with hold_lock(path, "curate faces") as lease:
        assert "(curate faces)" in refused(path)
        lease.ensure_held()
    assert beside(path) == []
    write_lease(path, process_start="1")
    with hold_lock(path, "second"):
        assert read_holder(path)["what"] == "second"  # type: ignore[index]
    assert beside(path) == []


def test_a_taker_that_comes_too_late_without_hard_links(
    path: Path, no_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine, which our turn does not keep out, takes the lock between our look and our step."""
    opened = os.open

    def be_late(name: Path, *rest: Any) -> int:
        if name == path and not path.exists():
            write_lease(path, host="elsewhere")
        return opened(name, *rest)

    monkeypatch.setattr(os, "open", be_late)
    assert "elsewhere" in refused(path)
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_a_sign_of_life_at_the_last_moment_without_hard_links(
    path: Path, no_links: None, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lease(path, age=3600, host="elsewhere", pid=1)
    rename = Path.rename
    inode = path.stat().st_ino

    def live(source: Path, target: Path) -> Path:
        if source == path:
            os.utime(source)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", live)
    assert "elsewhere" in refused(path)
    assert path.stat().st_ino == inode  # its own file: its holder goes on refreshing it
    assert beside(path) == [path.name]


def test_a_failing_disk_leaves_no_lock_behind(path: Path, no_links: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, data: bytes) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(lock, "_take_by_link", lambda *arguments: os.link("a", "b"))
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match="Input/output"), hold_lock(path, "curate"):
        pass
    assert beside(path) == []


def test_a_build_and_gc_name_each_other(store: Store) -> None:
    with hold_dataset(store, "faces", "curate faces"):
        with hold_dataset(store, "paintings", "curate paintings"):
            pass
        with pytest.raises(LockedError, match=r"faces is being written.*\(curate faces\)"), hold_store(store, "gc"):
            pass
    with hold_store(store, "gc"):
        with pytest.raises(LockedError, match=r"the store .* \(gc\)"), hold_dataset(store, "faces", "curate faces"):
            pass
        assert not (store.dataset("faces") / "lock.json").exists()
    assert not (store.root / STORE_LOCK_FILE).exists()


def test_a_build_leaves_nothing_of_the_stores_lock(store: Store) -> None:
    with hold_dataset(store, "faces", "curate faces"):
        pass
    assert [path.name for path in store.root.iterdir()] == ["datasets"]


def test_a_dead_gc_is_in_nobodys_way(store: Store) -> None:
    write_lease(store.root / STORE_LOCK_FILE, process_start="1", what="gc")
    with hold_dataset(store, "faces", "curate faces"):
        pass


def test_gc_waits_for_the_build_and_the_next_build_for_gc(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOOK_EVERY", 0.01)
    order: list[str] = []
    told: list[str] = []

    def clean() -> None:
        with hold_store(store, "gc", 20, lambda holder: told.append(holder["what"])):
            order.append("gc")
            time.sleep(0.1)

    def build() -> None:
        with hold_dataset(store, "paintings", "curate paintings", 20, lambda holder: told.append(holder["what"])):
            order.append("second")

    threads = [threading.Thread(target=clean), threading.Thread(target=build)]
    with hold_dataset(store, "faces", "curate faces"):
        threads[0].start()
        wait_for(lambda: "curate faces" in told)
        threads[1].start()
        wait_for(lambda: "gc" in told)
        order.append("first")
    for thread in threads:
        thread.join()
    assert order == ["first", "gc", "second"]
    assert told == ["curate faces", "gc"]


def test_builds_and_gc_of_many_processes_never_meet(store: Store, tmp_path: Path) -> None:
    marks, gun = tmp_path / "marks", tmp_path / "gun"
    marks.mkdir()
    crowd = [start(CROWD, store.root, marks, gun, seed) for seed in range(3)]
    assert all(process.stdout is not None and process.stdout.readline() == "ready\n" for process in crowd)
    gun.touch()
    said = [process.communicate(timeout=60)[0] for process in crowd]
    assert [line for text in said for line in text.splitlines() if line.startswith("CLASH")] == []
    builds, cleanings = (sum(int(text.split()[k]) for text in said) for k in (-2, -1))
    assert builds >= 3
    assert cleanings >= 3
    assert list(marks.iterdir()) == []


def test_this_process_is_known() -> None:
    ours = this_process()
    assert ours["process_start"] == process_start(os.getpid())
    assert process_runs(ours) is True
