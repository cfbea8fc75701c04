"""A folder of pictures, with or without a table of metadata beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import SourceError
from datasets.pictures import SUFFIX_FORMATS
from datasets.schema import POSTS, conform
from datasets.sources.config import Problem, Rating, RatingVintage, SourceConfig
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
    paths, said = read_metadata(listing.config)
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
        **join_metadata(names, paths, said),
    }
    listed = pa.array([readable_name(name) for name in refused], pa.string())
    absent = paths.filter(pc.invert(pc.is_in(paths, value_set=pa.concat_arrays([names, listed]))))
    tables = [
        conform(pa.table(sound), POSTS),
        _name_problems(listed, [Problem.UNSAFE_PATH] * len(listed), list(refused.values())),
        _without_file(absent),
    ]
    return pa.concat_tables(tables).sort_by("post_id").combine_chunks()


def read_metadata(config: SourceConfig) -> tuple[pa.Array, pa.Table]:
    """Paths (relative to the root, each once) of the metadata table, and what its rows say: a METADATA table.

    Known columns: path, rating, score, favourites, tags (space-separated, or lists). Raises SourceError with what is
    wrong.
    """
    path = metadata_file(config)
    if path is None:
        return pa.array([], pa.string()), METADATA.empty_table()
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if "path" not in frame.columns:
        raise SourceError(f"{path} has no column `path`; it has: {', '.join(map(str, frame.columns))}")
    unnamed = [f"{config.metadata}: row {number} has no path" for number in range(1, len(frame) + 1)]
    frame["path"] = frame["path"].astype(str).str.replace("\\", "/").where(frame["path"].notna(), unnamed)
    frame = frame.drop_duplicates("path")
    readers = {"rating": _read_rating, "score": read_whole, "favourites": read_whole, "tags": read_tag_cell}
    columns = [
        pa.array([readers[field.name](value) for value in frame[field.name].tolist()], field.type)
        if field.name in frame.columns
        else _unsaid(field.name, len(frame))
        for field in METADATA
    ]
    return pa.array(frame["path"].tolist(), pa.string()), pa.Table.from_arrays(columns, schema=METADATA)


def join_metadata(names: pa.Array, paths: pa.Array, said: pa.Table) -> dict[str, pa.ChunkedArray | pa.Array]:
    """What the metadata says of each name: the columns of METADATA; a picture without a row is unrated, untagged."""
    rows = pc.index_in(names, value_set=paths)
    if rows.null_count == len(rows):
        return {name: _unsaid(name, len(names)) for name in METADATA.names}
    unsaid = pa.Table.from_arrays([_unsaid(name, 1) for name in METADATA.names], schema=METADATA)
    both = pa.concat_tables([said, unsaid]).combine_chunks()
    return {name: both[name].take(pc.fill_null(rows, len(said))) for name in METADATA.names}


def _unsaid(column: str, count: int) -> pa.Array:
    """A METADATA column of pictures of which nothing is said."""
    if column == "rating":
        return pa.repeat(pa.scalar(str(Rating.UNRATED)), count)
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
