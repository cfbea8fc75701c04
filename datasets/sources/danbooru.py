"""Danbooru dumps: JSON-lines metadata of every vintage, and pictures at original/NNNN/ID.ext.

Two schemas are read, also mixed: the old one (2018-2020), where nearly every scalar is a string and tags are objects,
and the typed one (2021 on) with tag strings. A row that is broken, lies outside the folder, or has no file stays in the
table with its problem, so that the ledger can name it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets.errors import SourceError
from datasets.schema import POSTS
from datasets.sources.config import Problem, Rating, RatingVintage, SourceConfig
from datasets.sources.files import LINK_OUTSIDE, FoundFile, list_files, readable_name, stamp_file
from datasets.sources.listing import SourceListing

_BATCH_ROWS = 20_000
_ID = re.compile(r"[0-9]{1,18}")
_EXTENSION = re.compile(r"[a-z0-9]{1,5}")
_MAX_LINE_BYTES = 16_000_000  # the longest real rows have some 100 KB of favourites
_LETTERS = {"g": Rating.GENERAL, "q": Rating.QUESTIONABLE, "e": Rating.EXPLICIT}
_WORDS = {rating.value: rating for rating in Rating}


def list_source(config: SourceConfig) -> SourceListing:
    """The files of a dump and of its metadata, none of them read. Raises SourceError when there is no metadata."""
    metadata = metadata_files(config)
    stamps = tuple((path.relative_to(config.root).as_posix(), stamp_file(path)) for path in metadata)
    return SourceListing(config, list_files(config.root / config.images), stamps)


def read_posts(listing: SourceListing) -> pa.Table:
    """All posts of a dump as a POSTS table, in order of post_id."""
    config = listing.config
    files = listing.pictures.by_name()
    paths = [config.root / name for name, _ in listing.metadata]
    vintage = infer_vintage(paths) if config.rating_vintage is RatingVintage.AUTO else config.rating_vintage
    seen: set[str] = set()
    claimed: set[str] = set()
    batches: list[pa.RecordBatch] = []
    rows: list[dict[str, Any]] = []
    for path in paths:
        for number, line in read_lines(path):
            where = f"{path.relative_to(config.root).as_posix()}:{number}"
            row = _post(line, where, config, vintage)
            if row["problem"] in (None, Problem.UNSAFE_PATH):
                _check_id(row, where, seen)
            _attach_file(row, config, files, claimed)
            rows.append(row)
            if len(rows) >= _BATCH_ROWS:
                batches.append(pa.RecordBatch.from_pylist(rows, schema=POSTS))
                rows = []
    rows.extend(_orphans(config, files, claimed))
    batches.append(pa.RecordBatch.from_pylist(rows, schema=POSTS))
    return pa.Table.from_batches(batches, schema=POSTS).sort_by("post_id")


def metadata_files(config: SourceConfig) -> list[Path]:
    """The metadata files, by name. Raises SourceError when there are none."""
    pattern = config.metadata or "metadata/*"
    if not config.root.is_dir():
        raise SourceError(
            f"the source folder {config.root} does not exist. Set source.root to your dump, "
            "or draw a demo board with `kaobako booru demo/booru`."
        )
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise SourceError(f"source.metadata must be a glob below {config.root}, not {pattern!r}")
    paths = sorted(p for p in config.root.glob(pattern) if p.is_file() and not p.name.startswith("."))
    if not paths:
        raise SourceError(
            f"no metadata files match {pattern!r} below {config.root}. Set source.metadata to a glob that does, "
            "or source.kind=folder for pictures without metadata."
        )
    return paths


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered non-empty lines, from 1. A line beyond 16 MB is cut, and so is broken; memory stays bounded."""
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(_MAX_LINE_BYTES):
            number += 1
            while not line.endswith(b"\n") and len(line) == _MAX_LINE_BYTES and (rest := stream.readline(65536)):
                if rest.endswith(b"\n"):
                    break
            if line.strip():
                yield number, line


def infer_vintage(paths: list[Path]) -> RatingVintage:
    """What `s` means in these files: sensitive as soon as one row is rated g, or was made or changed in 2022 or later.

    The site renamed its ratings in January 2022. A slice of newer rows may hold no g, so the dates count too; in doubt
    `s` is sensitive, which drops more than is wanted but lets nothing through.
    """
    newer = re.compile(
        rb'"rating"\s*:\s*"\s*g(?:eneral)?\s*"|"(?:created|updated)_at"\s*:\s*"20(?:2[2-9]|[3-9]\d)', re.IGNORECASE
    )
    for path in paths:
        for _, line in read_lines(path):
            if newer.search(line):
                return RatingVintage.S_IS_SENSITIVE
    return RatingVintage.S_IS_SAFE


