"""Versions: published datasets that are there completely or not at all, and never change afterwards."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.atomic import sync_folder, write_parquet, write_text
from datasets.chunks import sort_in_chunks
from datasets.digests import content_digest, digest_file, digest_json, digest_rows
from datasets.errors import StoreError
from datasets.schema import LEDGER, MANIFEST, conform
from datasets.store import VERSION_FOLDER, Store

MANIFEST_FILE = "manifest.parquet"
LEDGER_FILE = "ledger.parquet"
LINEAGE_FILE = "version.json"
CARD_FILE = "README.md"
_VERIFIED_AT_ONCE = 256  # blobs
_ROWS_PER_GROUP = 20_000  # `versions why` reads those with its post alone


@dataclass(frozen=True)
class Version:
    """A published version: its tables are read when they are asked for."""

    name: str
    number: int
    folder: Path
    lineage: dict[str, Any]

    @property
    def reference(self) -> str:
        return f"{self.name}@v{self.number}"

    @property
    def content_digest(self) -> str:
        return str(self.lineage["content_digest"])

    def manifest(self) -> pa.Table:
        """One row per published sample (schema MANIFEST), in order of crop_id."""
        return pq.read_table(self.folder / MANIFEST_FILE)

    def sound_manifest(self) -> pa.Table:
        """The manifest, once its file was held against the digest that version.json says.

        Raises StoreError when it was changed since it was published, or cannot be read.
        """
        said = self.lineage.get("files", {}).get(MANIFEST_FILE)
        try:
            found = digest_file(self.folder / MANIFEST_FILE)
            if said is None or found == said:
                return self.manifest()
            why = f"its bytes are {found}, version.json says {said}"
        except (OSError, pa.ArrowException) as error:
            why = str(error)
        raise StoreError(
            f"the {MANIFEST_FILE} of {self.reference} is not the one that was published ({why}). "
            f"`kaobako versions verify {self.reference}` lists what is wrong; restore it from a backup or build again."
        )

    def ledger(self) -> pa.Table:
        """One row per dropped item (schema LEDGER), in order of stage and item."""
        return pq.read_table(self.folder / LEDGER_FILE)


def read_version(store: Store, reference: str) -> Version:
    """A version by `faces@v7`, `faces` (newest), or its folder's path. Raises StoreError when there is none."""
    folder = Path(reference)
    if (folder / LINEAGE_FILE).is_file():
        match = VERSION_FOLDER.fullmatch(folder.resolve().name)
        if match is None:
            raise StoreError(f"{folder} is not a version's folder: those are called v0001, v0002 and so on.")
        name, number = folder.resolve().parent.name, int(match[1])
    else:
        name, number = store.resolve(reference)
        folder = store.version_folder(name, number)
    try:
        lineage = json.loads((folder / LINEAGE_FILE).read_text())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{folder} is not a whole version: {error}. Restore it from a backup or build again."
        ) from error
    return Version(name, number, folder, lineage)


def store_of(version_folder: Path) -> Store:
    """The store that a version's folder lies in: <store>/datasets/<name>/v0007.

    The path counts as it is written: <store>/datasets may be a link to another disk, where no blobs are. Only a path
    that does not say where it lies (a link to one version, `..`) is followed.
    """
    folder = version_folder.absolute()
    written = len(folder.parts) > 3 and folder.parts[-3] == "datasets" and ".." not in folder.parts[-3:]
    return Store((folder if written else folder.resolve()).parents[2])


def list_versions(store: Store, name: str | None = None) -> list[Version]:
    """All versions, by name and number; of one dataset when it is named."""
    names = [name] if name else store.dataset_names()
    return [read_version(store, f"{n}@v{number}") for n in names for number in store.version_numbers(n)]


def ledger_digest(ledger: pa.Table) -> str:
    """What was dropped, where and why, in one digest."""
    return digest_rows(ledger, ("item_id", "stage", "reason", "value", "threshold", "related"), order_by="item_id")


