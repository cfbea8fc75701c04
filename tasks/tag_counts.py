"""Tags in and out: which tags the posts have that a filter takes, and which those that it drops. Opens no picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.errors import KaobakoError
from datasets.query import TagPattern, count_tags
from datasets.sources.config import Problem, SourceConfig
from datasets.sources.read import read_source
from tasks.chain import count_verdicts
from tasks.filter import FilterParams, decide, wanted_ids

# One row per tag, in order of the tag.
TAG_COUNTS = pa.schema(
    [
        pa.field("tag", pa.string(), nullable=False),
        pa.field("taken", pa.int64(), nullable=False),  # posts
        pa.field("dropped", pa.int64(), nullable=False),
        pa.field("taken_share", pa.float64(), nullable=False),  # 0..1 of the posts that are taken
        pa.field("dropped_share", pa.float64(), nullable=False),
        pa.field("lift", pa.float64()),  # how many times as common among the taken; 1: just as among the dropped
        pa.field("telling", pa.float64()),  # how sure that is, in standard errors; above 0 in, below 0 out
    ]
)


@dataclass(frozen=True)
class TagSurvey:
    """What a filter does to the tags of a source.

    Attributes:
        tags: schema TAG_COUNTS.
        taken, dropped: posts that were compared.
        unusable: posts that no filter could take: without a file, without metadata, broken.
        reasons: why posts were dropped, by how many, and by which key of the recipe: rows of reason, parameter, count,
            and rating, which is the posts' rating where that is the reason, else None.
        strangers: ids that the recipe asks for and the source does not have, the first few, and how many there are.
        absent_tags: tags of the recipe, patterns left out, that no post of the source has, sorted.
        vintage: what the rating letter s was read as, and why: sentences, none where no post is rated s.
    """

    tags: pa.Table
    taken: int
    dropped: int
    unusable: int
    reasons: list[dict[str, Any]]
    strangers: tuple[list[str], int]
    absent_tags: list[str]
    vintage: list[str]


def survey_tags(
    source: SourceConfig, params: FilterParams, without_files: bool = False, reason: str = "", cache: Path | None = None
) -> TagSurvey:
    """Count tags of what a filter takes and drops.

    without_files: judge posts whose file is not there as if it was. reason: compare with what was dropped for this
    alone. cache: where converted metadata is kept.
    Raises KaobakoError when the source cannot be read, or nothing was dropped for the reason.
    """
    reading = read_source(source, cache=cache)
    posts = reading.posts
    if without_files:
        posts = _forgive_missing_files(posts)
    verdicts = decide(posts, params)
    sound = pc.is_null(posts["problem"]).to_numpy()
    keep = verdicts["keep"].to_numpy()
    dropped = sound & ~keep
    if reason:
        known = count_verdicts(len(posts), verdicts.filter(pa.array(dropped)))["dropped"]
        if reason not in known:
            raise KaobakoError(
                f"no post is dropped for {reason!r} here. Reasons: {', '.join(known) or 'none, all are taken'}."
            )
        dropped &= pc.fill_null(pc.equal(verdicts["reason"], reason), False).to_numpy()
    groups = np.where(keep, 0, np.where(dropped, 1, 2))
    names, counts = count_tags(posts["tags"], groups, 3)
    compared = counts[:, :2].any(axis=1)
    sizes = int(np.count_nonzero(keep)), int(np.count_nonzero(dropped))
    return TagSurvey(
        weigh_tags(names.filter(pa.array(compared)), counts[compared, :2], *sizes),
        *sizes,
        int(np.count_nonzero(~sound)),
        _count_reasons(posts["rating"].filter(pa.array(dropped)), verdicts.filter(pa.array(dropped))),
        _find_strangers(posts, params),
        _find_absent_tags(names, params),
        [] if reading.vintage is None else reading.vintage.explain(),
    )


def weigh_tags(names: pa.StringArray, counts: np.ndarray, taken: int, dropped: int) -> pa.Table:
    """TAG_COUNTS of counts int64 (T, 2) among so many posts. Half a post is added to each count: no share is 0.

    Where nothing was taken or nothing dropped, there is nothing to compare: lift and telling are null.
    """
    sizes = np.array([taken, dropped])
    shares = counts / np.maximum(sizes, 1)
    smoothed = (counts + 0.5) / (sizes + 1)
    lift = smoothed[:, 0] / smoothed[:, 1]
    telling = np.log(lift) / np.sqrt((1 / (counts + 0.5)).sum(axis=1))
    compared = [pa.array(values, mask=np.full(len(values), not (taken and dropped))) for values in (lift, telling)]
    return pa.table([names, *counts.T, *shares.T, *compared], schema=TAG_COUNTS)


def pick_tags(table: pa.Table, order: str, limit: int | None, like: str = "") -> pa.Table:
    """The first rows of a TAG_COUNTS table by `taken`, `dropped`, or `telling` (most sure first, to either side).

    limit: None for all. like: only tags of this pattern. Equal ones are in order of their text. Raises KaobakoError for
    a bad pattern.
    """
    if like:
        try:
            pattern = TagPattern.parse(like)
        except ValueError as error:
            raise KaobakoError(f"{error}. A pattern is a tag with * for anything, such as '*_hair'.") from error
        table = table.filter(pattern.match(table["tag"].combine_chunks()))
    table = table.filter(pc.and_(pc.is_valid(table[order]), pc.not_equal(table[order], 0)))
    ranked = np.argsort(-np.abs(table[order].to_numpy()), kind="stable")
    return table.take(pa.array(ranked[:limit], pa.int64()))


def _forgive_missing_files(posts: pa.Table) -> pa.Table:
    missing = pc.fill_null(pc.equal(posts["problem"], str(Problem.MISSING_FILE)), False)
    for name in ("problem", "problem_detail"):
        forgiven = pc.if_else(missing, pa.scalar(None, pa.string()), posts[name])
        posts = posts.set_column(posts.column_names.index(name), name, forgiven)
    return posts


def _count_reasons(ratings: pa.ChunkedArray, dropped: pa.Table) -> list[dict[str, Any]]:
    """Commonest first. ratings: of the posts that were dropped."""
    of_rating = pc.fill_null(pc.equal(dropped["reason"], "rating"), False)
    said = dropped.append_column("rating", pc.if_else(of_rating, ratings, pa.scalar(None, pa.string())))
    names = ["reason", "parameter", "rating"]
    counted = said.group_by(names).aggregate([([], "count_all")])
    rows = counted.sort_by([("count_all", "descending"), *((name, "ascending") for name in names)]).to_pylist()
    return [{**{name: row[name] for name in names}, "count": row["count_all"]} for row in rows]


def _find_absent_tags(names: pa.StringArray, params: FilterParams) -> list[str]:
    asked = (TagPattern.parse(text).exact for text in (*params.tags_all, *params.tags_any, *params.tags_none))
    exact = pa.array(sorted({tag for tag in asked if tag is not None}), pa.string())
    absent: list[str] = exact.filter(pc.invert(pc.is_in(exact, value_set=names))).to_pylist()
    return absent


def _find_strangers(posts: pa.Table, params: FilterParams) -> tuple[list[str], int]:
    wanted = wanted_ids(params)
    if wanted is None:
        return [], 0
    absent = pc.unique(wanted.filter(pc.invert(pc.is_in(wanted, value_set=posts["post_id"]))))
    return absent.slice(0, 5).to_pylist(), len(absent)
