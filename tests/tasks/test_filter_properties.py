"""The filter's rules on drawn tables, against a reference that looks at one post after the other."""

from __future__ import annotations

from fnmatch import translate
from re import match
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.query import TagPattern, TagQuestions, ask_tags, count_tags
from datasets.schema import POSTS
from tasks.filter import FilterParams, decide
from tasks.filter_columns import find_percentiles
from tasks.filter_family import find_elders, find_parents

TAGS = ("a", "b", "ab", "abc", "ba", "c_a", "c_b", "aa", "bb_c")
PATTERNS = ("a", "b", "ab", "a*", "*a", "*b*", "c_*", "*_*", "a*c", "b*b*c", "x", "*x*")
TAG_LISTS = st.lists(st.one_of(st.none(), st.lists(st.sampled_from(TAGS), max_size=5, unique=True)), max_size=12)
CHOSEN = st.lists(st.sampled_from(PATTERNS), max_size=4).map(tuple)


def make_posts(rows: list[dict[str, Any]]) -> pa.Table:
    sound = {"rating": "safe", "extension": "png", "tags": []}
    return pa.Table.from_pylist([{"post_id": str(k)} | sound | row for k, row in enumerate(rows)], schema=POSTS)


def as_columns(lists: list[Any]) -> list[pa.ChunkedArray]:
    """The same tags in every form that a source may give them in: plain, with codes, in pieces, as a slice."""
    plain = pa.array(lists, pa.list_(pa.string()))
    padded = pa.array([["a", "zz"], *lists, ["b"]], pa.list_(pa.string())).slice(1, len(lists))
    pieces = [plain.slice(0, len(lists) // 2), plain.slice(len(lists) // 2)]
    return [
        pa.chunked_array([form] if isinstance(form, pa.Array) else form)
        for form in (
            plain,
            padded,
            pieces,
            give_codes(plain),
            give_codes(padded),
            [give_codes(piece) for piece in pieces],
        )
    ]


def give_codes(lists: pa.ListArray) -> pa.ListArray:
    """list<dictionary>, with the validity and the offsets of a list<string>."""
    kind = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    return pa.array([None if row is None else list(row) for row in lists.to_pylist()], kind)


def covers(pattern: str, tags: list[str] | None) -> bool:
    return any(match(translate(pattern), tag) for tag in tags or ())


@settings(deadline=None, max_examples=60)
@given(lists=TAG_LISTS, every=CHOSEN, some=CHOSEN, none=CHOSEN, data=st.data())
def test_tags_are_answered_as_one_by_one(
    lists: list[Any], every: tuple[str, ...], some: tuple[str, ...], none: tuple[str, ...], data: st.DataObject
) -> None:
    questions = TagQuestions(*(tuple(map(TagPattern.parse, texts)) for texts in (every, some, none)))
    concerned = np.array(data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists))), bool)
    lacking = [next((k for k, text in enumerate(every) if not covers(text, tags)), -1) for tags in lists]
    without = [bool(some) and not any(covers(text, tags) for text in some) for tags in lists]
    unwanted = [next((k for k, text in enumerate(none) if covers(text, tags)), -1) for tags in lists]
    for column in as_columns(lists):
        for mask in (None, concerned):
            found = ask_tags(column, questions, mask)
            asked = np.ones(len(lists), bool) if mask is None else mask
            for answer, expected in zip(
                (found.lacking, found.without, found.unwanted), (lacking, without, unwanted), strict=True
            ):
                assert answer[asked].tolist() == np.array(expected, answer.dtype)[asked].tolist()


@settings(deadline=None)
@given(lists=TAG_LISTS, data=st.data())
def test_tags_are_counted_as_one_by_one(lists: list[Any], data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(-1, 1), min_size=len(lists), max_size=len(lists)))
    expected = {
        tag: [
            sum(tag in (tags or ()) and of == group for tags, of in zip(lists, groups, strict=True)) for group in (0, 1)
        ]
        for tag in TAGS
    }
    for column in as_columns(lists):
        names, counts = count_tags(column, np.array(groups, np.int64), 2)
        assert dict(zip(names.to_pylist(), counts.tolist(), strict=True)) == {
            t: c for t, c in expected.items() if any(c)
        }
        assert names.to_pylist() == sorted(names.to_pylist())


