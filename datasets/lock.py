"""Locks: one holder at a time, named to the others, and no dead holder in the way for long.

A lock is a file that holds a lease (`datasets/leases.py`), which its holder refreshes. A dataset's lock keeps two
builds apart. The store's lock keeps `gc` and builds apart: each takes its own lock first and looks for the other's
then, so never both are inside.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import leases
from datasets.errors import LockedError
from datasets.leases import Look, Standing, Watch, describe_holder, look_at, read_holder, this_process
from datasets.store import Store

__all__ = ["Lease", "hold_dataset", "hold_lock", "hold_store", "read_holder"]
log = logging.getLogger(__name__)

LOOK_EVERY = 0.2  # seconds between a waiter's looks
STEP_BACK = 2.0  # seconds that `gc` gives a build, that has just begun, to see it and step back

LOCK_FILE = "lock.json"
STORE_LOCK_FILE = "gc.lock.json"

# what os.link says on a disk without hard links: exFAT, FUSE, network shares
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

Waiting = Callable[[dict[str, Any]], None]  # told of each holder that is waited for, once


@dataclass
class Lease:
    """A lock that is held by us."""

    path: Path
    descriptor: int  # of our own lease file, wherever it may have been moved; open, so its number is not given again
    _refreshed: float = field(default_factory=lambda: _steady_clock())

    def refresh(self) -> None:
        """Give a sign of life. Raises OSError."""
        os.utime(self.descriptor)
        self._refreshed = _steady_clock()

    def is_ours(self) -> bool:
        """Whether the lock's file is still our lease. Raises OSError when it cannot be read."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def ensure_held(self) -> None:
        """Refresh the lease and see that it is still ours. Call it right before a step that only its holder may do.

        After it returns nobody takes the lock over for `STALE_AFTER` seconds. Raises LockedError when somebody did, or
        when that cannot be ruled out: the machine was asleep, the lock was removed, its disk is gone.
        """
        why = f"its lock {self.path} was taken over or removed"
        try:
            self.refresh()
            held = self.is_ours()
        except OSError as error:
            held = _steady_clock() - self._refreshed < leases.STALE_AFTER / 2
            why = f"its lock {self.path} could not be refreshed ({error})"
        if not held:
            raise LockedError(
                f"This process no longer holds {_name(self.path)}: {why}. It was stopped before it changed anything "
                "that another may be changing now. Run it again; what it has measured is kept."
            )


