"""Converted metadata and the listing of files become posts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.chunks import gather
from datasets.digests import digest_bytes
from datasets.schema import POSTS, conform
from datasets.sources.config import Problem, RatingVintage, SourceConfig
from datasets.sources.danbooru.convert import Converted
from datasets.sources.danbooru.layout import name_files
from datasets.sources.danbooru.repeats import count_repeats, resolve_s, settle_repeats
from datasets.sources.files import LINK_OUTSIDE, FileList, readable_names

_LINE = "line-"  # begins the post_id of a line that has none; the files' and the posts' begin otherwise


def build_posts(
    config: SourceConfig, pictures: FileList, converted: Sequence[Converted], vintage: RatingVintage
) -> pa.Table:
    """All posts, all lines without a post, and all files without a line: a POSTS table in order of post_id.

    The table is in chunks, which are not to be joined: see chunks.py. Of several rows of an id the first counts, with
    the strictest rating of all (see repeats.py); the others are told as id~2, id~3, ... A line without an id is called
    by a digest of its text, so that its name does not change with lines before it. The tables of `converted` are taken
    out of it, so that no row is held longer than it must be.
    """
    parts = _list_parts(config, pictures, converted, vintage)
    order = sort_by_name(parts)
    return gather(parts, order) if len(order) else POSTS.empty_table()


def _list_parts(
    config: SourceConfig, pictures: FileList, converted: Sequence[Converted], vintage: RatingVintage
) -> list[pa.Table]:
    """The same rows as several POSTS tables: in the order of the lines, then what has no line."""
    tables = [table for file in converted for table in file.tables]
    names = [file.name for file in converted for _ in file.tables]
    for file in converted:
        file.tables.clear()
    rows_of = _number_rows(tables)
    ids = _concatenate([_whole_numbers(table["id"]) for table in tables], np.int64)
    repeats = count_repeats(ids)
    settle_repeats(tables, ids, repeats, vintage)
    sources = deque(zip(names, tables, strict=True))
    del tables
    sound = _concatenate([table["problem"].is_null().to_numpy() for _, table in sources], bool)
    sound &= (ids >= 0) & (repeats == 0)
    files = _Files(config, pictures)
    paths = deque(files.name(table, ids[rows], sound[rows]) for (_, table), rows in zip(sources, rows_of, strict=True))
    places = files.find(paths)
    marks: Counter[str] = Counter()
    parts = []
    for rows in rows_of:
        name, table = sources.popleft()
        found = files.tell(paths.popleft(), places[rows], sound[rows])
        parts.append(_finish(table, name, ids[rows], repeats[rows], found, marks, vintage))
    parts.append(_tell_files(converted, marks))
    parts.append(files.list_orphans())
    return parts


def _finish(
    table: pa.Table,
    name: str,
    ids: np.ndarray,
    repeats: np.ndarray,
    found: dict[str, pa.Array],
    marks: Counter[str],
    vintage: RatingVintage,
) -> pa.Table:
    """One converted table as POSTS: ids, ratings, files (as found), and what is wrong."""
    problems = table["problem"].combine_chunks()
    lost = (ids < 0) | (repeats > 0)
    special = np.flatnonzero(lost)
    told = _tell_lines(table.take(pa.array(special)), name, ids[special], repeats[special], marks, vintage)
    mask = pa.array(lost)
    columns = {
        **{column: table[column] for column in POSTS.names if column in table.column_names},
        "post_id": pc.replace_with_mask(pa.array(ids).cast(pa.string()), mask, told["post_id"]),
        "rating": resolve_s(table["rating"].combine_chunks(), vintage),
        "problem": pc.replace_with_mask(pc.coalesce(problems, found["problem"]), mask, told["problem"]),
        "problem_detail": pc.replace_with_mask(
            pc.coalesce(table["problem_detail"].combine_chunks(), found["problem_detail"]), mask, told["problem_detail"]
        ),
        **{column: found[column] for column in ("source_path", "file_bytes", "file_stamp")},
    }
    return conform(pa.table(columns), POSTS).combine_chunks()


def _tell_lines(
    rows: pa.Table, name: str, ids: np.ndarray, repeats: np.ndarray, marks: Counter[str], vintage: RatingVintage
) -> dict[str, pa.Array]:
    """What lines without a usable post are called, and what is wrong with them."""
    told: dict[str, list[str]] = {"post_id": [], "problem": [], "problem_detail": []}
    wanted = ("problem", "problem_detail", "mark", "member", "line")
    ratings = resolve_s(rows["rating"].combine_chunks(), vintage).to_pylist()
    found = zip(rows.select(wanted).to_pylist(), ids.tolist(), repeats.tolist(), ratings, strict=True)
    for row, post_id, repeat, rating in found:
        place = f"{name}/{row['member']}" if row["member"] else name
        if repeat:
            problem, called = Problem.DUPLICATE_ID, f"{post_id}~{repeat + 1}"
            detail = (
                f"id {post_id} was already read. Here it is rated {rating}; the strictest rating of all rows counts"
            )
        else:
            problem, detail = row["problem"], row["problem_detail"]
            called = _call(row["mark"], marks)
        told["post_id"].append(called)
        told["problem"].append(str(problem))
        told["problem_detail"].append(f"{place}:{row['line']}: {detail}")
    return {column: pa.array(values, pa.string()) for column, values in told.items()}


def _call(mark: str, marks: Counter[str]) -> str:
    """A name for a line, by its content; equal lines are counted."""
    marks[mark] += 1
    return f"{_LINE}{mark}" if marks[mark] == 1 else f"{_LINE}{mark}~{marks[mark]}"


def _tell_files(converted: Sequence[Converted], marks: Counter[str]) -> pa.Table:
    """Files of metadata whose end could not be read."""
    rows = [
        {
            "post_id": _call(digest_bytes(f"{file.name}\n{file.problem}".encode())[:16], marks),
            "problem": str(Problem.BROKEN_ROW),
            "problem_detail": f"{file.name}: {file.problem}",
        }
        for file in converted
        if file.problem is not None
    ]
    return pa.Table.from_pylist(rows, schema=POSTS)


class _Files:
    """The files of a listing, and which of them a post has claimed."""

    def __init__(self, config: SourceConfig, pictures: FileList) -> None:
        self._config = config
        self._names = pa.array(readable_names(pictures.names), pa.string())
        self._sizes = pa.array(pictures.sizes, pa.int64())
        self._stamps = pa.array(pictures.stamps, pa.string())
        outside = pictures.outside
        self._outside = np.fromiter((name in outside for name in pictures.names), bool) if outside else self._nothing()
        self._claimed = self._nothing()

    def _nothing(self) -> np.ndarray:
        return np.zeros(len(self._names), bool)

    def name(self, table: pa.Table, ids: np.ndarray, sound: np.ndarray) -> pa.Array:
        """Where the files of posts should lie: string (N,), null for rows that are not `sound` or lack a part of it.

        Nothing that the metadata says becomes a path unchecked: see name_files.
        """
        extensions, md5 = (table[column].combine_chunks() for column in ("extension", "md5"))
        return pc.if_else(pa.array(sound), name_files(self._config, np.maximum(ids, 0), extensions, md5), None)

    def find(self, names: Iterable[pa.Array]) -> np.ndarray:
        """Which file each post has: int64 (N,), -1 for none. All posts at once: the files are put in order for it."""
        asked = pa.chunked_array(names, pa.string())
        places: np.ndarray = pc.fill_null(pc.index_in(asked, value_set=self._names), -1).to_numpy()
        self._claimed[places[places >= 0]] = True
        return places

    def tell(self, names: pa.Array, places: np.ndarray, sound: np.ndarray) -> dict[str, pa.Array]:
        """What posts say of their files, and what is wrong with them. names, places: see name and find."""
        named = names.is_valid().to_numpy(zero_copy_only=False)
        found = places >= 0
        outside = np.zeros(len(places), bool)
        outside[found] = self._outside[places[found]]
        rows = pa.array(places, mask=~found | outside)
        paths = pc.binary_join_element_wise(f"{self._config.images}/", names, "")
        absent = pc.binary_join_element_wise(paths, " does not exist", "")
        return {
            "source_path": pc.if_else(pa.array(outside), None, paths),
            "file_bytes": self._sizes.take(rows),
            "file_stamp": self._stamps.take(rows),
            "problem": _choose(
                len(places),
                (sound & ~named, str(Problem.UNSAFE_PATH)),
                (named & ~found, str(Problem.MISSING_FILE)),
                (outside, str(Problem.UNSAFE_PATH)),
            ),
            "problem_detail": _choose(
                len(places),
                (sound & ~named, "the row has no md5, which source.layout names files by"),
                (named & ~found, absent),
                (outside, LINK_OUTSIDE),
            ),
        }

    def list_orphans(self) -> pa.Table:
        """Files that no row speaks of. Once all posts have been found."""
        left = np.flatnonzero(~self._claimed)
        outside = pa.array(self._outside[left])
        names = pc.binary_join_element_wise(f"{self._config.images}/", self._names.take(pa.array(left)), "")
        columns = {
            "post_id": names,
            "source_path": pc.if_else(outside, None, names),
            "file_bytes": self._sizes.take(pa.array(left)),
            "file_stamp": self._stamps.take(pa.array(left)),
            "problem": pc.if_else(outside, str(Problem.UNSAFE_PATH), str(Problem.NO_METADATA)),
            "problem_detail": pc.if_else(outside, LINK_OUTSIDE, "no metadata row names this file"),
        }
        return conform(pa.table(columns), POSTS)


def _choose(count: int, *cases: tuple[np.ndarray, pa.Array | str]) -> pa.Array:
    """The text of the first case that holds, for each row; null where none does."""
    chosen = pa.nulls(count, pa.string())
    for mask, text in cases:
        chosen = pc.if_else(pa.array(mask), text, chosen)
    return chosen


def sort_by_name(tables: Sequence[pa.Table]) -> np.ndarray:
    """The order of all rows by post_id: int64 (N,), counted through the tables."""
    names = pa.chunked_array([chunk for table in tables for chunk in table["post_id"].chunks], pa.string())
    return np.asarray(pc.sort_indices(names).to_numpy(), np.int64)


def _whole_numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(column, -1).to_numpy(), np.int64)


def _number_rows(tables: Iterable[pa.Table]) -> list[slice]:
    """Where each table's rows stand among all."""
    bounds = np.cumsum([0, *(len(table) for table in tables)]).tolist()
    return [slice(*pair) for pair in pairwise(bounds)]


def _concatenate(arrays: Iterable[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *arrays])
