"""Lines of JSON become columns: the same columns by the fast way and by the careful one.

The careful way reads a line with Python's own parser and takes whatever it finds. The fast way lets msgspec, where it
is installed, pick out of a line only what is wanted, into objects of known shape; a line that has any other shape goes
the careful way. Both end in objects with the same attributes, and everything after that is shared.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.sources.config import Problem
from datasets.sources.danbooru.columns import (
    DETAIL,
    TAG_STRINGS,
    Evidence,
    build_problems,
    build_rows,
    clean_text,
    find_evidence,
)
from datasets.sources.danbooru.fields import read_id

MAX_LINE_BYTES = 16_000_000  # the longest real rows have some 100 KB of favourites
MAX_DEPTH = 400  # of nesting; Python's own limit depends on who calls
MAX_DIGITS = 4300  # of a number; Python's own limit can be set from outside
MAX_RUN = 1000  # broken lines in a row that are named one by one

# What is read of a row; all else is skipped.
_WANTED = (
    *(
        "id",
        "rating",
        "score",
        "favs",
        "fav_count",
        "tags",
        "tag_string",
        *TAG_STRINGS,
        "file_ext",
        "image",
        "file_url",
    ),
    *("image_width", "image_height", "width", "height", "is_deleted", "is_banned", "status", "parent_id", "created_at"),
    *("updated_at", "change", "md5", "media_asset", "post"),
)

# Rows of the careful way; the fast way has the same attributes.
_Row: Any = make_dataclass("_Row", [(name, Any, field(default=None)) for name in _WANTED], slots=True)
_Tag: Any = make_dataclass("_Tag", [("name", Any, field(default=None))], slots=True)

_LINES_AT_ONCE = 1000  # their objects fit a processor's cache, and are reused
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))


@dataclass
class _Found:
    """Rows and problems of a block, before they are columns."""

    rows: list[Any] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # of each row
    unnamed: list[Any] = field(default_factory=list)  # rows without an id, which may still tell the vintage
    unnamed_lines: list[int] = field(default_factory=list)
    problems: list[tuple[Problem, str, int, str]] = field(default_factory=list)  # problem, detail, line, mark
    run: int = 0  # problems of one kind without anything else between them
    run_mark: Any = None

    def add(self, row: Any, line: int) -> None:
        self.rows.append(row)
        self.lines.append(line)
        self.run = 0

    def forget_rows(self) -> None:
        """They are columns now; problems are kept."""
        self.rows, self.lines, self.unnamed, self.unnamed_lines = [], [], [], []

    def add_problem(self, problem: Problem, detail: str, line: int, text: bytes) -> None:
        """A line without a post. Beyond MAX_RUN of a kind in a row, they are counted in one problem."""
        self.run = self.run + 1 if self.run and self.problems[-1][0] is problem else 1
        if self.run <= MAX_RUN:
            mark = hashlib.sha256(text).hexdigest()[:16]
            self.problems.append((problem, clean_text(detail)[:DETAIL], line, mark))
            return
        if self.run == MAX_RUN + 1:
            self.run_mark = hashlib.sha256()
            self.problems.append((problem, "", line, ""))
        self.run_mark.update(text)
        first = self.problems[-1][2]
        detail = f"{self.run - MAX_RUN} more such lines in a row: is this a file of JSON lines?"
        self.problems[-1] = (problem, detail, first, self.run_mark.hexdigest()[:16])


def read_lines(data: bytes, fast: bool = True) -> tuple[pa.Table, Evidence, int]:
    """The posts and problems (PIECE) of whole lines of JSON, what they say of the vintage, and how many lines they are.

    fast: let msgspec read them, where it is installed; it changes nothing else.
    """
    decode = load_decoder() if fast else None
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    is_utf8 = _is_utf8(data)
    found = _Found()
    evidence = Evidence()
    tables = []
    for start in range(0, len(lines), _LINES_AT_ONCE):
        part = lines[start : start + _LINES_AT_ONCE]
        if decode is None:
            for number, line in enumerate(part, start + 1):
                _read_carefully(line, number, found)
        else:
            _read_fast(part, start + 1, decode, found, is_utf8)
        evidence += find_evidence((*found.rows, *found.unnamed), (*found.lines, *found.unnamed_lines))
        tables.append(build_rows(found.rows, found.lines))
        found.forget_rows()
    tables.append(build_problems(found.problems))
    return pa.concat_tables(tables).combine_chunks(), evidence, len(lines)


def _read_fast(lines: list[bytes], first: int, decode: Callable[[bytes], Any], found: _Found, is_utf8: bool) -> None:
    """Lines by msgspec; those that it refuses, and those in which it would overlook a fault, go the careful way.

    msgspec does not look at the bytes of text that it skips, nor at the length of numbers, and its limit of nesting is
    not ours. All else it refuses, or reads as Python does. first: the number of the first line.
    """
    for number, line in enumerate(lines, first):
        if not line:
            continue
        if (
            (not is_utf8 and not _is_utf8(line))
            or (len(line) > MAX_DIGITS and (len(line) > MAX_LINE_BYTES or _LONG_NUMBER.search(line)))
            or line.count(b"{") + line.count(b"[") > MAX_DEPTH
        ):
            _read_carefully(line, number, found)
            continue
        try:
            row = decode(line)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            _read_carefully(line, number, found)
            continue
        if row.post is not None:
            _read_carefully(line, number, found)
        else:
            _add_row(row, number, line, found)


def _is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8, found out by Arrow in place: Python would make text of them, at four times the size."""
    offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def load_decoder() -> Callable[[bytes], Any] | None:
    """msgspec's decoder of a line; None where msgspec is not installed."""
    try:
        msgspec = importlib.import_module("msgspec")
    except ImportError:
        return None
    tag = msgspec.defstruct("Tag", [("name", str | None, None)], gc=False)
    nothing = msgspec.defstruct("Nothing", [], gc=False)
    shapes = {
        "favs": list[str] | None,
        "tags": list[tag] | str | None,  # type: ignore[valid-type]
        "media_asset": nothing | None,
        "post": list[nothing] | nothing | None,  # type: ignore[valid-type]
    }
    row = msgspec.defstruct("Row", [(name, shapes.get(name, Any), None) for name in _WANTED], gc=False)
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(row).decode
    return decode


