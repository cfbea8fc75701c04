"""The measurement cache: what was found out about an input by looking at pixels, kept for ever.

One folder per (stage, stage version, settings and weights that the measurement reads); in it, Parquet files of rows,
one row per input digest. A measurement is a function of its key, so two writers of one key write the same row, and
readers and writers need no lock: a file appears in one step, and goes only when its rows lie in another one.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.atomic import write_atomically, write_parquet, write_table
from datasets.digests import digest_json

INPUT = "input"  # the column that holds the input's digest
MAX_FILES = 64  # small files that a folder may hold before they are merged: each costs a look-up about 2 ms
MAX_ROWS = 200_000  # of a merged file: it is held in memory while it is written


class _LostFileError(Exception):
    """A file of the cache that gives no rows: it has vanished, or is broken."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


class MeasurementCache:
    """`<store>/cache/<stage>-<version>/<key>/*.parquet`: rows of one kind of measurement."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        """schema: the columns of a row; the first must be `input` (string)."""
        if schema.names[0] != INPUT:
            raise ValueError(f"a measurement's first column is {INPUT!r}, not {schema.names[0]!r}")
        self.folder = folder
        self.schema = schema

    def lookup(self, inputs: pa.Array | pa.ChunkedArray) -> pa.Table:
        """The cached rows of these inputs, one row each, in order of input; inputs never measured are absent.

        Of several rows for one input the newest file's counts. A file whose content is broken is removed, and what was
        in it counts as never measured. Other processes may add and merge files meanwhile. Only files with wanted rows
        are read whole, one at a time.
        Raises OSError when a file cannot be read just now (no rights, too many open files, a failing disk): taken for
        never measured, a picture that was measured a moment ago would seem to have given nothing.
        """
        known: dict[Path, pa.ChunkedArray] = {}
        lost: set[Path] = set()
        paths = self._list_files()
        while True:
            try:
                for path in paths:
                    if path not in known:
                        known[path] = self._read(path, [INPUT])[INPUT]
                # a listing may miss both the old and the new file of a merge that runs meanwhile; a second one that
                # shows nothing new cannot
                paths = [path for path in self._list_files() if path not in lost]
                if known.keys() >= set(paths):
                    return self._take(paths, [known[path] for path in paths], inputs)
            except _LostFileError as error:
                lost.add(error.path)
                paths = [path for path in self._list_files() if path not in lost]

    def add(self, rows: pa.Table) -> None:
        """Keep rows. The file is named by its inputs, so that measuring the same shard again overwrites it."""
        if len(rows) == 0:
            return
        name = digest_json(sorted(rows[INPUT].to_pylist()))[:32]
        write_parquet(self.folder / f"{name}.parquet", rows.cast(self.schema))

    def compact(self, max_files: int = MAX_FILES, max_rows: int = MAX_ROWS) -> int:
        """Merge small files once there are more than `max_files` of them; says how many files were merged away.

        A merged file holds at most `max_rows` rows, in order of input. Killed at any moment, or run twice at once, it
        loses nothing: a file goes only after its rows are safe in one of a new name, and no name is used twice, so two
        files can never go on the strength of each other.
        """
        paths = self._list_files()
        if len(paths) <= max_files:
            return 0
        small = [(path, rows) for path in paths if 2 * (rows := _count_rows(path)) <= max_rows]
        if len(small) <= max_files:
            return 0
        merged = 0
        group: list[Path] = []
        total = 0
        for path, rows in small:
            if total + rows > max_rows:
                merged += self._merge(group)
                group, total = [], 0
            group.append(path)
            total += rows
        return merged + self._merge(group)

    def _merge(self, paths: Sequence[Path]) -> int:
        """Write the rows of these files (newest first) into one, then remove them; says how many were removed."""
        tables: dict[Path, pa.Table] = {}
        stamps = []
        for path in paths:
            try:
                stamps.append(path.stat().st_mtime_ns)
                tables[path] = self._read(path)
            except (FileNotFoundError, _LostFileError):
                continue  # merged by somebody else, or broken
        if len(tables) < 2:
            return 0
        rows = first_of_each(pa.concat_tables(tables.values()), INPUT)

        def write(temporary: Path) -> None:
            write_table(temporary, rows)
            os.utime(temporary, ns=(max(stamps), max(stamps)))  # as old as its rows: newer ones win

        write_atomically(self.folder / f"{uuid.uuid4().hex}.parquet", write)
        for path in tables:
            path.unlink(missing_ok=True)
        return len(tables)

    def _list_files(self) -> list[Path]:
        """The files of this cache, newest first."""
        found = []
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".parquet") and not entry.name.startswith("."):
                        try:
                            found.append((-entry.stat().st_mtime_ns, entry.name))
                        except FileNotFoundError:
                            continue  # merged away meanwhile
        except FileNotFoundError:
            return []
        return [self.folder / name for _, name in sorted(found)]

    def _read(self, path: Path, columns: list[str] | None = None) -> pa.Table:
        """Rows of a file. Raises _LostFileError, after removing a file whose content is broken; OSError."""
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                if file.schema_arrow != self.schema:
                    raise pa.ArrowInvalid(f"{path} holds other columns")
                return file.read(columns=columns)
        except MemoryError:  # Arrow's own is an ArrowException too, and says nothing against the file
            raise
        except FileNotFoundError as error:
            raise _LostFileError(path) from error
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None) is not None:  # Arrow's own complaint of the bytes has none
                raise
            path.unlink(missing_ok=True)
            raise _LostFileError(path) from error

    def _take(self, paths: list[Path], names: list[pa.ChunkedArray], inputs: pa.Array | pa.ChunkedArray) -> pa.Table:
        """The first row of each wanted input, in order of input. names: the inputs in each file."""
        if not paths:
            return self.schema.empty_table()
        cached = pa.chunked_array([chunk for name in names for chunk in name.chunks], pa.string())
        # one look-up over all files: building the set of wanted inputs costs more than reading a file
        wanted = pc.indices_nonzero(pc.is_in(cached, value_set=inputs))
        cached = cached.take(wanted)
        rows = wanted.to_numpy()[_first_positions(cached)].astype(np.int64)
        starts = np.cumsum([0, *map(len, names)])
        owners = np.searchsorted(starts, rows, side="right") - 1
        tables = [self.schema.empty_table()]
        places = np.empty(len(rows), np.int64)
        done = 0
        for owner in np.unique(owners):
            mine = np.flatnonzero(owners == owner)
            tables.append(self._read(paths[owner]).take(pa.array(rows[mine] - starts[owner])))
            places[mine] = np.arange(done, done + len(mine))
            done += len(mine)
        return pa.concat_tables(tables).take(pa.array(places))


def _count_rows(path: Path) -> int:
    """How many rows a file says it has; 0 for one that cannot be read, which reading it whole will find out."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return 0


def _first_positions(values: pa.ChunkedArray) -> np.ndarray:
    """Positions of the first of each value, in order of the values: int64 (distinct values,)."""
    order = pc.sort_indices(values)  # stable
    ordered = values.take(order).combine_chunks()
    is_first = np.ones(len(ordered), dtype=bool)
    is_first[1:] = pc.not_equal(ordered[1:], ordered[:-1]).to_numpy(zero_copy_only=False)
    return np.asarray(order.to_numpy()[is_first], dtype=np.int64)


def first_of_each(table: pa.Table, column: str) -> pa.Table:
    """The first row for each value of `column`, sorted by it. The column holds no null."""
    return table.take(pa.array(_first_positions(table[column])))
