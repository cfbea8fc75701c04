"""Every file operation of a build fails once, as on a full or dying disk: a clear error, and nothing lost.

SQLite tests itself like this. The n-th operation below the store fails, for every n; then the same command runs again
undisturbed and must publish what it would have published at once. The real command line runs, on real files; a shim
between it and the C library (fault_injection.c) makes the operation fail, whoever called it: Python, Arrow or Pillow.

By default ENOSPC fails at every place, other faults at a sample of places. KAOBAKO_TORTURE=long makes all of them fail
at every place (some minutes).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from datasets.lock import Lease
from tasks.build import BuildResult

HERE = Path(__file__).parent
LONG = os.environ.get("KAOBAKO_TORTURE") == "long"
STEP = 1 if LONG else 31
CHANGES, READS, REMOVALS = 1, 2, 4
pytestmark = [pytest.mark.slow, pytest.mark.timeout(6000 if LONG else 600)]

Look = dict[str, tuple[bytes, int, int]]


@dataclass(frozen=True)
class Fault:
    """Operation number `at` of these kinds fails; sticky: and all later ones. error 0: a write is cut short."""

    at: int
    error: int
    kinds: int = CHANGES | REMOVALS
    sticky: bool = False

    def __str__(self) -> str:
        name = errno.errorcode[self.error] if self.error else "short write"
        return f"{name} at operation {self.at}{' and all after it' if self.sticky else ''}"


class Server:
    """A process that runs `kaobako` on request; see build_server.py."""

    def __init__(self, shim: Path, folder: Path) -> None:
        self.folder = folder
        environment = {
            **os.environ,
            "LD_PRELOAD": str(shim),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PREFECT_HOME": str(folder / "prefect"),
        }
        command = [sys.executable, str(HERE / "build_server.py"), "16"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def curate(self, recipe: Path, store: Path, fault: Fault | None = None, kinds: int = 0) -> dict[str, Any]:
        """One `kaobako curate`: status, report, and what it wrote to standard error."""
        arguments = ["curate", str(recipe), "--store", str(store), "--no-prefect", "--workers", "1", "--json"]
        request = {
            "arguments": arguments,
            "output": str(self.folder),
            "root": str(store) if fault or kinds else None,
            "fault": [fault.kinds, fault.at, fault.error, int(fault.sticky)] if fault else [kinds, 0, 0, 0],
            "verify": [str(store), "faces"],
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n\n")
        self.process.stdin.flush()
        self.process.stdout.readline()
        ended = json.loads(self.process.stdout.readline())
        return {**ended, "said": (self.folder / "err").read_text()}

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the fault injector is a shared library for Linux: it needs a C compiler (apt-get install gcc)")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(HERE / "fault_injection.c"), "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def servers(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleQueue[Server]]:
    started = [Server(shim, tmp_path_factory.mktemp(f"server{k}")) for k in range(2)]
    queue: SimpleQueue[Server] = SimpleQueue()
    for server in started:
        queue.put(server)
    yield queue
    for server in started:
        server.close()


@dataclass(frozen=True)
class Work:
    """What is built, and what an undisturbed build of it comes to."""

    recipe: Path
    source: Path
    before: Path | None  # a store to begin with
    digests: tuple[str, str]
    numbers: list[int]
    operations: dict[int, int]  # how many an undisturbed build does, by kinds
    seen: Look


def look(source: Path) -> Look:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(source.iterdir())}


def newest(store: Path) -> tuple[str, str]:
    folder = max((store / "datasets" / "faces").glob("v*"))
    lineage = json.loads((folder / "version.json").read_text())
    return lineage["content_digest"], lineage["ledger_digest"]


def begin(store: Path, before: Path | None) -> Path:
    shutil.rmtree(store, ignore_errors=True)
    if before is not None:
        shutil.copytree(before, store)
    return store


def write_recipe(path: Path, source: Path, **clean: float) -> Path:
    lines = ['dataset = "faces"', "[source]", 'kind = "folder"', f"root = {json.dumps(str(source))}"]
    lines += ["[crop]", 'method = "whole"', "[upscale]", "size = 0", "[clean]"]
    path.write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in clean.items())]) + "\n")
    return path


@pytest.fixture(scope="module", params=["first version", "second version"])
def work(
    request: pytest.FixtureRequest,
    servers: SimpleQueue[Server],
    tmp_path_factory: pytest.TempPathFactory,
    draw: Callable[..., np.ndarray],
    png: Callable[[np.ndarray], bytes],
) -> Work:
    """Two pictures and a mirrored copy; into an empty store, or one that holds a version by stricter thresholds."""
    folder = tmp_path_factory.mktemp("work")
    source = folder / "source"
    source.mkdir()
    pictures = [draw(1, 96, 96), draw(2, 100, 96), draw(1, 96, 96)[:, ::-1]]
    for k, picture in enumerate(pictures):
        (source / f"{k}.png").write_bytes(png(picture))
    recipe = write_recipe(folder / "recipe.toml", source)
    server = servers.get()
    before = None
    if request.param == "second version":
        before = folder / "before"
        strict = write_recipe(folder / "strict.toml", source, min_contrast=127.0)
        assert server.curate(strict, before)["status"] == 0
        assert json.loads((before / "datasets/faces/v0001/version.json").read_text())["counts"]["clean"]["kept"] == 0
    operations = {}
    for kinds in (CHANGES, READS, CHANGES | REMOVALS):
        store = begin(folder / "store", before)
        done = server.curate(recipe, store, kinds=kinds)
        assert (done["status"], done["report"]["after"]) == (0, [])
        operations[kinds] = done["report"]["operations"]
    servers.put(server)
    numbers = [1] if before is None else [1, 2]
    return Work(recipe, source, before, newest(store), numbers, operations, look(source))


def disturb(server: Server, work: Work, fault: Fault) -> list[str]:
    """A build that fails, and one after it that does not: everything that is wrong with what they did."""
    store = begin(server.folder / "store", work.before)
    failed = server.curate(work.recipe, store, fault)
    first = failed["report"]["first"]
    complaints = judge_failure(failed, fault, work, store)
    if fault.at <= work.operations[fault.kinds] and not failed["report"]["hits"] and fault.error:
        complaints.append("nothing failed")
    complaints += [f"after the failure: {text}" for text in failed["report"]["after"]]
    if not fault.sticky and not first.startswith(("unlink", "rmdir")):
        complaints += [f"left behind: {path.name}" for path in store.rglob("*.tmp")]
    again = server.curate(work.recipe, store)
    if again["status"]:
        complaints.append(f"the next run failed: {again['said'][-300:]}")
    else:
        complaints += again["report"]["before"] + again["report"]["after"]
        folder = store / "datasets" / "faces"
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        # A scratch folder that could not be removed may stay until a build has something to do, or until gc.
        names = [name for name in names if not name.startswith(".work-")]
        if names != [f"v{number:04d}" for number in work.numbers]:
            complaints.append(f"in the dataset's folder: {names}")
        if newest(store) != work.digests:
            complaints.append("the next run published something else")
    if look(work.source) != work.seen:
        complaints.append("the source was touched")
    return [f"{fault} ({first}): {text}" for text in complaints]


def judge_failure(run: dict[str, Any], fault: Fault, work: Work, store: Path) -> list[str]:
    """What is wrong with how a run ended that met a fault."""
    if run["report"] is None:
        return [f"it died: {run['status']}"]
    if "Traceback" in run["said"]:
        return [f"a traceback: {run['said'][-600:]}"]
    if run["status"] == 0:
        said_so = run["report"]["hits"] == 0 or fault.error == 0 or is_harmless(run["report"]["first"], fault)
        wrong = [] if said_so else ["the error was swallowed"]
        return wrong if newest(store) == work.digests else [*wrong, "another version was published, without an error"]
    if fault.error == 0:
        return [f"a short write was taken for an error: {run['said'][-300:]}"]
    last = run["said"].rstrip().splitlines()[-1]
    named = os.strerror(fault.error) in last or fault.kinds == READS
    return [] if last.startswith("error: ") and named else [f"not a clear error: {last}"]


def is_harmless(first: str, fault: Fault) -> bool:
    """Errors that a build may bear in silence, if it publishes what it should.

    A folder that is there already cannot be made; leftovers are removed later; facts are found anew; and the lease is
    refreshed, and released, as well as can be: a dead holder's is taken over.
    """
    removal = first.startswith(("unlink", "rmdir")) and ("/.work-" in first or "/.staging-" in first)
    return removal or first.startswith("mkdir") or "lock.json" in first or fault.kinds == READS


def disturb_all(servers: SimpleQueue[Server], work: Work, faults: Sequence[Fault]) -> None:
    def one(fault: Fault) -> list[str]:
        server = servers.get()
        try:
            return disturb(server, work, fault)
        finally:
            servers.put(server)

    with ThreadPoolExecutor(2) as pool:
        complaints = [text for found in pool.map(one, faults) for text in found]
    assert complaints == [], "\n".join(complaints[:30])
    assert len(faults) >= 3


def places(work: Work, kinds: int, step: int = STEP, offset: int = 1) -> range:
    return range(offset, work.operations[kinds] + 1, step)


def test_a_full_disk_at_every_operation(servers: SimpleQueue[Server], work: Work) -> None:
    kinds = CHANGES | REMOVALS
    step = 1 if work.before is None else STEP
    disturb_all(servers, work, [Fault(at, errno.ENOSPC, kinds) for at in places(work, kinds, step)])


def test_a_disk_that_stays_full(servers: SimpleQueue[Server], work: Work) -> None:
    """What needs room fails from then on; removing works."""
    faults = [Fault(at, errno.ENOSPC, CHANGES, sticky=True) for at in places(work, CHANGES, offset=3)]
    disturb_all(servers, work, faults)


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "for good"])
def test_a_dying_disk(servers: SimpleQueue[Server], work: Work, sticky: bool) -> None:
    kinds = CHANGES | REMOVALS
    faults = [Fault(at, errno.EIO, kinds, sticky) for at in places(work, kinds, offset=5 if sticky else 7)]
    disturb_all(servers, work, faults)


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "for good"])
def test_a_store_that_cannot_be_read(servers: SimpleQueue[Server], work: Work, sticky: bool) -> None:
    """An unreadable measurement may be found anew; whatever is published is what would have been published."""
    step = 1 if LONG else 2 * STEP
    disturb_all(servers, work, [Fault(at, errno.EIO, READS, sticky) for at in places(work, READS, step, offset=2)])


def test_short_writes_are_gone_on_with(servers: SimpleQueue[Server], work: Work) -> None:
    """The first case cuts every single write in half, the others one of them."""
    single = [Fault(at, 0, CHANGES) for at in places(work, CHANGES, offset=9)]
    disturb_all(servers, work, [Fault(1, 0, CHANGES, sticky=True), *single])


def test_a_lease_that_cannot_be_refreshed_does_not_end_the_build(
    build: Callable[..., BuildResult],
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The one write that may fail: there may be room again at the next turn, and the lease is good for six of them."""

    refused = []

    def fail(lease: Lease) -> None:
        refused.append(lease)
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(lease.path))

    monkeypatch.setattr("datasets.leases.REFRESH_EVERY", 0.005)
    monkeypatch.setattr(Lease, "refresh", fail)
    with caplog.at_level(logging.WARNING, "datasets.lock"):
        result = build(**{"source.root": str(work.source)})
    assert (result.version.content_digest, result.version.lineage["ledger_digest"]) == work.digests
    assert len(refused) > 3
    assert "in danger" in caplog.text