def require_whole(version: Version) -> None:
    """See that a version's files are there and can be opened. Raises StoreError. (verify_version reads them all.)"""
    try:
        for name in (MANIFEST_FILE, LEDGER_FILE):
            pq.read_metadata(version.folder / name)
        (version.folder / CARD_FILE).stat()
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{version.reference} is not whole: {error}. Build again, or restore it.") from error


def find_unchanged(store: Store, name: str, lineage: dict[str, Any]) -> Version | None:
    """The newest version, if a new one would say the same: equal content, ledger, recipe and stage versions."""
    numbers = store.version_numbers(name)
    if not numbers:
        return None
    try:
        newest = read_version(store, f"{name}@v{numbers[-1]}")
        require_whole(newest)
    except StoreError:
        return None  # damaged: a new version is the way out
    same = ("content_digest", "ledger_digest", "recipe_digest", "stage_versions", "weights")
    return newest if all(newest.lineage.get(key) == lineage.get(key) for key in same) else None


def publish_version(
    store: Store,
    name: str,
    manifest: pa.Table,
    ledger: pa.Table,
    lineage: dict[str, Any],
    write_card: Callable[[Path, pa.Table, pa.Table, dict[str, Any]], None],
    ensure_held: Callable[[], None] | None = None,
) -> Version:
    """Publish a version in one step, under the dataset's lock (which the caller holds).

    Everything is written to a staging folder and synced, the manifest last; one rename makes it visible. lineage: what
    is known of how it was made; digests, number and parent are added here. write_card(folder, manifest, ledger,
    lineage) adds the card and its pictures. ensure_held() raises when the lock was lost meanwhile: called right before
    the rename. When nothing differs from the newest version, that one is returned.
    Raises StoreError when a blob of the manifest is missing.
    """
    manifest = sort_in_chunks(conform(manifest, MANIFEST), ["crop_id"])
    ledger = sort_in_chunks(conform(ledger, LEDGER), ["stage", "item_id"])
    missing = sorted(set(manifest["blob"].to_pylist()) - store.blobs.digests())
    if missing:
        raise StoreError(f"{len(missing)} blobs of the manifest are missing, {missing[0]} first. Run the build again.")
    numbers = store.version_numbers(name)
    lineage = {
        "name": name,
        "content_digest": content_digest(manifest),
        "ledger_digest": ledger_digest(ledger),
        "recipe_digest": digest_json(lineage["recipe"]),
        "parent": f"{name}@v{numbers[-1]}" if numbers else None,
        **lineage,
    }
    if (unchanged := find_unchanged(store, name, lineage)) is not None:
        return unchanged
    number = (numbers[-1] if numbers else 0) + 1
    lineage = {"version": f"{name}@v{number}", **lineage}
    folder = store.dataset(name)
    with scratch_folder(folder, "staging") as staging:
        write_parquet(staging / LEDGER_FILE, ledger, _ROWS_PER_GROUP)
        write_card(staging, manifest, ledger, lineage)
        _sync_files(staging)
        draft = staging / f".{MANIFEST_FILE}"
        write_parquet(draft, manifest, _ROWS_PER_GROUP)
        lineage["files"] = {LEDGER_FILE: digest_file(staging / LEDGER_FILE), MANIFEST_FILE: digest_file(draft)}
        write_text(staging / LINEAGE_FILE, json.dumps(lineage, indent=2, ensure_ascii=False) + "\n")
        draft.rename(staging / MANIFEST_FILE)
        sync_folder(staging)
        target = store.version_folder(name, number)
        if ensure_held is not None:
            ensure_held()
        staging.rename(target)
        for place in (folder, folder.parent, store.root):  # the folders above may be as new as the version
            sync_folder(place)
    return Version(name, number, target, lineage)


@contextmanager
def scratch_folder(dataset: Path, kind: str) -> Iterator[Path]:
    """A hidden folder beside the versions for the body, removed at its end. Only under the dataset's lock.

    What killed builds left of this kind is removed first.
    """
    for leftover in dataset.glob(f".{kind}-*"):
        shutil.rmtree(leftover)
    folder = dataset / f".{kind}-{uuid.uuid4().hex[:12]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    for path in sorted(p for p in [folder, *folder.rglob("*")] if p.is_dir()):
        sync_folder(path)


