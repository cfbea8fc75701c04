"""A folder of pictures, with or without a table of metadata beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from datasets.errors import SourceError
from datasets.pictures import SUFFIX_FORMATS
from datasets.schema import POSTS
from datasets.sources.config import Problem, Rating, RatingVintage, SourceConfig
from datasets.sources.danbooru import read_rating, read_whole
from datasets.sources.files import LINK_OUTSIDE, FoundFile, list_files, readable_name

_TABLES = (".csv", ".parquet")


def read_posts(config: SourceConfig) -> pa.Table:
    """Every picture file below the root as a POSTS table, in order of post_id (its relative path).

    Raises SourceError when the folder does not exist, holds no picture, or its metadata cannot be used.
    """
    if not config.root.is_dir():
        raise SourceError(f"the source folder {config.root} does not exist. Set source.root to a folder of pictures.")
    files = {
        name: found
        for name, found in list_files(config.root, config.recursive).items()
        if found.outside or Path(name).suffix.lower().lstrip(".") in SUFFIX_FORMATS
    }
    metadata = read_metadata(config)
    if not files:
        kinds = ", ".join(sorted(SUFFIX_FORMATS))
        raise SourceError(f"no pictures ({kinds}) below {config.root}. Set source.root to a folder of pictures.")
    rows = [_post(name, found, metadata.pop(name, {})) for name, found in files.items()]
    rows += [_without_file(name) for name in sorted(metadata)]
    return pa.Table.from_pylist(rows, schema=POSTS).sort_by("post_id")


def read_metadata(config: SourceConfig) -> dict[str, dict[str, Any]]:
    """Rows of the metadata table by `path` (relative to the root).

    Known columns: path, rating, score, favourites, tags (space-separated, or lists).
    Raises SourceError with what is wrong.
    """
    if not config.metadata:
        return {}
    path = config.root / config.metadata
    if path.suffix not in _TABLES or not path.is_file():
        raise SourceError(
            f"source.metadata must name a CSV or Parquet file below {config.root}, not {config.metadata!r}"
        )
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if "path" not in frame.columns:
        raise SourceError(f"{path} has no column `path`; it has: {', '.join(map(str, frame.columns))}")
    frame["path"] = frame["path"].astype(str).str.replace("\\", "/")
    frame = frame.drop_duplicates("path")
    return {row["path"]: row for row in frame.to_dict(orient="records")}


def _post(name: str, found: FoundFile, row: dict[str, Any]) -> dict[str, Any]:
    if readable_name(name) != name:
        detail = "the file's name is not UTF-8: rename it"
        return {"post_id": readable_name(name), "problem": Problem.UNSAFE_PATH, "problem_detail": detail}
    if found.outside:
        return {"post_id": name, "problem": Problem.UNSAFE_PATH, "problem_detail": LINK_OUTSIDE}
    return {
        "post_id": name,
        "source_path": name,
        "rating": read_rating(row["rating"], RatingVintage.S_IS_SENSITIVE) if "rating" in row else Rating.UNRATED,
        "score": read_whole(row.get("score")),
        "favourites": read_whole(row.get("favourites")),
        "tags": read_tag_cell(row.get("tags")),
        "extension": Path(name).suffix.lower().lstrip("."),
        "deleted": False,
        "banned": False,
        "file_bytes": found.size,
        "file_stamp": found.stamp,
    }


def _without_file(name: str) -> dict[str, Any]:
    """A metadata row whose file is not there, or would lie outside the folder."""
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    problem = Problem.MISSING_FILE if inside else Problem.UNSAFE_PATH
    return {"post_id": name, "problem": problem, "problem_detail": f"no picture {name!r} below the source folder"}


def read_tag_cell(value: Any) -> list[str]:
    """Tags of a table's cell, sorted, without repeats: words in a text, or a list (Parquet has those)."""
    names = value.split() if isinstance(value, str) else list(value) if isinstance(value, list | np.ndarray) else []
    return sorted({name for name in names if isinstance(name, str) and name})