def _steady_clock() -> float:
    """Seconds that pass while the machine sleeps, too, where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _name(path: Path) -> str:
    """What a lock is of, for people."""
    return f"the store {path.parent}" if path.name == STORE_LOCK_FILE else path.parent.name


class _Wait:
    """How long to wait, and who is told for whom."""

    def __init__(self, seconds: float, waiting: Waiting | None) -> None:
        self.deadline = time.monotonic() + seconds
        self._waiting = waiting
        self._told: set[Any] = set()

    def pause(self, path: Path, look: Look, standing: Standing, at_least_until: float = 0.0) -> None:
        """Wait a moment for a holder, or raise LockedError when the time is up."""
        if standing is Standing.HELD and time.monotonic() >= max(self.deadline, at_least_until):
            raise LockedError(
                f"{_name(path)} is being written by {describe_holder(look.holder)}. "
                "Wait for it with --wait MINUTES (wait_minutes in a form), or end that process. The lock of one that "
                f"died is taken over: at once on the same machine, else after {leases.STALE_AFTER:.0f} s."
            )
        token = look.holder.get("token")
        if self._waiting is not None and token not in self._told:
            self._told.add(token)
            self._waiting(look.holder)
        time.sleep(LOOK_EVERY)


@contextmanager
def hold_lock(path: Path, what: str, wait_seconds: float = 0.0, waiting: Waiting | None = None) -> Iterator[Lease]:
    """Hold the lock file at `path` for the body.

    what: said to others who ask for it ("curate faces"). wait_seconds: how long to wait for another holder; a lease
    whose time says that it is dead is watched for some seconds even when that is 0. waiting: told whom we wait for.
    Raises LockedError, naming the holder, when it is not free in time.
    """
    with _hold(path, what, _Wait(wait_seconds, waiting)) as lease:
        yield lease


@contextmanager
def hold_dataset(
    store: Store, name: str, what: str, wait_seconds: float = 0.0, waiting: Waiting | None = None
) -> Iterator[Lease]:
    """Hold a dataset for the body: no other build of it, and no `gc` of the store, is inside meanwhile.

    Arguments and errors as `hold_lock`. The lease's `ensure_held` belongs right before the publishing rename.
    """
    gate, path, wait = store.root / STORE_LOCK_FILE, store.dataset(name) / LOCK_FILE, _Wait(wait_seconds, waiting)
    watch = Watch()
    while True:
        _wait_until_free(gate, watch, wait)
        with _hold(path, what, wait) as lease:
            # gc that takes the store from now on sees our lock; gc that took it before is seen here
            look = _look_in_turn(gate)
            if look is None or watch.judge(look) is Standing.STALE:
                yield lease
                return


@contextmanager
def hold_store(store: Store, what: str, wait_seconds: float = 0.0, waiting: Waiting | None = None) -> Iterator[Lease]:
    """Hold the whole store for the body: no build of any dataset is inside meanwhile, and none begins.

    Builds that begin while this one waits for another build to end wait, too. Arguments and errors as `hold_lock`.
    """
    wait = _Wait(wait_seconds, waiting)
    with _hold(store.root / STORE_LOCK_FILE, what, wait) as lease:
        # from here on a build sees our lease when it has its lock, and steps back: what is free now stays free
        for name in store.dataset_names():
            _wait_until_free(store.dataset(name) / LOCK_FILE, Watch(), wait, time.monotonic() + STEP_BACK)
        lease.ensure_held()
        yield lease


def _wait_until_free(path: Path, watch: Watch, wait: _Wait, at_least_until: float = 0.0) -> None:
    """Wait until nobody holds the lock at `path`. Raises LockedError when the time is up."""
    while (look := _look_in_turn(path)) is not None:
        standing = watch.judge(look)
        if standing is Standing.STALE:
            return
        wait.pause(path, look, standing, at_least_until)


@contextmanager
def _hold(path: Path, what: str, wait: _Wait) -> Iterator[Lease]:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"token": uuid.uuid4().hex, **this_process(), "what": what, "taken": time.time()}
    watch = Watch()
    while not isinstance(found := _take(path, content, watch), Lease):
        if found is not None:
            wait.pause(path, *found)
    stop = threading.Event()
    refresher = threading.Thread(target=_keep_fresh, args=(found, stop), daemon=True, name="lease")
    refresher.start()
    try:
        yield found
    finally:
        stop.set()
        refresher.join()
        _release(found)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """No other process of this machine takes, releases or looks for the lock at `path` in the body.

    Taking a stale lease over is several steps, between which a third taker could slip in. A file system without
    advisory locks leaves that small gap open.
    """
    with path.with_name(f".{path.name}.turn").open("a") as turn:
        with suppress(OSError):
            fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _look_in_turn(path: Path) -> Look | None:
    """The lease at `path`, and not the gap of a moment in which another process looks at it aside."""
    if not path.with_name(f".{path.name}.turn").exists():
        return look_at(path)  # nobody has ever taken it: looking leaves nothing behind
    with _turn(path):
        return look_at(path)


def _take(path: Path, content: dict[str, Any], watch: Watch) -> Lease | tuple[Look, Standing] | None:
    """Take the lock, or return who is in the way; None when somebody was, and it is worth trying at once again."""
    with _turn(path):
        if (look := look_at(path)) is not None:
            standing = watch.judge(look)
            if standing is not Standing.STALE:
                return look, standing
            if not _bury(path, look, content["token"]):
                return None
        said = json.dumps(content).encode()
        try:
            return _take_by_link(path, said, content["token"])
        except FileExistsError:
            return None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        try:
            return _take_in_place(path, said)
        except FileExistsError:
            return None


def _take_by_link(path: Path, content: bytes, token: str) -> Lease:
    """A lease that appears whole: the hard link makes taking it one indivisible step. Raises OSError."""
    mine = path.with_name(f".{path.name}.{token}")
    descriptor = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _fill(descriptor, content)
        os.link(mine, path)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        mine.unlink()
    return Lease(path, descriptor)


def _take_in_place(path: Path, content: bytes) -> Lease:
    """A lease where there are no hard links: made in one step, filled in the next.

    Between them it names nobody to processes that are not kept out by our turn, but it holds. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _fill(descriptor, content)
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    return Lease(path, descriptor)


def _fill(descriptor: int, content: bytes) -> None:
    """Write a lease; where there is no room for it, leave it empty: `gc` must be able to begin on a full disk.

    An empty lease names nobody, but it is refreshed and goes stale like any other.
    """
    try:
        whole = os.write(descriptor, content) == len(content)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        whole = False
    if not whole:
        os.ftruncate(descriptor, 0)


def _bury(path: Path, dead: Look, token: str) -> bool:
    """Move a dead lease out of the way; False when it was not there any more, or gave a sign of life at last."""
    grave = path.with_name(f".{path.name}.{token}.stale")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return False
    look = look_at(grave)
    alive = look is not None and look.mark != dead.mark
    if alive:
        _put_back(grave, path)
    grave.unlink(missing_ok=True)
    return not alive


def _put_back(grave: Path, path: Path) -> None:
    """Give a living lease its place again; another taker may have been faster still, then that one's stays."""
    try:
        os.link(grave, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not path.exists():  # our turn keeps others out from here to the renaming
            grave.rename(path)


def _release(lease: Lease) -> None:
    """Give the lock back, if it is still ours: a machine that slept for minutes may have lost it."""
    try:
        with _turn(lease.path):
            if lease.is_ours():
                lease.path.unlink()
    except OSError as error:
        # the body's own outcome matters more; others see that this process has ended
        log.warning("the lock %s could not be given back: %s", lease.path, error)
    finally:
        os.close(lease.descriptor)


def _keep_fresh(lease: Lease, stop: threading.Event) -> None:
    """Give signs of life until told to stop; trouble is said once, and may pass."""
    warned = False
    while not stop.wait(leases.REFRESH_EVERY):
        try:
            lease.refresh()
            trouble = "" if lease.is_ours() else "it was taken over or removed"
        except OSError as error:
            trouble = str(error)
        if trouble and not warned:
            log.warning("the lock %s is in danger: %s", lease.path, trouble)
        warned = bool(trouble)
