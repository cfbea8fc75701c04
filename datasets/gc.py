"""Garbage collection: what lies in the store and serves nothing any more.

Everything that goes is made anew when it is needed, from the source and at the cost of time. Whatever a version names
stays, and so do versions, decisions, runs, weights, everything young, and files that Kaobako did not make.

Killed at any moment, this leaves a sound store: measurements go before the blobs that they name, and a measurement
whose blob is gone counts as never made.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from datasets.blobs import SUFFIXES
from datasets.errors import StoreError
from datasets.lock import LOCK_FILE, STORE_LOCK_FILE, Lease, Waiting, hold_store, read_holder
from datasets.references import DigestSet, Progress, References, read_cache_references, read_version_references
from datasets.store import DATASET_NAME, VERSION_FOLDER, Store

TEMPORARY = "temporary files"
MEASUREMENTS = "unused measurements"
BLOBS = "unnamed blobs"
THUMBNAILS = "thumbnails"
LOSS = {
    TEMPORARY: "nothing: left by killed builds",
    MEASUREMENTS: "time: measured anew when needed",
    BLOBS: "nothing: made anew when needed",
    THUMBNAILS: "nothing: made anew when needed",
}

_TEMPORARY_FILE = re.compile(r"\..+\.[0-9a-f]{8}\.tmp|\.(gc\.)?lock\.json\.[0-9a-f]{32}(\.stale)?")
_SCRATCH_FOLDER = re.compile(r"\.(staging|work)-[0-9a-f]{12}")
_STAGE_FOLDER = re.compile(r"[a-z_]+-\d+")
_CACHE_KEY = re.compile(r"[0-9a-f]{24}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# what may lie in the store, beside what is looked at here
_KNOWN = {"blobs", "cache", "datasets", "decisions", "prefect", "review", "runs", "thumbnails", "weights"}
_KNOWN |= {STORE_LOCK_FILE, f".{STORE_LOCK_FILE}.turn"}
_KNOWN_OF_DATASET = {LOCK_FILE, f".{LOCK_FILE}.turn", "checked.json"}
_PROVE_EVERY = 5.0  # seconds between two looks at whether the store is still ours


@dataclass
class Garbage:
    """What was found of one kind."""

    kind: str
    loss: str  # what is lost when it goes
    count: int = 0
    bytes: int = 0
    young: int = 0  # serve nothing either, but stay: younger than the grace time


@dataclass
class GarbageReport:
    """What was found, and what became of it."""

    deleted: bool  # False: only looked
    grace_hours: float
    kinds: list[Garbage] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # sentences: what was not looked at, and why
    failed: list[str] = field(default_factory=list)  # sentences: what could not be deleted
    unknown: list[str] = field(default_factory=list)  # the first of the entries that Kaobako did not make
    unknown_count: int = 0


def collect_garbage(
    store: Store,
    delete: bool = False,
    grace_hours: float = 24.0,
    unused_caches: bool = False,
    wait_seconds: float = 0.0,
    waiting: Waiting | None = None,
    progress: Progress = lambda what, done, total: None,
) -> GarbageReport:
    """Find what serves nothing; with delete, remove it, while no build runs.

    grace_hours: whatever was changed later than that stays. unused_caches: measurements that no version used may go,
    and the blobs that only they name; else every measurement keeps its blobs. wait_seconds, waiting: for builds that
    run, as for `hold_lock`. Raises StoreError when there is no store, LockedError when a build runs.
    """
    if not any((store.root / name).is_dir() for name in ("datasets", "cache", "blobs")):
        raise StoreError(f"{store.root} is not a store: name one with --store or KAOBAKO_STORE.")
    report = GarbageReport(delete, grace_hours, [Garbage(kind, loss) for kind, loss in LOSS.items()])
    if not delete:
        _Sweep(store, report, None, progress).run(unused_caches)
        return report
    with hold_store(store, "gc", wait_seconds, waiting) as lease:
        _Sweep(store, report, lease, progress).run(unused_caches)
    return report


class _Sweep:
    """One way through the store. Paths are looked at one by one, so memory holds the names that count, no more."""

    def __init__(self, store: Store, report: GarbageReport, lease: Lease | None, progress: Progress) -> None:
        self.store = store
        self.report = report
        self.lease = lease
        self.progress = progress
        self.kinds = {garbage.kind: garbage for garbage in report.kinds}
        self.oldest = time.time() - report.grace_hours * 3600.0
        self.proved = time.monotonic()

    def run(self, unused_caches: bool) -> None:
        self.sweep_root()
        self.sweep_datasets()
        self.sweep_decisions()
        caches = list(self.list_caches())
        found = read_version_references(self.store, self.progress)
        if not found.damaged:
            unused = self.find_unused(caches, found) if unused_caches else []
            read_cache_references(self.store, [c for c in caches if c not in unused], found, self.progress)
        if found.damaged:
            self.report.refused += [*found.damaged, _REFUSAL]
            nothing = DigestSet()
            self.sweep_digests(self.store.blobs.folder, SUFFIXES, nothing, None)
            self.sweep_digests(self.store.thumbnails.folder, (".jpg",), nothing, None)
            return
        for path in sorted(found.broken):
            self.take_if_old(MEASUREMENTS, path)
        for folder in unused:
            self.sweep_cache(folder)
        self.sweep_digests(self.store.blobs.folder, SUFFIXES, found.blobs, BLOBS)
        self.sweep_digests(self.store.thumbnails.folder, (".jpg",), found.pictures, THUMBNAILS)

    # what is looked at

    def sweep_root(self) -> None:
        for entry in _list(self.store.root):
            if entry.name not in _KNOWN and not self.is_temporary(entry):
                self.leave(entry.path)

    def sweep_datasets(self) -> None:
        """Temporary files and scratch folders; versions are not even opened here."""
        for dataset in _list(self.store.root / "datasets"):
            if not DATASET_NAME.fullmatch(dataset.name) or not dataset.is_dir(follow_symlinks=False):
                self.leave(dataset.path)
                continue
            # one who only looks must not call a running build's folder garbage; one who deletes holds the store
            busy = self.lease is None and read_holder(Path(dataset.path) / LOCK_FILE) is not None
            for entry in _list(Path(dataset.path)):
                if entry.name in _KNOWN_OF_DATASET or VERSION_FOLDER.fullmatch(entry.name):
                    continue
                if _SCRATCH_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    if not busy:
                        self.take_folder(Path(entry.path))
                elif not self.is_temporary(entry):
                    self.leave(entry.path)

    def sweep_decisions(self) -> None:
        for entry in _list(self.store.decisions):
            if not self.is_temporary(entry) and not entry.name.endswith(".parquet"):
                self.leave(entry.path)

    def list_caches(self) -> Iterator[Path]:
        """The measurement folders, `cache/<stage>-<version>/<key>`; temporary files in them are taken on the way."""
        for stage in _list(self.store.cache):
            if not _STAGE_FOLDER.fullmatch(stage.name) or not stage.is_dir(follow_symlinks=False):
                self.leave(stage.path)
                continue
            for folder in _list(Path(stage.path)):
                if not _CACHE_KEY.fullmatch(folder.name) or not folder.is_dir(follow_symlinks=False):
                    self.leave(folder.path)
                    continue
                for entry in _list(Path(folder.path)):
                    if not self.is_temporary(entry) and not _is_facts(entry.name):
                        self.leave(entry.path)
                yield Path(folder.path)

    def find_unused(self, caches: list[Path], found: References) -> set[Path]:
        """The measurement folders that no version used, and that nobody has added to within the grace time."""
        if found.untold:
            self.report.refused.append(
                f"{', '.join(found.untold)}: made before versions said which measurements they used. All measurements "
                "stay as long as such a version does."
            )
            return set()
        unused = set()
        for folder in caches:
            if folder.relative_to(self.store.cache).as_posix() in found.caches:
                continue
            if max((_modified(e) for e in _list(folder)), default=folder.stat().st_mtime) > self.oldest:
                self.kinds[MEASUREMENTS].young += sum(_is_facts(e.name) for e in _list(folder))
            else:
                unused.add(folder)
        return unused

    def sweep_cache(self, folder: Path) -> None:
        for entry in _list(folder):
            if _is_facts(entry.name):
                self.take_if_old(MEASUREMENTS, Path(entry.path))
        if self.lease is not None:
            for empty in (folder, folder.parent):
                with suppress(OSError):  # not empty: something else lies there
                    empty.rmdir()

    def sweep_digests(self, area: Path, suffixes: tuple[str, ...], named: DigestSet, kind: str | None) -> None:
        """Files `<area>/3f/3f9a….<suffix>` that nobody names; temporary files on the way. kind None: only those."""
        folders = sorted(_list(area), key=lambda entry: entry.name)
        for done, folder in enumerate(folders, 1):
            if not folder.is_dir(follow_symlinks=False):
                if not self.is_temporary(folder):
                    self.leave(folder.path)
                continue
            names = []
            for entry in _list(Path(folder.path)):
                digest, _, suffix = entry.name.partition(".")
                if f".{suffix}" in suffixes and _DIGEST.fullmatch(digest) and digest[:2] == folder.name:
                    names.append(entry.name)
                elif not self.is_temporary(entry):
                    self.leave(entry.path)
            if kind is None:
                continue
            kept = named.contains([name.partition(".")[0] for name in names])
            for name, keep in zip(names, kept, strict=True):
                if not keep:
                    self.take_if_old(kind, Path(folder.path) / name)
            self.progress(area.name, done, len(folders))

    # what becomes of it

    def is_temporary(self, entry: os.DirEntry[str]) -> bool:
        """Whether this is the temporary file of a writer; one that is old is taken."""
        if not _TEMPORARY_FILE.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
            return False
        self.take_if_old(TEMPORARY, Path(entry.path))
        return True

    def take_if_old(self, kind: str, path: Path) -> None:
        """Count a file, and delete it when that is wanted."""
        try:
            stat = path.lstat()
        except FileNotFoundError:
            return
        if stat.st_mtime > self.oldest:
            self.kinds[kind].young += 1
        else:
            self.take(kind, path, stat.st_size, remove_file)

    def take_folder(self, folder: Path) -> None:
        """The same for a scratch folder with all that is in it: it is as young as the youngest thing there."""
        size, newest, count = 0, folder.lstat().st_mtime, 0
        for root, folders, files in os.walk(folder):
            for name in (*folders, *files):
                with suppress(FileNotFoundError):
                    stat = (Path(root) / name).lstat()
                    size, newest, count = size + stat.st_size, max(newest, stat.st_mtime), count + 1
        if newest > self.oldest:
            self.kinds[TEMPORARY].young += 1
        else:
            self.take(TEMPORARY, folder, size, shutil.rmtree)

    def take(self, kind: str, path: Path, size: int, remove: Callable[[Path], None]) -> None:
        if self.lease is not None:
            if time.monotonic() - self.proved > _PROVE_EVERY:
                self.lease.ensure_held()
                self.proved = time.monotonic()
            try:
                remove(path)
            except FileNotFoundError:
                return
            except OSError as error:
                self.report.failed.append(f"{path.relative_to(self.store.root)} stays: {error.strerror or error}")
                return
        self.kinds[kind].count += 1
        self.kinds[kind].bytes += size

    def leave(self, path: str) -> None:
        """Count something that Kaobako did not make."""
        self.report.unknown_count += 1
        if len(self.report.unknown) < 5:
            self.report.unknown.append(Path(path).relative_to(self.store.root).as_posix())


_REFUSAL = (
    "As long as that cannot be read nobody knows which blobs and measurements it needs, so only temporary files may "
    "go. Restore it from a backup; if it is lost, move it out of the store."
)


def remove_file(path: Path) -> None:
    """Remove one file."""
    path.unlink()


def _is_facts(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith(".")


def _modified(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return 0.0


def _list(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder; nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return
