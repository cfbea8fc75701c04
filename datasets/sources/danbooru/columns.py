"""Rows of metadata as columns: what a converted file holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.sources.config import Problem
from datasets.sources.danbooru.fields import (
    S,
    is_newer_date,
    is_newer_rating,
    is_older_date,
    read_date,
    read_extension,
    read_flag,
    read_md5,
    read_parent,
    read_rating_word,
    read_whole,
    split_tags,
)

# One row per post, and one per line that is none. Sound rows stand first, each kind in the order of the lines.
PIECE = pa.schema(
    [
        ("id", pa.int64()),  # null where there is none
        ("rating", pa.string()),  # a Rating, or "s" where the vintage decides
        ("score", pa.int32()),
        ("favourites", pa.int32()),
        ("tags", pa.list_(pa.string())),  # sorted, without repeats
        ("extension", pa.string()),
        ("declared_width", pa.int32()),
        ("declared_height", pa.int32()),
        ("deleted", pa.bool_()),
        ("banned", pa.bool_()),
        ("parent_id", pa.string()),
        ("created_at", pa.string()),  # UTC, as read_date writes it
        ("md5", pa.string()),
        ("problem", pa.string()),
        ("problem_detail", pa.string()),
        ("line", pa.int64()),  # from 1
        ("mark", pa.string()),  # of rows without an id: 16 hexadecimal digits of their text's SHA-256
    ]
)

DETAIL = 200  # characters that a problem may be told in
TAG_STRINGS = tuple(f"tag_string_{kind}" for kind in ("general", "artist", "copyright", "character", "meta"))


@dataclass(frozen=True)
class Evidence:
    """What rows say of the meaning of the letter s."""

    letters: int = 0  # rows that are rated s
    newer: int = 0  # rows that show that s is sensitive
    undated: int = 0  # other rows that are rated s, and do not say when they were written
    line: int | None = None  # of the first such row
    why: str = ""

    def __add__(self, later: Evidence) -> Evidence:
        """Of these lines and of later ones."""
        first = self if self.line is not None else later
        counts = (self.letters + later.letters, self.newer + later.newer, self.undated + later.undated)
        return Evidence(*counts, first.line, first.why)


def build_rows(rows: Sequence[Any], lines: Sequence[int]) -> pa.Table:
    """Posts as a PIECE table. rows: objects with the attributes of rows.py, their id a whole number."""
    endings = [read_extension(row.file_ext, row.image, row.file_url) for row in rows]
    columns = {
        "id": [row.id for row in rows],
        "rating": [read_rating_word(row.rating) for row in rows],
        "score": [read_whole(row.score) for row in rows],
        "favourites": [len(row.favs) if isinstance(row.favs, list) else read_whole(row.fav_count) for row in rows],
        "extension": [ending for ending, _ in endings],
        "declared_width": [read_whole(row.width if row.image_width is None else row.image_width) for row in rows],
        "declared_height": [read_whole(row.height if row.image_height is None else row.image_height) for row in rows],
        "deleted": [read_flag(row.is_deleted) or row.status == "deleted" for row in rows],
        "banned": [read_flag(row.is_banned) for row in rows],
        "parent_id": [read_parent(row.parent_id) for row in rows],
        "created_at": [read_date(row.created_at) for row in rows],
        "md5": [read_md5(row.md5) for row in rows],
        "problem": [None if fault is None else str(Problem.UNSAFE_PATH) for _, fault in endings],
        "problem_detail": [None if fault is None else clean_text(fault)[:DETAIL] for _, fault in endings],
        "line": lines,
    }
    arrays = {name: pa.array(values, PIECE.field(name).type) for name, values in columns.items()}
    arrays["tags"] = build_tags(rows)
    arrays["mark"] = pa.nulls(len(rows), pa.string())
    return pa.table([arrays[name] for name in PIECE.names], schema=PIECE)


def build_problems(problems: Iterable[tuple[Problem, str, int, str]]) -> pa.Table:
    """Lines without a post as a PIECE table. Each: problem, detail, line, mark."""
    rows = [
        {"problem": str(problem), "problem_detail": detail, "line": line, "mark": mark}
        for problem, detail, line, mark in problems
    ]
    return pa.Table.from_pylist(rows, schema=PIECE)


def build_tags(rows: Sequence[Any]) -> pa.ListArray:
    """Tags of any schema, sorted, without repeats: list<string>.

    `tags` as objects or names; else `tag_string`, or `tags` as text; else the tags by category.
    """
    lists = [list_tags(row) for row in rows]
    names = pa.array(list(chain.from_iterable(lists)), pa.string()).dictionary_encode()
    if not len(names.dictionary):
        return pa.ListArray.from_arrays(pa.array(np.zeros(len(rows) + 1, np.int32)), names.dictionary)
    order = pc.sort_indices(names.dictionary).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    owners = np.repeat(np.arange(len(rows)), [len(tags) for tags in lists])
    keys = np.sort(owners * len(order) + ranks[names.indices.to_numpy()])  # in order of row, then of name
    keys = keys[np.diff(keys, prepend=-1) > 0]
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(np.bincount(keys // len(order), minlength=len(rows)), out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), names.dictionary.take(pa.array(order[keys % len(order)])))


def list_tags(row: Any) -> list[str]:
    """The tags of one row as it has them."""
    tags = row.tags
    if isinstance(tags, list):
        return [tag.name for tag in tags if tag.name]
    said = tags if row.tag_string is None else row.tag_string
    parts = [said] if said else [getattr(row, name) for name in TAG_STRINGS]
    return [name for part in parts for name in _names(part) if isinstance(name, str) and name]


def _names(part: Any) -> list[Any]:
    if isinstance(part, str):
        return split_tags(part)
    return part if isinstance(part, list) else []


def clean_text(text: str) -> str:
    """Text that a table can hold: JSON can spell half a character, which UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def find_evidence(rows: Sequence[Any], lines: Sequence[int]) -> Evidence:
    """What rows say of the vintage. lines: of each row.

    s is sensitive as soon as one row is rated general or sensitive, was made or changed in 2022 or later, or tells of
    its media asset, which only the later interface does. That s is safe, only the date of a row's last change shows:
    a post of 2015 may stand in a row of 2023.
    """
    letters = undated = 0
    newer: list[tuple[int, str]] = []
    for row, line in zip(rows, lines, strict=True):
        rating = read_rating_word(row.rating)
        letters += rating == S
        if is_newer_rating(rating):
            newer.append((line, f"rated {rating}"))
        elif is_newer_date(row.created_at):
            newer.append((line, f"created_at {row.created_at!s:.40}"))
        elif is_newer_date(row.updated_at):
            newer.append((line, f"updated_at {row.updated_at!s:.40}"))
        elif is_newer_date(row.change):
            newer.append((line, f"change {row.change!s:.40}"))
        elif row.media_asset is not None:
            newer.append((line, "it has a media_asset"))
        elif rating == S and not (is_older_date(row.updated_at) or is_older_date(row.change)):
            undated += 1
    if not newer:
        return Evidence(letters, undated=undated)
    line, why = min(newer)
    return Evidence(letters, len(newer), undated, line, clean_text(why))
