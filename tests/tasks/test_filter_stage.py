"""The filter: what metadata alone can say, each rule by itself and all in their order."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from datasets.schema import POSTS
from datasets.sources.config import Problem, Rating
from tasks.filter import FilterParams, decide, holds_any

SOUND: dict[str, Any] = {"rating": "safe", "score": 10, "tags": ["1girl", "solo"], "extension": "png", "deleted": False}
SOUND |= {"banned": False, "declared_width": 800, "declared_height": 600, "file_bytes": 5000}


def reasons(rows: list[dict[str, Any]], **params: Any) -> list[str | None]:
    """The reason of each post, None where it stays. A row names what differs from a sound post."""
    posts = pa.Table.from_pylist([{"post_id": str(k)} | SOUND | row for k, row in enumerate(rows)], schema=POSTS)
    verdicts = decide(posts, FilterParams(**params))
    found = verdicts["reason"].to_pylist()
    assert [reason is None for reason in found] == verdicts["keep"].to_pylist()
    return found


def test_a_sound_post_stays_and_no_posts_are_no_error() -> None:
    assert reasons([{}]) == [None]
    assert reasons([]) == []


def test_ratings_are_taken_by_name_only() -> None:
    rows = [{"rating": rating.value} for rating in Rating]
    assert dict(zip(Rating, reasons(rows), strict=True)) == {
        Rating.SAFE: None,
        Rating.GENERAL: None,
        Rating.UNRATED: None,
        Rating.SENSITIVE: "rating",
        Rating.QUESTIONABLE: "rating",
        Rating.EXPLICIT: "rating",
        Rating.UNKNOWN: "rating",
    }


@pytest.mark.parametrize("rating", Rating)
def test_a_filter_for_one_rating_lets_no_other_in(rating: Rating) -> None:
    found = reasons([{"rating": other.value} for other in Rating] + [{"rating": None}], ratings=[rating])
    assert [reason is None for reason in found] == [other is rating for other in Rating] + [False]


def test_tags_and_or_not() -> None:
    rows = [{"tags": tags} for tags in (["a"], ["a", "b"], ["b"], ["a", "c"], [], None, ["aa"])]
    kept = {
        "and": [reason is None for reason in reasons(rows, tags_all=["a", "b"])],
        "or": [reason is None for reason in reasons(rows, tags_any=["a", "b"])],
        "not": [reason is None for reason in reasons(rows, tags_none=["a", "b"])],
    }
    assert kept == {
        "and": [False, True, False, False, False, False, False],
        "or": [True, True, True, True, False, False, False],
        "not": [False, False, False, False, True, True, True],
    }
    together = reasons(rows, tags_all=["a"], tags_any=["b", "c"], tags_none=["c"])
    assert [k for k, reason in enumerate(together) if reason is None] == [1]


def test_tags_of_a_table_in_pieces() -> None:
    pieces = pa.chunked_array([pa.array([["a"], None], pa.list_(pa.string())), pa.array([[], ["b", "a"]])])
    assert holds_any(pieces, ("a",)).tolist() == [True, False, False, True]
    assert holds_any(pieces.slice(1), ("a",)).tolist() == [False, False, True]


def test_score_size_and_bytes_at_their_limits() -> None:
    rows = [{"score": score} for score in (4, 5, -3, None)]
    assert reasons(rows, min_score=5) == ["score", None, "score", None]
    assert reasons([{"score": -1}], min_score=0) == ["score"]
    sizes = [{"declared_width": width, "declared_height": 600} for width in (499, 500, None)]
    assert reasons(sizes, min_side=500) == ["too_small", None, None]
    assert reasons([{"declared_height": 499}], min_side=500) == ["too_small"]
    assert reasons([{"file_bytes": 99}, {"file_bytes": 100}], min_bytes=100) == ["file_too_small", None]


def test_deleted_and_banned_are_dropped_unless_taken() -> None:
    rows: list[dict[str, Any]] = [{"deleted": True}, {"banned": True}, {"deleted": None, "banned": None}]
    assert reasons(rows) == ["deleted", "banned", None]
    assert reasons(rows, take_deleted=True) == [None, "banned", None]
    assert reasons(rows, take_banned=True) == ["deleted", None, None]


def test_extensions() -> None:
    rows = [{"extension": extension} for extension in ("png", "gif", "swf", "mp4", None)]
    assert reasons(rows) == [None, *["extension"] * 4]
    assert reasons(rows, extensions=["gif"]) == ["extension", None, *["extension"] * 3]


@pytest.mark.parametrize("problem", Problem)
def test_a_problem_of_the_source_is_always_the_reason(problem: Problem) -> None:
    row: dict[str, Any] = {
        "problem": problem.value,
        "problem_detail": "why",
        "rating": None,
        "tags": None,
        "extension": None,
    }
    posts = pa.Table.from_pylist([{"post_id": "1"} | SOUND | row], schema=POSTS)
    everything = FilterParams(ratings=list(Rating), take_deleted=True, take_banned=True)
    (verdict,) = decide(posts, everything).to_pylist()
    assert (verdict["keep"], verdict["reason"], verdict["detail"]) == (False, problem.value, "why")


def test_the_ledger_says_which_tag_rating_and_figure() -> None:
    rows: list[dict[str, Any]] = [{"rating": "explicit"}, {"tags": ["sketch"]}, {"score": 1}]
    posts = pa.Table.from_pylist([{"post_id": str(k)} | SOUND | row for k, row in enumerate(rows)], schema=POSTS)
    verdicts = decide(posts, FilterParams(tags_none=["sketch"], min_score=5)).to_pylist()
    assert (verdicts[0]["detail"], verdicts[0]["parameter"]) == ("explicit", "filter.ratings")
    assert (verdicts[1]["detail"], verdicts[1]["parameter"]) == ("sketch", "filter.tags_none")
    assert (verdicts[2]["value"], verdicts[2]["threshold"]) == (1.0, 5.0)
