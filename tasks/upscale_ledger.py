"""What `kaobako upscale` has done in a folder: its settings, and a line per picture, so that it can go on."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from datasets.atomic import write_text
from datasets.errors import SourceError

SETTINGS_FILE = "upscale.json"
LEDGER_FILE = "upscale.jsonl"
LOCK_FILE = "upscale.lock.json"
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp", re.DOTALL)  # as datasets.atomic names them


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one picture: a line of the ledger."""

    name: str  # relative to the source, "/" as separator
    output: str | None  # relative to the output folder; None when nothing was written
    source_bytes: int
    source_mtime_ns: int
    output_bytes: int | None = None
    width: int | None = None  # of the result, pixels
    height: int | None = None
    factor: float | None = None  # sides of the result over those of the source
    method: str | None = None
    noise: str | None = None
    engine: str | None = None
    skipped: str | None = None  # why it was left out on purpose
    error: str | None = None  # why it could not be enlarged


class Ledger:
    """OUT/upscale.jsonl, open for appending: each line is handed to the system before the next picture is counted."""

    def __init__(self, path: Path) -> None:
        """Opens the file; a line that a kill cut in the middle is taken off first. Raises OSError."""
        cut_torn_line(path)
        self._stream: BinaryIO = path.open("ab", buffering=0)

    def append(self, row: Row) -> None:
        """Add a line. Raises OSError; then part of it may be in the file, and the next run takes that off."""
        line = (json.dumps(asdict(row)) + "\n").encode("ascii")  # ASCII: names that are no UTF-8 come back unchanged
        written = self._stream.write(line)
        while written < len(line):  # a full disk may take a part, and says so when it is asked for the rest
            written += self._stream.write(line[written:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()


def cut_torn_line(path: Path) -> None:
    """Take off what follows the last line break: a kill came while it was written."""
    if not path.is_file():
        return
    with path.open("r+b") as stream:
        whole = end = stream.seek(0, 2)
        while end:
            start = max(0, end - 65_536)
            stream.seek(start)
            if (at := stream.read(end - start).rfind(b"\n")) >= 0:
                end = start + at + 1
                break
            end = start
        if end != whole:
            stream.truncate(end)


def read_ledger(path: Path) -> dict[str, Row]:
    """The last line of each picture by its name. Lines that are none are passed over: their pictures are done again."""
    rows: dict[str, Row] = {}
    if path.is_file():
        with path.open("rb") as stream:
            for line in stream:
                if (row := _parse(line)) is not None:
                    rows[row.name] = row
    return rows


def _parse(line: bytes) -> Row | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    known = {field.name for field in fields(Row)}
    if not isinstance(values, dict) or not isinstance(values.get("name"), str) or set(values) != known:
        return None
    for name in ("method", "noise", "engine"):  # the same few words in every line are kept once
        if isinstance(values[name], str):
            values[name] = sys.intern(values[name])
    return Row(**values)


def is_finished(row: Row | None, output: str, size: int, mtime_ns: int, out: Path) -> bool:
    """Whether a picture need not be opened again: it was done, neither it nor its result has changed since.

    row: its line, if any. output: the name that its result would get now. size, mtime_ns: of the source now. Failures
    are tried again: what could not be read, or written, may be mended.
    """
    if row is None or row.error is not None or (row.source_bytes, row.source_mtime_ns) != (size, mtime_ns):
        return False
    if row.output is None:
        return row.skipped is not None
    try:
        return row.output == output and (out / output).stat().st_size == row.output_bytes
    except OSError:  # gone, or not to be looked at: made again, or named then
        return False


def claim_folder(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Write the settings of this run into its folder before anything else, or see that they are those of the last one.

    Call it with the folder's lock held. overwrite: what was done before does not count.
    Raises SourceError when the folder was filled with other settings, or by something else; OSError.
    """
    path = out / SETTINGS_FILE
    advice = "--overwrite makes all pictures anew, or name another folder"
    if overwrite:
        (out / LEDGER_FILE).unlink(missing_ok=True)  # first: no line may speak of pictures of other settings
    elif path.is_file():
        try:
            before = json.loads(path.read_bytes())
        except ValueError:
            before = None
        if not isinstance(before, dict):
            raise SourceError(f"{path} is damaged, so nobody knows how the pictures beside it were made: {advice}")
        if changed := _describe_changes(before, settings):
            raise SourceError(f"{out} was filled with other settings ({changed}): {advice}")
        return
    elif others := [entry.name for entry in sorted(out.iterdir()) if not entry.name.startswith(".")]:
        found = [name for name in others if name != LOCK_FILE]
        if found:
            raise SourceError(
                f"{out} holds files that no `kaobako upscale` made ({found[0]} is one). Name an empty or new folder, "
                "or pass --overwrite: files of the same names are then replaced"
            )
    write_text(path, json.dumps(settings, indent=2) + "\n")


def _describe_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings that differ, in words; "" when none does."""
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    said = [f"{name} was {json.dumps(before.get(name))}, is {json.dumps(now.get(name))}" for name in changed]
    return "; ".join(said)


def remove_leftovers(out: Path, outputs: Collection[str]) -> None:
    """Delete the temporary files that a killed run left beside the results. Call it with the folder's lock held."""
    for folder in sorted({(out / output).parent for output in outputs}):
        if not folder.is_dir():
            continue
        for name in _list_names(folder):
            found = _TEMPORARY.fullmatch(name)
            if found and (folder / found["name"]).relative_to(out).as_posix() in outputs:
                (folder / name).unlink(missing_ok=True)


def _list_names(folder: Path) -> Iterable[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))
