"""Filter: which posts are worth opening, by what the source says of them. No picture is opened."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from datasets.sources.config import Rating
from tasks.stage import Stage, StageParams, Threshold, Verdicts

STAGE_VERSION = 1


class FilterParams(StageParams):
    """Which posts are taken. An empty list asks for nothing."""

    ratings: tuple[Rating, ...] = Field(
        (Rating.SAFE, Rating.GENERAL, Rating.UNRATED),
        description="Ratings to take. `sensitive` (the letter s since 2022) is not safe and must be asked for",
    )
    tags_all: tuple[str, ...] = Field((), description="Every one of these tags must be there (AND)")
    tags_any: tuple[str, ...] = Field((), description="At least one of these tags must be there (OR)")
    tags_none: tuple[str, ...] = Field((), description="None of these tags may be there (NOT)")
    min_score: int | None = Field(None, description="Lowest score; posts without a score pass")
    take_deleted: bool = Field(False, description="Take posts that the site has deleted")
    take_banned: bool = Field(False, description="Take posts whose artist was banned")
    extensions: tuple[str, ...] = Field(
        ("jpg", "jpeg", "png", "webp", "bmp"), description="File extensions to take; a GIF may be an animation"
    )
    min_side: int = Field(0, ge=0, description="Shortest side in pixels that the metadata must promise")
    min_bytes: int = Field(0, ge=0, description="Smallest file in bytes")


THRESHOLDS = (
    Threshold("score", "filter.min_score", "score"),
    Threshold("declared_width", "filter.min_side", "too_small"),
    Threshold("declared_height", "filter.min_side", "too_small"),
    Threshold("file_bytes", "filter.min_bytes", "file_too_small"),
)


def decide(posts: pa.Table, params: FilterParams) -> pa.Table:
    """Verdicts on posts (POSTS) by metadata alone; the first broken rule is the reason."""
    verdicts = Verdicts(posts)
    problem = posts["problem"].to_numpy(zero_copy_only=False)
    detail = posts["problem_detail"].to_numpy(zero_copy_only=False)
    verdicts.drop(~pc.is_null(posts["problem"]).to_numpy(zero_copy_only=False), problem, detail=detail)
    for flag, taken in (("deleted", params.take_deleted), ("banned", params.take_banned)):
        if not taken:
            mask = pc.fill_null(posts[flag], False).to_numpy(zero_copy_only=False)
            verdicts.drop(mask, flag, parameter=f"filter.take_{flag}")
    _drop_unlisted(verdicts, "rating", params.ratings, "filter.ratings")
    _drop_unlisted(verdicts, "extension", params.extensions, "filter.extensions")
    _judge_tags(verdicts, posts["tags"], params)
    for rule in THRESHOLDS:
        verdicts.hold(rule, params)
    return verdicts.table()


def _drop_unlisted(verdicts: Verdicts, column: str, allowed: tuple[str, ...], parameter: str) -> None:
    """Drop what is not on a list of words; the detail says the word."""
    words = verdicts.items[column]
    listed = pc.is_in(words, value_set=pa.array([str(word) for word in allowed], pa.string()))
    detail = words.to_numpy(zero_copy_only=False)
    verdicts.drop(~listed.to_numpy(zero_copy_only=False), column, parameter=parameter, detail=detail)


def _judge_tags(verdicts: Verdicts, tags: pa.ChunkedArray, params: FilterParams) -> None:
    for tag in params.tags_all:
        verdicts.drop(~holds_any(tags, (tag,)), "tag_missing", parameter="filter.tags_all", detail=tag)
    if params.tags_any:
        wanted = " or ".join(params.tags_any)
        verdicts.drop(~holds_any(tags, params.tags_any), "tag_missing", parameter="filter.tags_any", detail=wanted)
    for tag in params.tags_none:
        verdicts.drop(holds_any(tags, (tag,)), "tag_unwanted", parameter="filter.tags_none", detail=tag)


def holds_any(tags: pa.ChunkedArray, wanted: tuple[str, ...]) -> np.ndarray:
    """Which lists hold at least one of the wanted tags: bool (N,). Null lists hold none."""
    lists = tags.combine_chunks() if isinstance(tags, pa.ChunkedArray) else tags
    hit = pc.is_in(pc.list_flatten(lists), value_set=pa.array(wanted, pa.string())).to_numpy(zero_copy_only=False)
    owners = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    held = np.zeros(len(lists), dtype=bool)
    held[owners[hit]] = True
    return held


STAGE = Stage(name="filter", version=STAGE_VERSION, params=FilterParams, decide=decide, thresholds=THRESHOLDS)
