"""References: which blobs, pictures and measurements the versions of a store, and its measurements, name.

What nobody names may go (`datasets/gc.py`), so the list must be complete: whatever cannot be read is said, not passed
over. Columns are known by their names alone, at any depth: `…blob` names a blob, `…digest` and `input` a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.cache import INPUT
from datasets.digests import digest_file
from datasets.store import VERSION_FOLDER, Store
from datasets.version import LEDGER_FILE, LINEAGE_FILE, MANIFEST_FILE

Progress = Callable[[str, int, int], None]  # (what is looked at, how many are done, of how many)

_HEX_DIGEST = "^[0-9a-f]{64}$"
_ROWS = 50_000  # read at once
_PENDING = 1_000_000  # digests that may wait to be sorted in: 32 MB


class DigestSet:
    """Many SHA-256 digests at 32 bytes each: a sorted array, where a set of strings would take five times the room."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, "S32")
        self._pending: list[np.ndarray] = []
        self._waiting = 0

    def __len__(self) -> int:
        self._sort_in()
        return len(self._sorted)

    def add(self, values: pa.Array) -> None:
        """Add those of these strings that are digests: 64 lower-case hexadecimal digits; others and null are not."""
        digests = values.filter(pc.fill_null(pc.match_substring_regex(values, _HEX_DIGEST), False))
        if len(digests) == 0:
            return
        self._pending.append(np.unique(_pack(digests.to_pylist())))
        self._waiting += len(self._pending[-1])
        if self._waiting > _PENDING:
            self._sort_in()

    def contains(self, digests: Sequence[str]) -> np.ndarray:
        """bool (len(digests),): which of these are in the set. Each must have 64 hexadecimal digits."""
        self._sort_in()
        asked = _pack(digests)
        places = np.searchsorted(self._sorted, asked)
        found = np.zeros(len(asked), dtype=bool)
        inside = places < len(self._sorted)
        found[inside] = self._sorted[places[inside]] == asked[inside]
        return found

    def _sort_in(self) -> None:
        if self._pending:
            self._sorted = np.unique(np.concatenate([self._sorted, *self._pending]))
            self._pending, self._waiting = [], 0


def _pack(digests: Iterable[str]) -> np.ndarray:
    # trailing zero bytes do not count in comparisons of S32, which is right: all have the same length
    return np.frombuffer(bytes.fromhex("".join(digests)), "S32")


@dataclass
class References:
    """What is named, and why the list may be incomplete."""

    blobs: DigestSet = field(default_factory=DigestSet)
    pictures: DigestSet = field(default_factory=DigestSet)  # pixel digests of crops, digests of source files
    caches: set[str] = field(default_factory=set)  # folders that versions measured into, relative to <store>/cache
    versions: int = 0
    damaged: list[str] = field(default_factory=list)  # what could not be read: nothing may go that it may name
    untold: list[str] = field(default_factory=list)  # versions that do not say which measurements they used
    broken: set[Path] = field(default_factory=set)  # measurement files with broken content: they name nothing


def name_version(folder: Path) -> str:
    """A version's folder as people know it: faces/v0003."""
    return f"{folder.parent.name}/{folder.name}"


def list_version_folders(store: Store) -> list[Path]:
    """Every folder that is a version, or looks like one: a copy that somebody made by hand names blobs, too."""
    files = (MANIFEST_FILE, LEDGER_FILE, LINEAGE_FILE)
    return [
        folder
        for folder in sorted((store.root / "datasets").glob("*/[!.]*"))
        if folder.is_dir() and (VERSION_FOLDER.fullmatch(folder.name) or any((folder / f).exists() for f in files))
    ]


def read_version_references(store: Store, progress: Progress) -> References:
    """What all versions and decisions name."""
    found = References()
    folders = list_version_folders(store)
    for done, folder in enumerate(folders, 1):
        try:
            _read_version(folder, found)
        except MemoryError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            found.damaged.append(f"{name_version(folder)} is not a whole version: {type(error).__name__}: {error}")
        progress("versions", done, len(folders))
    for path in sorted(store.decisions.glob("[!.]*.parquet")):
        try:
            read_digests(path, found)
        except MemoryError:
            raise
        except (OSError, pa.ArrowException) as error:
            found.damaged.append(f"decisions/{path.name} cannot be read: {error}")
    return found


def _read_version(folder: Path, found: References) -> None:
    lineage: dict[str, Any] = json.loads((folder / LINEAGE_FILE).read_text(encoding="utf-8"))
    for name in (LEDGER_FILE, MANIFEST_FILE):
        if digest_file(folder / name) != lineage["files"][name]:
            raise ValueError(f"{name} has been changed")
        read_digests(folder / name, found)
    found.versions += 1
    if "measured" in lineage:
        found.caches.update(str(stage["cache"]) for stage in lineage["measured"].values())
    else:
        found.untold.append(name_version(folder))


def read_cache_references(store: Store, folders: Sequence[Path], found: References, progress: Progress) -> None:
    """Add what the measurements in these folders name. Other processes may add and merge files meanwhile."""
    for done, folder in enumerate(folders, 1):
        seen: set[str] = set()
        # files are merged into new ones before they go, so a listing with nothing unread has missed nothing
        while unread := [path for path in sorted(folder.glob("[!.]*.parquet")) if path.name not in seen]:
            for path in unread:
                seen.add(path.name)
                _read_facts(store, path, found)
        progress("measurements", done, len(folders))


def _read_facts(store: Store, path: Path, found: References) -> None:
    try:
        read_digests(path, found)
    except FileNotFoundError:
        return  # merged meanwhile
    except MemoryError:
        raise
    except (OSError, pa.ArrowException) as error:
        if getattr(error, "errno", None) is None:  # Arrow's own complaint of the bytes has no errno
            found.broken.add(path)
        else:
            found.damaged.append(f"{path.relative_to(store.root)} cannot be read: {error}")


def read_digests(path: Path, found: References) -> None:
    """Add the digests in a Parquet file. Reads only the columns that can hold one, some rows at a time.

    Raises OSError and pa.ArrowException.
    """
    with path.open("rb") as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
        leaves = [file.schema.column(index).path for index in range(len(file.schema))]
        wanted = [leaf for leaf in leaves if any(_set_for(part, found) is not None for part in leaf.split("."))]
        if not wanted:
            return
        for batch in file.iter_batches(batch_size=_ROWS, columns=wanted):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                for leaf, values in _leaves(name, column):
                    if (digests := _set_for(leaf, found)) is not None:
                        digests.add(values)


def _set_for(name: str, found: References) -> DigestSet | None:
    """Where the digests in a column of this name belong."""
    if name.endswith("blob"):
        return found.blobs
    return found.pictures if name == INPUT or name.endswith("digest") else None


def _leaves(name: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The string columns inside a column, by name; a list's values have the list's name."""
    kind = values.type
    if pa.types.is_struct(kind):
        for child, part in zip(kind, values.flatten(), strict=True):
            yield from _leaves(child.name, part)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(name, values.flatten())
    elif pa.types.is_dictionary(kind):
        yield from _leaves(name, values.dictionary_decode())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield name, values
