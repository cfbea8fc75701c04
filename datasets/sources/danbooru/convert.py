"""Metadata converted to Parquet, once: `<cache>/<key>/000000.parquet`, ..., `end.parquet` for each file.

The key is the file's stamp and the converter's own: no setting of a source changes what is converted, so ratings,
folders and file names are worked out when posts are read. A piece appears in one step, and the end when all pieces are
there: a killed conversion goes on where it was. The folder may be deleted at any time.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.atomic import make_folder, write_atomically, write_table
from datasets.digests import digest_bytes, digest_json
from datasets.errors import SourceError
from datasets.schema import POSTS
from datasets.sources.danbooru import blocks, rows
from datasets.sources.danbooru.blocks import Block, Cut, cut_file, estimate_text
from datasets.sources.danbooru.columns import PIECE, Evidence
from datasets.sources.danbooru.rows import read_lines
from datasets.sources.files import stamp_file

CONVERTER = 2  # to be raised when the same bytes come to other rows
CONVERTED = PIECE.append(pa.field("member", pa.string()))  # member: of a tar archive
READ = CONVERTED.set(CONVERTED.get_field_index("tags"), POSTS.field("tags"))  # the same in memory: tags have codes
END = "end.parquet"
_NOTE = b"kaobako"  # the key of what a piece says of itself
_WORTH_PROCESSES = 96 << 20  # bytes of lines: starting processes takes a second

Told = Callable[[str, int, int], None]  # name of a metadata file, bytes of it that are done, bytes of it


class _LostPieceError(Exception):
    """A converted file is not there, or damaged."""


@dataclass(frozen=True)
class Converted:
    """A metadata file as tables. A row's line is counted in its file, or in its member of the archive."""

    name: str
    tables: list[pa.Table]  # schema READ, in the file's order
    evidence: Evidence
    where: str | None  # of the evidence: member and line
    problem: str | None  # why the end of the file could not be read


def read_files(
    files: Sequence[tuple[str, Path]], cache: Path, told: Told | None = None, processes: int | None = None
) -> list[Converted]:
    """Metadata files (name, path) as tables, from the cache; what is not there is converted first.

    told, processes: see convert_files. Raises SourceError, OSError.
    """
    convert_files(files, cache, told, processes)
    try:
        return [_read_converted(name, file_folder(cache, path)) for name, path in files]
    except _LostPieceError:  # damaged, or deleted by somebody; what is left of it is known to be sound
        convert_files(files, cache, told, processes)
    try:
        return [_read_converted(name, file_folder(cache, path)) for name, path in files]
    except _LostPieceError as error:
        raise SourceError(
            f"converted metadata in {cache} cannot be read a moment after it was written: {error}. "
            "Does something delete files there? Run this again."
        ) from error


def convert_files(
    files: Sequence[tuple[str, Path]], cache: Path, told: Told | None = None, processes: int | None = None
) -> None:
    """Convert those metadata files (name, path) that the cache does not hold yet.

    Memory does not grow with them. told(name, done, total): bytes of a file. processes: at most so many at once
    (default: one for each processor that we may use). Raises SourceError, OSError.
    """
    todo = [(name, path) for name, path in files if not (file_folder(cache, path) / END).is_file()]
    with _start_workers(processes, sum(estimate_text(path) for _, path in todo)) as workers:
        for name, path in todo:
            _convert_file(name, path, file_folder(cache, path), workers, told)


def file_folder(cache: Path, path: Path) -> Path:
    """Where the pieces of a metadata file lie. Raises OSError."""
    pieces = {"bytes": blocks.BLOCK_BYTES, "line": rows.MAX_LINE_BYTES}  # where they are cut
    return cache / digest_json({"converter": CONVERTER, "pieces": pieces, "stamp": stamp_file(path)})[:24]


def _convert_file(name: str, path: Path, folder: Path, workers: _Workers, told: Told | None) -> None:
    """Write the pieces of one file that are not there yet, then its end."""
    stamp, size = stamp_file(path), path.stat().st_size
    make_folder(folder)
    done = {int(piece.stem) for piece in folder.glob("[0-9]*.parquet") if _read_note(piece) is not None}
    cut = Cut()
    count = 0

    def is_wanted(index: int) -> bool:
        nonlocal count
        count = index + 1
        return index not in done

    for block in cut_file(path, cut, is_wanted):
        workers.submit(block, folder / f"{block.index:06d}.parquet")
        if told is not None:
            told(name, cut.done, size)
    workers.finish()
    if stamp_file(path) != stamp:
        raise SourceError(f"{name} was changed while it was read. Wait until it is complete, then run this again.")
    _write_piece(folder / END, CONVERTED.empty_table(), {"pieces": count, "problem": cut.problem})
    if told is not None:
        told(name, size, size)


def convert_block(block: Block, piece: Path) -> None:
    """Write the rows of one block. Raises OSError."""
    collects = gc.isenabled()
    gc.disable()  # rows hold no cycles, and there are so many of them that looking for some takes half the time
    try:
        table, evidence, count = read_lines(block.read())
    finally:
        if collects:
            gc.enable()
    members = pa.nulls(len(table), pa.string())
    member = None
    if block.parts:  # lines were counted when the file was cut
        count = 0
        places = _Places(block)
        numbers, owners = places.of(table["line"].to_numpy())
        table = table.set_column(table.column_names.index("line"), "line", pa.array(numbers))
        members = pa.array([part.member for part in block.parts], pa.string()).take(pa.array(owners))
        if evidence.line is not None:
            line, owner = places.of(np.array([evidence.line]))
            evidence, member = replace(evidence, line=int(line[0])), block.parts[owner[0]].member
    note = {"lines": count, "evidence": asdict(evidence), "member": member}
    _write_piece(piece, table.append_column("member", members).cast(CONVERTED), note)


