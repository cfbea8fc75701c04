"""What a lock's file says, and whether its holder lives.

A lease names its holder (host, boot, pid namespace, process, what for, since when). Its file's modification time is
the holder's last sign of life: giving one needs no room on the disk, and touches the holder's own file only, never
that of somebody who took over.

A lease is dead when the kernel says that its process is gone: at once, but only where process numbers mean the same
(host, boot and pid namespace are ours). Elsewhere only silence counts: the lease is older than `STALE_AFTER`, and a
waiter saw no sign of life for a while by its own clock. So neither a clock that is set nor clocks that differ make a
live lease dead, or a dead one live for ever.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

REFRESH_EVERY = 10.0  # seconds
STALE_AFTER = 60.0  # seconds without a sign of life: six missed ones


class Standing(Enum):
    """What a waiter thinks of a lease."""

    HELD = "held"
    UNSURE = "unsure"  # its time says dead, or makes no sense: some seconds of watching will tell
    STALE = "stale"


@dataclass(frozen=True)
class Look:
    """A lease as it was found at one moment."""

    holder: dict[str, Any]
    alive_at: int  # last sign of life: the file's modification time, ns

    @property
    def mark(self) -> tuple[str, int]:
        """Differs between any two leases, and between any two signs of life of one."""
        return str(self.holder.get("token")), self.alive_at


def this_process() -> dict[str, Any]:
    """Who we are, for a lease: host, boot, pid_namespace, pid, process_start. None stands for what cannot be known."""
    pid = os.getpid()
    boot = namespace = None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {
        "host": socket.gethostname(),
        "boot": boot,
        "pid_namespace": namespace,
        "pid": pid,
        "process_start": process_start(pid),
    }


def _read_stat(pid: int) -> tuple[str, str] | None:
    """State and start (clock ticks since boot) of a process; None when it is gone or hidden from us."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return state, fields[18]
    except (OSError, IndexError, ValueError):
        return None


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in clock ticks since boot; None when it is gone, or dead and unburied."""
    found = _read_stat(pid)
    return None if found is None or found[0] in "ZX" else found[1]


def process_runs(holder: dict[str, Any]) -> bool | None:
    """Whether the holder's process runs; None when that cannot be known from here.

    Process numbers are compared only within one pid namespace of one boot of one host. A number that was given to
    another process does not deceive: the start is compared, too.
    """
    ours = this_process()
    if any(ours[key] is None or holder.get(key) != ours[key] for key in ("host", "boot", "pid_namespace")):
        return None
    found = _read_stat(holder["pid"])
    if found is not None:
        if found[0] in "ZX":
            return False
        return None if holder.get("process_start") is None else found[1] == holder["process_start"]
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return None  # it is there, hidden from us: perhaps another one with the same number
    return None


def parse_lease(data: bytes) -> dict[str, Any] | None:
    """A lease's content; None when it is not one."""
    try:
        lease = json.loads(data)
    except ValueError:
        return None
    kinds: dict[str, type | tuple[type, ...]] = {"host": str, "pid": int, "what": str, "taken": (int, float)}
    sound = isinstance(lease, dict) and all(isinstance(lease.get(name), kind) for name, kind in kinds.items())
    return lease if sound and 0 < lease["pid"] < 2**31 else None


def look_at(path: Path) -> Look | None:
    """The lease at `path`; None when there is none. Raises OSError when it cannot be read."""
    try:
        with path.open("rb") as stream:  # opening it makes a network file system fetch the newest times
            alive_at = os.fstat(stream.fileno()).st_mtime_ns
            content = stream.read(65536)
    except FileNotFoundError:
        return None
    holder = parse_lease(content)
    if holder is None:
        # made by something else, or empty: its holder found the disk full. Age alone decides
        what = "unreadable lease" if content else "began on a full disk, so it could not write its name"
        holder = {"host": "unknown", "pid": -1, "what": what, "taken": alive_at / 1e9}
    return Look({**holder, "refreshed": alive_at / 1e9}, alive_at)


def read_holder(path: Path) -> dict[str, Any] | None:
    """Who holds the lock at `path`, or None when nobody does, as far as one look can tell.

    Keys: host, pid, what, taken and refreshed (Unix time, s), and more where the lease says more.
    """
    look = look_at(path)
    if look is None:
        return None
    runs = process_runs(look.holder)
    if runs is None:
        runs = time.time() - look.alive_at / 1e9 <= STALE_AFTER
    return look.holder if runs else None


class Watch:
    """One waiter's looks at one lock, timed by a clock that nobody sets."""

    def __init__(self) -> None:
        self._mark: tuple[str, int] | None = None
        self._since = 0.0
        self._moved = False  # the holder gave a sign of life while we watched

    def judge(self, look: Look) -> Standing:
        runs = process_runs(look.holder)
        if runs is not None:
            return Standing.HELD if runs else Standing.STALE
        now = time.monotonic()
        if look.mark != self._mark:
            self._moved = self._mark is not None and self._mark[0] == look.mark[0]
            self._mark, self._since = look.mark, now
        silent = now - self._since
        age = time.time() - look.alive_at / 1e9
        seems_dead = age > STALE_AFTER and not self._moved
        # what seems dead must miss one more sign of life: its host's clock may be behind ours, or ours was set
        if silent >= (min(1.5 * REFRESH_EVERY, STALE_AFTER) if seems_dead else STALE_AFTER):
            return Standing.STALE
        return Standing.HELD if self._moved or abs(age) <= STALE_AFTER else Standing.UNSURE


def describe_holder(holder: dict[str, Any]) -> str:
    """Who holds a lock and since when: `process 7 on host (curate faces), since 2026-01-31 08:00:00+00:00`."""
    if holder["pid"] < 0:
        return f"an unknown process ({holder['what']})"
    since = dt.datetime.fromtimestamp(holder["taken"], dt.UTC).astimezone().isoformat(" ", "seconds")
    return f"process {holder['pid']} on {holder['host']} ({holder['what']}), since {since}"