def verify_version(store: Store, version: Version, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Everything that is wrong with a published version, as sentences; an empty list means sound.

    Reads every blob that the manifest or the ledger names. progress(done, total): blobs so far, and in all.
    """
    counts = version.lineage.get("counts", {})
    problems = count_problems(counts)
    try:
        for name, digest in version.lineage.get("files", {}).items():
            if (found := digest_file(version.folder / name)) != digest:
                problems.append(f"{name} has been changed: its bytes are {found}, version.json says {digest}")
        manifest, ledger = version.manifest(), version.ledger()
        if (found := content_digest(manifest)) != version.content_digest:
            problems.append(f"the manifest's content digest is {found}, version.json says {version.content_digest}")
        if (found := ledger_digest(ledger)) != version.lineage["ledger_digest"]:
            problems.append(f"the ledger's digest is {found}, version.json says {version.lineage['ledger_digest']}")
        problems += table_problems(counts, manifest, ledger)
        owners = name_blobs(manifest, ledger)
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        return [*problems, f"the tables of {version.reference} cannot be read: {error}"]
    blobs = sorted(owners)
    with ThreadPoolExecutor(thread_name_prefix="verify") as pool:  # hashing leaves other threads their turn
        for start in range(0, len(blobs), _VERIFIED_AT_ONCE):
            chunk = blobs[start : start + _VERIFIED_AT_ONCE]
            found_problems = pool.map(lambda blob: blob_problem(store, blob, owners[blob]), chunk)
            problems += [problem for problem in found_problems if problem is not None]
            if progress is not None:
                progress(start + len(chunk), len(blobs))
    return problems


def name_blobs(manifest: pa.Table, ledger: pa.Table) -> dict[str, str]:
    """Every blob that a version's tables name, and the first item that has it."""
    owners: dict[str, str] = {}
    for table, item, column in (
        (manifest, "crop_id", "blob"),
        (ledger, "item_id", "crop_blob"),
        (ledger, "item_id", "blob"),
    ):
        for blob, name in zip(table[column].to_pylist(), table[item].to_pylist(), strict=True):
            if blob is not None:
                owners.setdefault(blob, name)
    return owners


def blob_problem(store: Store, blob: str, owner: str) -> str | None:
    """What is wrong with a blob, in a sentence that says whose it is; None when its bytes have its name."""
    try:
        path = store.blobs.path(blob)
        found = digest_file(path)
    except (StoreError, OSError) as error:
        return f"{owner}: {error}"
    if found == blob:
        return None
    return f"{owner}: blob {path.name} has been changed, its bytes are {found}. Remove {path} and build again."


def table_problems(counts: dict[str, dict[str, Any]], manifest: pa.Table, ledger: pa.Table) -> list[str]:
    """Accounts that the tables do not bear out: a ledger row for every drop, a manifest row for every item kept."""
    rows = Counter(zip(ledger["stage"].to_pylist(), ledger["reason"].to_pylist(), strict=True))
    said = Counter({(stage, reason): n for stage, row in counts.items() for reason, n in row["dropped"].items()})
    problems = [
        f"stage {stage}: {said[stage, reason]} dropped for {reason}, the ledger has {rows[stage, reason]}"
        for stage, reason in sorted(rows.keys() | said.keys())
        if rows[stage, reason] != said[stage, reason]
    ]
    kept = list(counts.values())[-1]["kept"] if counts else 0
    if kept != len(manifest):
        problems.append(f"the last stage kept {kept} items, the manifest has {len(manifest)}")
    return problems


def count_problems(counts: dict[str, dict[str, Any]]) -> list[str]:
    """Stages whose accounts do not add up: in = kept + dropped, and one stage's kept are the next one's inputs."""
    problems = []
    before: int | None = None
    for stage, row in counts.items():
        dropped = sum(row["dropped"].values())
        if row["in"] != row["kept"] + dropped:
            problems.append(f"stage {stage}: in {row['in']} is not kept {row['kept']} + dropped {dropped}")
        if before is not None and row["inputs"] != before:
            problems.append(f"stage {stage}: got {row['inputs']} items, the stage before kept {before}")
        before = row["kept"]
    return problems