class _Places:
    """Lines of a block (from 1) as lines of the files that it was made of."""

    def __init__(self, block: Block) -> None:
        self._firsts = np.array([part.first for part in block.parts])
        self._numbers = np.array([part.number for part in block.parts])

    def of(self, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of lines, and the position of the part that each lies in."""
        owners = np.searchsorted(self._firsts, lines - 1, side="right") - 1
        return self._numbers[owners] + lines - 1 - self._firsts[owners], owners


def _write_piece(path: Path, table: pa.Table, note: dict[str, Any]) -> None:
    text = json.dumps({**note, "rows": len(table)}).encode()
    noted = table.replace_schema_metadata({_NOTE: digest_bytes(text).encode() + text})
    write_atomically(path, lambda temporary: write_table(temporary, noted))


def _read_note(piece: Path) -> dict[str, Any] | None:
    """What a piece says of itself; None for one that is damaged."""
    try:
        schema = pq.read_schema(piece)
    except (pa.ArrowException, OSError, ValueError):  # ValueError: a name that is not UTF-8
        return None
    return _open_note(schema, CONVERTED)


def _open_note(schema: pa.Schema, expected: pa.Schema) -> dict[str, Any] | None:
    """The note in a piece's schema; None for one that is not as it was sealed, or says it of other columns.

    Parquet has no checksum of its footer, where the note lies, and the note says whether s is safe.
    """
    sealed = (schema.metadata or {}).get(_NOTE, b"")
    seal, text = sealed[:64], sealed[64:]
    if digest_bytes(text).encode() != seal or not schema.equals(expected):
        return None
    note: dict[str, Any] = json.loads(text)
    return note


def _read_converted(name: str, folder: Path) -> Converted:
    """A file's pieces, in order, with the lines of plain files counted through. Raises _LostPieceError."""
    end = _read_note(folder / END)
    if end is None:
        (folder / END).unlink(missing_ok=True)
        raise _LostPieceError(f"{folder / END} is not there, or damaged")
    try:
        return _read_pieces(name, folder, end)
    except _LostPieceError:
        (folder / END).unlink(missing_ok=True)
        raise


def _read_pieces(name: str, folder: Path, end: dict[str, Any]) -> Converted:
    """The same, of a file whose end is known."""
    tables = []
    evidence, where = Evidence(), None
    lines_before = 0
    for index in range(end["pieces"]):
        piece = folder / f"{index:06d}.parquet"
        table, note = _read_piece(piece)
        if lines_before:
            lines = pa.array(table["line"].to_numpy() + lines_before)
            table = table.set_column(table.column_names.index("line"), "line", lines)
        tables.append(table)
        found = Evidence(**note["evidence"])
        if evidence.line is None and found.line is not None:
            place = f"{name}/{note['member']}" if note["member"] else name
            where = f"{place}:{found.line + lines_before}"
            evidence = replace(evidence, line=found.line + lines_before, why=found.why)
        evidence += replace(found, line=None)
        lines_before += note["lines"]
    return Converted(name, tables, evidence, where, end["problem"])


def _read_piece(piece: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of one piece (schema READ), and what it says of itself. Deletes one that is damaged: _LostPieceError."""
    options = {"page_checksum_verification": True, "memory_map": False, "read_dictionary": ["tags.list.element"]}
    try:
        with pq.ParquetFile(piece, **options) as file:
            table = file.read().combine_chunks()
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:  # KeyError: there is no such column
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and error.errno is not None:
            raise  # the disk's complaint; Arrow's own, of the bytes, has no number
        piece.unlink(missing_ok=True)
        raise _LostPieceError(str(error)) from error
    note = _open_note(table.schema, READ)
    if note is None or len(table) != note["rows"]:
        piece.unlink(missing_ok=True)
        raise _LostPieceError(f"{piece.name} is damaged")
    return table.replace_schema_metadata(None), note


class _Workers:
    """Converts blocks: here, or in processes, of which each has at most one block to wait for."""

    def __init__(self, pool: ProcessPoolExecutor | None, count: int) -> None:
        self._pool = pool
        self._most = count + 1
        self._running: deque[Future[None]] = deque()

    def submit(self, block: Block, piece: Path) -> None:
        if self._pool is None:
            convert_block(block, piece)
            return
        while len(self._running) >= self._most:
            self._wait()
        self._running.append(self._pool.submit(convert_block, block, piece))

    def finish(self) -> None:
        """Wait until everything is written."""
        while self._running:
            self._wait()

    def _wait(self) -> None:
        try:
            self._running.popleft().result()
        except BrokenProcessPool as error:
            raise SourceError(
                "a process that converted metadata was killed (was there too little memory?). "
                "Run this again: it goes on where it was."
            ) from error


@contextmanager
def _start_workers(processes: int | None, size: int) -> Iterator[_Workers]:
    """Processes where it is worth it: for `size` bytes, on more than one processor, and where we may have children."""
    count = processes or _count_processors()
    if count < 2 or size < _WORTH_PROCESSES or multiprocessing.current_process().daemon:
        yield _Workers(None, 1)
        return
    context = multiprocessing.get_context("spawn")  # whoever calls has threads, which a fork would cut off
    with ProcessPoolExecutor(count, context, _die_with_parent) as pool:
        workers = _Workers(pool, count)
        try:
            yield workers
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _count_processors() -> int:
    """Those that we may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
