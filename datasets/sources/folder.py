"""A folder of pictures, with or without a table of metadata beside them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import SourceError
from datasets.pictures import SUFFIX_FORMATS
from datasets.schema import POSTS, conform
from datasets.sources.config import MILDEST_FIRST, Problem, Rating, RatingVintage, SourceConfig
from datasets.sources.danbooru import read_rating, read_whole
from datasets.sources.files import LINK_OUTSIDE, list_files, readable_name, stamp_file
from datasets.sources.listing import SourceListing

_TABLES = (".csv", ".parquet")
_NOT_UTF8 = "the file's name is not UTF-8: rename it"

# What a table of metadata may say of a picture.
METADATA = pa.schema([(name, POSTS.field(name).type) for name in ("rating", "score", "favourites", "tags")])


def list_source(config: SourceConfig) -> SourceListing:
    """Every picture file below the root, and the table of metadata, none of them read.

    Raises SourceError when the folder does not exist, holds no picture, or its metadata is not there.
    """
    if not config.root.is_dir():
        raise SourceError(f"the source folder {config.root} does not exist. Set source.root to a folder of pictures.")
    metadata = metadata_file(config)
    stamps = () if metadata is None else ((config.metadata, stamp_file(metadata)),)
    pictures = list_files(config.root, config.recursive, SUFFIX_FORMATS.keys())
    if not pictures.names:
        kinds = ", ".join(sorted(SUFFIX_FORMATS))
        raise SourceError(f"no pictures ({kinds}) below {config.root}. Set source.root to a folder of pictures.")
    return SourceListing(config, pictures, stamps)


def metadata_file(config: SourceConfig) -> Path | None:
    """The table of metadata; None when the source has none. Raises SourceError when it is not there."""
    if not config.metadata:
        return None
    path = config.root / config.metadata
    if path.suffix not in _TABLES or not path.is_file():
        raise SourceError(
            f"source.metadata must name a CSV or Parquet file below {config.root}, not {config.metadata!r}"
        )
    return path


def read_posts(listing: SourceListing) -> pa.Table:
    """Every listed picture as a POSTS table, in order of post_id (its relative path).

    Raises SourceError when the metadata cannot be used.
    """
    metadata = read_metadata(listing.config)
    files = listing.pictures
    refused = dict.fromkeys(sorted(files.outside), LINK_OUTSIDE) | dict.fromkeys(
        find_unreadable(files.names), _NOT_UTF8
    )
    takes = [name not in refused for name in files.names] if refused else [True] * len(files.names)
    names = pa.array([name for name, taken in zip(files.names, takes, strict=True) if taken], pa.string())
    taken = pa.array(takes)
    sound = {
        "post_id": names,
        "source_path": names,
        "extension": read_extensions(names),
        "deleted": pa.repeat(pa.scalar(False), len(names)),
        "banned": pa.repeat(pa.scalar(False), len(names)),
        "file_bytes": pa.array(files.sizes, pa.int64()).filter(taken),
        "file_stamp": pa.array(files.stamps, pa.string()).filter(taken),
        **join_metadata(names, metadata),
    }
    listed = pa.array([readable_name(name) for name in refused], pa.string())
    absent = metadata.paths.filter(pc.invert(pc.is_in(metadata.paths, value_set=pa.concat_arrays([names, listed]))))
    again = [called for called, _ in metadata.repeats]
    tables = [
        conform(pa.table(sound), POSTS),
        _name_problems(listed, [Problem.UNSAFE_PATH] * len(listed), list(refused.values())),
        _without_file(absent),
        _name_problems(
            pa.array(again, pa.string()), [Problem.DUPLICATE_ID] * len(again), [told for _, told in metadata.repeats]
        ),
    ]
    return pa.concat_tables(tables).sort_by("post_id").combine_chunks()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a table says of pictures."""

    paths: pa.Array  # relative to the root, normalised, each once: string (N,)
    said: pa.Table  # METADATA, row by row as `paths`
    repeats: list[tuple[str, str]]  # of each further row of a path: what to call it, and what it says
    rated: bool  # whether the table has ratings: then a picture without a row is of unknown rating


def read_metadata(config: SourceConfig) -> Metadata:
    """The table of metadata; an empty one for a source without.

    Known columns: path, rating, score, favourites, tags (space-separated, or lists). Of several rows of a path the
    first counts, with the strictest rating of all. Raises SourceError with what is wrong.
    """
    path = metadata_file(config)
    if path is None:
        return Metadata(pa.array([], pa.string()), METADATA.empty_table(), [], False)
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    _check_columns(path, [str(name) for name in frame.columns])
    named = frame["path"].notna() & (frame["path"].astype(str) != "")
    frame["path"] = [
        posixpath.normpath(str(value).replace("\\", "/")) if known else f"{config.metadata}: row {row} has no path"
        for row, (value, known) in enumerate(zip(frame["path"], named, strict=True), 1)
    ]
    rated = "rating" in frame.columns
    frame["rating"] = [_read_rating(value) for value in frame["rating"].tolist()] if rated else str(Rating.UNRATED)
    repeats = _tell_repeats(frame, config.metadata)
    if repeats:
        frame = _settle_repeats(frame)
    readers: dict[str, Callable[[Any], Any]] = {
        "rating": str,
        "score": read_whole,
        "favourites": read_whole,
        "tags": read_tag_cell,
    }
    columns = [
        pa.array([readers[field.name](value) for value in frame[field.name].tolist()], field.type)
        if field.name in frame.columns
        else _unsaid(field.name, len(frame), rated)
        for field in METADATA
    ]
    paths = pa.array(frame["path"].tolist(), pa.string())
    return Metadata(paths, pa.Table.from_arrays(columns, schema=METADATA), repeats, rated)


