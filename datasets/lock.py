"""The dataset's lock: a lease that names its holder, is refreshed while it is held, and goes stale.

As restic does it: a lock is a small file that says who holds it and when it was last refreshed. A holder that died
leaves a lease that nobody refreshes; it is taken over at once when the process is gone from this machine, and after
`STALE_AFTER` seconds when it was on another.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from datasets.atomic import write_text
from datasets.errors import LockedError

log = logging.getLogger(__name__)

REFRESH_EVERY = 10.0  # seconds
STALE_AFTER = 60.0  # seconds without a refresh: six missed ones


_JUST_TAKEN: dict[str, Any] = {"pid": "?", "host": "?", "what": "just taken"}


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in clock ticks since boot; None when it is gone, or dead and unburied."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if state in "ZX" else fields[18]
    except (OSError, IndexError, ValueError):
        return None


def _process_is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder surely no longer runs. A process id that was given to another process does not fool it."""
    if holder.get("host") != socket.gethostname():
        return False
    if holder.get("process_start") is not None:
        return process_start(int(holder["pid"])) != holder["process_start"]
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def read_holder(path: Path) -> dict[str, Any] | None:
    """Who holds the lock at `path`, or None when nobody does (no file, or a lease that went stale)."""
    try:
        holder = _parse_lease(path.read_bytes())
        if holder is None:
            # a lease is written in one step, so a broken one was made by something else: age alone decides
            holder = {"refreshed": path.stat().st_mtime, "host": "unknown", "pid": -1, "what": "unreadable lease"}
    except FileNotFoundError:
        return None
    if time.time() - float(holder["refreshed"]) > STALE_AFTER or _process_is_gone(holder):
        return None
    return holder


def _parse_lease(data: bytes) -> dict[str, Any] | None:
    """A lease's content; None when it is not one."""
    try:
        lease = json.loads(data)
    except ValueError:
        return None
    kinds: dict[str, type | tuple[type, ...]] = {"refreshed": (int, float), "host": str, "pid": int, "what": str}
    sound = isinstance(lease, dict) and all(isinstance(lease.get(name), kind) for name, kind in kinds.items())
    return lease if sound else None


@contextmanager
def hold_lock(path: Path, what: str, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock file at `path` for the body.

    what: said to others who ask for it ("curate faces"). wait_seconds: how long to wait for another holder.
    Raises LockedError, naming the holder, when it is not free in time.
    """
    lease = {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": process_start(os.getpid()),
        "what": what,
        "taken": time.time(),
    }
    deadline = time.monotonic() + wait_seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    while (holder := _take_in_turn(path, lease)) is not None:
        if time.monotonic() >= deadline:
            raise LockedError(
                f"{path.parent.name} is being written by process {holder['pid']} on {holder['host']} "
                f"({holder['what']}). "
                f"Wait for it to end, or stop it; a dead holder's lock expires after {STALE_AFTER:.0f} s."
            )
        time.sleep(0.2)
    stop = threading.Event()
    refresher = threading.Thread(target=_refresh, args=(path, lease, stop), daemon=True, name="lease")
    refresher.start()
    try:
        yield
    finally:
        stop.set()
        refresher.join()
        if _is_mine(path, lease):
            path.unlink(missing_ok=True)


def _take_in_turn(path: Path, lease: dict[str, Any]) -> dict[str, Any] | None:
    """Take the lock, or return its holder, while no other process of this machine tries.

    Taking a stale lease over is several steps, between which a third taker could slip in. A file system without
    advisory locks leaves that small gap open.
    """
    with path.with_name(f".{path.name}.turn").open("a") as turn:
        with suppress(OSError):
            fcntl.flock(turn, fcntl.LOCK_EX)
        return _try_to_take(path, lease)


def _try_to_take(path: Path, lease: dict[str, Any]) -> dict[str, Any] | None:
    """Take the lock, or return its holder. The hard link makes taking it one indivisible step."""
    if (holder := read_holder(path)) is not None:
        return holder
    if path.exists():
        # Stale. Renaming it away lets only one of several takers win.
        grave = path.with_name(f".{path.name}.{lease['token']}.stale")
        try:
            path.rename(grave)
        except FileNotFoundError:
            return read_holder(path) or _JUST_TAKEN
        if read_holder(grave) is not None:
            # another taker was faster and this is its fresh lease: give it back
            with suppress(FileExistsError):  # a third taker may have been faster still; its lease stays
                os.link(grave, path)
            grave.unlink()
            return read_holder(path) or _JUST_TAKEN
        grave.unlink()
    mine = path.with_name(f".{path.name}.{lease['token']}")
    mine.write_text(json.dumps({**lease, "refreshed": time.time()}))
    try:
        os.link(mine, path)
    except FileExistsError:
        return read_holder(path) or _JUST_TAKEN
    finally:
        mine.unlink()
    return None


def _is_mine(path: Path, lease: dict[str, Any]) -> bool:
    """Whether the lease is still ours: a machine that slept for minutes may have lost it."""
    try:
        return bool(json.loads(path.read_text()).get("token") == lease["token"])
    except (OSError, ValueError):
        return False


def _refresh(path: Path, lease: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(REFRESH_EVERY):
        if not _is_mine(path, lease):
            log.warning("the lock %s was taken over by somebody else", path)
            return
        try:
            write_text(path, json.dumps({**lease, "refreshed": time.time()}))
        except OSError as error:
            # a full disk may have room again at the next turn
            log.warning("the lock %s could not be refreshed: %s", path, error)