def _read_carefully(line: bytes, number: int, found: _Found) -> None:
    """One line by Python's own parser: a post, a page of posts, or a problem."""
    text = line.strip()
    if not text:
        return
    try:
        value = _parse(text)
        for item in _list_items(value):
            if isinstance(item, dict):
                part = text if item is value else json.dumps(item, sort_keys=True).encode()
                _add_row(_pick(item), number, part, found)
            else:
                raise TypeError(f"a JSON object was expected, not {type(item).__name__}")
    except (ValueError, TypeError, RecursionError) as error:
        found.add_problem(Problem.BROKEN_ROW, str(error), number, text[:MAX_LINE_BYTES])


def _parse(text: bytes) -> Any:
    """A JSON value. Raises ValueError."""
    if len(text) > MAX_LINE_BYTES:
        raise ValueError(f"the line is longer than {MAX_LINE_BYTES} bytes")
    if _LONG_NUMBER.search(text):
        raise ValueError(f"a number of more than {MAX_DIGITS} digits")
    words = text.decode("utf-8-sig")
    if words.count("{") + words.count("[") > MAX_DEPTH and _depth(words) > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} values within each other")
    return json.loads(words)


def _depth(words: str) -> int:
    """How deep values lie within each other."""
    depth = deepest = 0
    for match in _TOKEN.finditer(words):
        if match[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in "]}":
            depth -= 1
    return deepest


def _list_items(value: Any) -> Iterator[Any]:
    """The posts in a line: one, or a page as the sites' APIs send it. All of them must be objects, or none counts."""
    if isinstance(value, dict) and value.get("post") is not None and "id" not in value:
        value = value["post"]
    if not isinstance(value, list):
        yield value
        return
    for item in value:
        if not isinstance(item, dict):
            raise TypeError(f"a list of JSON objects was expected, but {type(item).__name__} is in it")
    yield from value


def _pick(raw: dict[str, Any]) -> Any:
    """What is wanted of a row, with text that a table can hold."""
    row = _Row(**{name: _clean(raw[name]) for name in _WANTED if name in raw})
    if isinstance(row.tags, list):
        names = [tag.get("name") if isinstance(tag, dict) else tag for tag in row.tags]
        row.tags = [_Tag(name) for name in names if isinstance(name, str)]
    return row


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return value


def _add_row(row: Any, number: int, line: bytes, found: _Found) -> None:
    post_id = read_id(row.id)
    if post_id is None:
        detail = f"id is {row.id!r}: banned and gold-only rows have none"
        found.add_problem(Problem.NO_ID, detail, number, line.strip())
        found.unnamed.append(row)
        found.unnamed_lines.append(number)
        return
    row.id = post_id
    found.add(row, number)