def join_metadata(names: pa.Array, metadata: Metadata) -> dict[str, pa.ChunkedArray | pa.Array]:
    """What the metadata says of each name: the columns of METADATA. A picture without a row is untagged, and unrated,
    or of unknown rating where the table rates others."""
    rows = pc.index_in(names, value_set=metadata.paths)
    if rows.null_count == len(rows):
        return {name: _unsaid(name, len(names), metadata.rated) for name in METADATA.names}
    unsaid = pa.Table.from_arrays([_unsaid(name, 1, metadata.rated) for name in METADATA.names], schema=METADATA)
    both = pa.concat_tables([metadata.said, unsaid]).combine_chunks()
    return {name: both[name].take(pc.fill_null(rows, len(metadata.said))) for name in METADATA.names}


def _check_columns(path: Path, found: list[str]) -> None:
    """A column that is nearly a known one would be passed over, and its ratings with it. Raises SourceError."""
    known = ("path", *METADATA.names)
    meant: dict[str, str] = {}
    for name in found:
        word = name.strip().lower()
        word = word if path.suffix == ".parquet" else re.sub(r"\.[0-9]+$", "", word)  # pandas numbers repeats in CSV
        if word not in known:
            continue
        if word in meant:
            raise SourceError(f"{path} has the columns {meant[word]!r} and {name!r}. Keep one of them, as `{word}`.")
        if name != word:
            raise SourceError(f"{path} has a column {name!r}, which is not read. Rename it to `{word}`.")
        meant[word] = name
    if "path" not in meant:
        raise SourceError(f"{path} has no column `path`; it has: {', '.join(found)}")


def _tell_repeats(frame: pd.DataFrame, table: str) -> list[tuple[str, str]]:
    """Each row whose path stands in an earlier one: what to call it, and what it says. frame: path and rating."""
    places = np.flatnonzero(frame["path"].duplicated())
    rows = frame[["path", "rating"]].iloc[places]
    return [
        (
            f"{table}: row {place + 1} repeats {name}",
            f"an earlier row has this path. Here it is rated {rating}; the strictest rating of all rows counts",
        )
        for place, name, rating in zip(places.tolist(), rows["path"], rows["rating"], strict=True)
    ]


def _settle_repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """The first row of each path, with the strictest rating of all its rows."""
    words = [str(rating) for rating in MILDEST_FIRST]
    strictness = frame["rating"].map({word: place for place, word in enumerate(words)})
    strictest = strictness.groupby(frame["path"]).transform("max")
    return frame.assign(rating=[words[place] for place in strictest])[~frame["path"].duplicated()]


def _unsaid(column: str, count: int, rated: bool) -> pa.Array:
    """A METADATA column of pictures of which nothing is said. rated: whether the source rates any."""
    if column == "rating":
        return pa.repeat(pa.scalar(str(Rating.UNKNOWN if rated else Rating.UNRATED)), count)
    if column == "tags":
        nothing = pa.array([], METADATA.field(column).type.value_type)
        return pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), nothing)
    return pa.nulls(count, METADATA.field(column).type)


def read_extensions(names: pa.Array) -> pa.Array:
    """The endings of names in lower case, without the dot. Every name has one."""
    return pc.utf8_lower(pc.replace_substring_regex(names, r"^(?s:.*)\.", ""))


def find_unreadable(names: list[str]) -> list[str]:
    """The names that are not UTF-8, which a table cannot hold."""
    try:
        "\0".join(names).encode()
    except UnicodeEncodeError:
        return [name for name in names if readable_name(name) != name]
    return []


def _read_rating(value: Any) -> str:
    return read_rating(value, RatingVintage.S_IS_SENSITIVE)


def _without_file(names: pa.Array) -> pa.Table:
    """Metadata rows whose file is not there, or would lie outside the folder."""
    problems, details = [], []
    for name in names.to_pylist():
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        problems.append(Problem.MISSING_FILE if inside else Problem.UNSAFE_PATH)
        details.append(f"no picture {name!r} below the source folder")
    return _name_problems(names, problems, details)


def _name_problems(names: pa.Array, problems: list[Problem], details: list[str]) -> pa.Table:
    """POSTS rows of what cannot be used."""
    columns = {
        "post_id": names,
        "problem": pa.array([str(problem) for problem in problems], pa.string()),
        "problem_detail": pa.array(details, pa.string()),
    }
    return conform(pa.table(columns), POSTS)


def read_tag_cell(value: Any) -> list[str]:
    """Tags of a table's cell, sorted, without repeats: words in a text, or a list (Parquet has those)."""
    names = value.split() if isinstance(value, str) else list(value) if isinstance(value, list | np.ndarray) else []
    return sorted({name for name in names if isinstance(name, str) and name})