def _post(line: bytes, where: str, config: SourceConfig, vintage: RatingVintage) -> dict[str, Any]:
    """One metadata line as a POSTS row, with its problem if it has one."""
    try:
        raw = json.loads(line)
        if not isinstance(raw, dict):
            raise TypeError(f"a JSON object was expected, not {type(raw).__name__}")
    except (ValueError, TypeError, RecursionError) as error:
        return _problem_row(where, Problem.BROKEN_ROW, str(error))
    post_id = str(raw.get("id", "")) if raw.get("id") is not None else ""
    if not _ID.fullmatch(post_id):
        return _problem_row(where, Problem.NO_ID, f"id is {raw.get('id')!r}: banned and gold-only rows have none")
    extension = str(raw.get("file_ext") or "").lower()
    row = {
        "post_id": post_id,
        "rating": read_rating(raw.get("rating"), vintage),
        "score": read_whole(raw.get("score")),
        "favourites": len(raw["favs"]) if isinstance(raw.get("favs"), list) else read_whole(raw.get("fav_count")),
        "tags": read_tags(raw),
        "extension": extension,
        "declared_width": read_whole(raw.get("image_width")),
        "declared_height": read_whole(raw.get("image_height")),
        "deleted": _flag(raw.get("is_deleted")),
        "banned": _flag(raw.get("is_banned")),
        "parent_id": _parent(raw.get("parent_id")),
        "created_at": _text(raw["created_at"]) if raw.get("created_at") else None,
        "problem": None,
    }
    if not _EXTENSION.fullmatch(extension):
        row |= {"problem": Problem.UNSAFE_PATH, "problem_detail": f"file_ext is {raw.get('file_ext')!r}"}
        row["extension"] = None
    return row


def _problem_row(post_id: str, problem: Problem, detail: str) -> dict[str, Any]:
    return {"post_id": post_id, "problem": problem, "problem_detail": detail[:200]}


def _check_id(row: dict[str, Any], where: str, seen: set[str]) -> None:
    """Dumps overlap at their seams: the first row of an id counts, later ones are named by their line."""
    if row["post_id"] in seen:
        detail = f"id {row['post_id']} was already read"
        row |= {"post_id": where, "problem": Problem.DUPLICATE_ID, "problem_detail": detail}
    seen.add(row["post_id"])


def _attach_file(row: dict[str, Any], config: SourceConfig, files: dict[str, FoundFile], claimed: set[str]) -> None:
    """The post's file, found by its id alone: nothing that the metadata says is ever used as a path unchecked."""
    if row["problem"] is not None:
        return
    name = f"{int(row['post_id']) % config.modulus:04d}/{row['post_id']}.{row['extension']}"
    found = files.get(name)
    row["source_path"] = f"{config.images}/{name}"
    if found is None:
        row |= {"problem": Problem.MISSING_FILE, "problem_detail": f"{config.images}/{name} does not exist"}
        return
    claimed.add(name)
    if found.outside:
        row |= {"source_path": None, "problem": Problem.UNSAFE_PATH, "problem_detail": LINK_OUTSIDE}
        return
    row |= {"file_bytes": found.size, "file_stamp": found.stamp}


def _orphans(config: SourceConfig, files: dict[str, FoundFile], claimed: set[str]) -> list[dict[str, Any]]:
    """Files that no metadata row speaks of."""
    return [
        {
            "post_id": f"{config.images}/{readable_name(name)}",
            "source_path": None if files[name].outside else f"{config.images}/{readable_name(name)}",
            "file_bytes": files[name].size,
            "file_stamp": files[name].stamp,
            "problem": Problem.UNSAFE_PATH if files[name].outside else Problem.NO_METADATA,
            "problem_detail": LINK_OUTSIDE if files[name].outside else "no metadata row names this file",
        }
        for name in sorted(files.keys() - claimed)
    ]


def read_rating(value: Any, vintage: RatingVintage) -> str:
    """A rating letter or word as a Rating. What is not understood is `unknown`, which no recipe takes by default."""
    text = str(value or "").strip().lower()
    if text == "s":
        return Rating.SENSITIVE if vintage is RatingVintage.S_IS_SENSITIVE else Rating.SAFE
    return _LETTERS.get(text) or _WORDS.get(text) or Rating.UNKNOWN


def read_tags(raw: dict[str, Any]) -> list[str]:
    """Tags of either schema, sorted, without repeats."""
    tags = raw.get("tags")
    names: list[Any]
    if isinstance(tags, list):
        names = [t.get("name") if isinstance(t, dict) else t for t in tags]
    else:
        text = raw.get("tag_string", tags)
        names = text.split() if isinstance(text, str) else []
    return sorted({_text(name) for name in names if isinstance(name, str) and name})


def read_whole(value: Any) -> int | None:
    """A 32-bit whole number that may be a string; None for anything else."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**31) <= number < 2**31 else None


def _flag(value: Any) -> bool:
    """A flag that may be a number or a string; mirrors of the site write "true" and "false"."""
    return value in (True, 1) or (isinstance(value, str) and value.strip().lower() in ("true", "1", "t"))


def _text(value: Any) -> str:
    """Text that a table can hold: JSON can spell half a character, which UTF-8 cannot."""
    return str(value).encode("utf-8", "replace").decode()


def _parent(value: Any) -> str | None:
    text = _text(value or "")
    return text if text not in ("", "0", "None") else None