def test_more_posts_than_a_piece_holds() -> None:
    rng = np.random.default_rng(3)
    size = 150_000
    lists = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(rng.integers(0, 3, size))]), pa.int32()), pa.array(["a", "b"] * size)
    )
    wanted = np.array(["b" in tags for tags in lists.to_pylist()])
    questions = TagQuestions(every=(TagPattern.parse("b"),))
    coded = pa.ListArray.from_arrays(lists.offsets, lists.values.dictionary_encode())
    for column in (lists, coded):
        assert np.array_equal(ask_tags(pa.chunked_array([column]), questions).lacking == -1, wanted)
        names, counts = count_tags(pa.chunked_array([column]), np.zeros(size, np.int64), 1)
        whole = np.array([tags.count("b") for tags in lists.to_pylist()]).sum()
        assert counts[names.to_pylist().index("b"), 0] == whole


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["safe", "explicit", None]),
            st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([-(2**31), 2**31 - 1])),
            st.sampled_from([None, None, None, "missing_file", "duplicate_id"]),
        ),
        max_size=15,
    ),
)
def test_percentiles_are_of_all_posts_of_the_rating(rows: list[tuple[str | None, int | None, str | None]]) -> None:
    posts = make_posts([{"rating": rating, "score": score, "problem": problem} for rating, score, problem in rows])
    found = find_percentiles(posts)
    for (rating, score, problem), percentile in zip(rows, found, strict=True):
        others = [s for r, s, p in rows if r == rating and s is not None and p != "duplicate_id"]
        if score is None or problem == "duplicate_id":
            assert np.isnan(percentile)
        else:
            below, equal = sum(s < score for s in others), sum(s == score for s in others)
            assert percentile == 100 * (2 * below + equal) / (2 * len(others))


@given(data=st.data(), size=st.integers(0, 12))
def test_children_fall_where_a_taken_post_above_them_stays(data: st.DataObject, size: int) -> None:
    parents = np.array(data.draw(st.lists(st.integers(-1, size - 1), min_size=size, max_size=size)), np.int64)
    parents[parents == np.arange(size)] = -1
    taken = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
    elders = find_elders(parents, taken)
    stays = taken & (elders < 0)
    for row in range(size):
        above: list[int] = []
        here = int(parents[row]) if taken[row] else -1
        while here >= 0 and taken[here] and here not in above:
            above.append(here)
            here = int(parents[here])
        circle = above[above.index(here) :] if here in above else []
        elder = min(circle) if circle else above[-1] if above else -1
        assert elders[row] == (-1 if elder == row else elder)
        assert elders[row] < 0 or stays[elders[row]]  # who stands for others is in


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["safe", "explicit"]), st.integers(0, 5), st.integers(0, 7)), max_size=8),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_table_decides_nothing(rows: list[tuple[str, int, int]], random: Any) -> None:
    posts = make_posts([{"rating": r, "score": s, "parent_id": str(p)} for r, s, p in rows])
    params = FilterParams(min_score_percentile=30, children="drop-beside-parent")
    verdicts = dict(zip(posts["post_id"].to_pylist(), decide(posts, params).to_pylist(), strict=True))
    if has_circle(find_parents(posts)):
        return  # of a circle the first in the table stays: sources are in order of their ids
    order = list(range(len(posts)))
    random.shuffle(order)
    mixed = posts.take(pa.array(order, pa.int64()))
    assert dict(zip(mixed["post_id"].to_pylist(), decide(mixed, params).to_pylist(), strict=True)) == verdicts


def has_circle(parents: np.ndarray) -> bool:
    for row in range(len(parents)):
        seen, here = set(), row
        while here >= 0 and here not in seen:
            seen.add(here)
            here = int(parents[here])
        if here >= 0:
            return True
    return False


def test_a_long_chain_and_a_long_circle() -> None:
    size = 30_000
    chain = np.arange(-1, size - 1)
    everybody = np.ones(size, bool)
    assert find_elders(chain, everybody).tolist() == [-1] + [0] * (size - 1)
    circle = np.roll(np.arange(size), 1)
    assert find_elders(circle, everybody).tolist() == [-1] + [0] * (size - 1)


def test_too_many_tags_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 60"):
        TagQuestions(every=tuple(TagPattern.parse(f"t{k}") for k in range(61)))
