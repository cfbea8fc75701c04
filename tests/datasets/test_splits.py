"""Splits: a post and all that came of it on one side, whatever else comes and goes."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.splits import SplitError, assign_splits, check_fractions, hash_post, read_fractions

HALVES = {"train": 0.5, "test": 0.5}
POSTS = st.lists(st.text("abc0#/é", min_size=1, max_size=4), max_size=40)
FRACTIONS = st.lists(st.integers(1, 50), min_size=1, max_size=4).map(
    lambda parts: {f"s{k}": part / sum(parts) for k, part in enumerate(parts)}
)


def table(posts: list[str]) -> pa.Table:
    return pa.table({"post_id": pa.array(posts, pa.string())})


def split(posts: list[str], fractions: dict[str, float], seed: int = 0, groups: list[str | None] | None = None) -> list:
    sides: list[str] = assign_splits(table(posts), fractions, seed, groups).to_pylist()
    return sides


@settings(deadline=None, derandomize=True)
@given(POSTS, FRACTIONS, st.integers(0, 5))
def test_each_row_gets_a_split_and_each_post_one(posts: list[str], fractions: dict[str, float], seed: int) -> None:
    sides = split(posts, fractions, seed)
    assert len(sides) == len(posts)
    assert set(sides) <= fractions.keys()
    assert len(set(zip(posts, sides, strict=True))) == len(set(posts))


@settings(deadline=None, derandomize=True)
@given(POSTS, POSTS, st.randoms(use_true_random=False), FRACTIONS)
def test_no_post_moves_when_others_come_or_the_order_changes(
    posts: list[str], more: list[str], random: object, fractions: dict[str, float]
) -> None:
    before = dict(zip(posts, split(posts, fractions), strict=True))
    together = posts + more
    random.shuffle(together)  # type: ignore[attr-defined]
    after = dict(zip(together, split(together, fractions), strict=True))
    assert {post: after[post] for post in posts} == before


@settings(deadline=None, derandomize=True)
@given(POSTS, st.floats(0.01, 0.98), st.floats(0.0, 1.0))
def test_the_one_of_two_splits_that_grows_keeps_what_it_had(posts: list[str], small: float, part: float) -> None:
    large = small + (0.99 - small) * part
    first = split(posts, {"test": small, "train": 1 - small})
    second = split(posts, {"train": 1 - large, "test": large})
    assert all(b == "test" for a, b in zip(first, second, strict=True) if a == "test")


MEMBERS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["x", "y", "z", "w", None])), min_size=1, max_size=30
)


@settings(deadline=None, derandomize=True)
@given(MEMBERS, st.integers(0, 20))
def test_groups_join_posts_and_posts_join_groups(members: list[tuple[str, str | None]], seed: int) -> None:
    posts, groups = [post for post, _ in members], [group for _, group in members]
    side = dict(zip(posts, split(posts, HALVES, seed, groups), strict=True))
    # the plainest way to say what hangs together: sets that grow as long as they touch
    sets = {post: {post} for post in posts}
    of_group: dict[str, set[str]] = defaultdict(set)
    for post, group in members:
        if group is not None:
            of_group[group].add(post)
    for _ in posts:
        for post in posts:
            for group in of_group.values():
                if sets[post] & group:
                    sets[post] = sets[post] | group
    for post in posts:
        lowest = min(sets[post], key=lambda other: hash_post(other, seed))
        assert {side[other] for other in sets[post]} == set(split([lowest], HALVES, seed))


def test_without_a_shared_group_nothing_changes() -> None:
    posts = [f"p{k}" for k in range(200)]
    assert split(posts, HALVES, groups=[None] * 200) == split(posts, HALVES)
    assert split(posts, HALVES, groups=posts) == split(posts, HALVES)
    assert len(set(split(posts, HALVES, groups=["one"] * 200))) == 1


def test_a_chain_of_many_groups_is_one() -> None:
    posts = [f"p{k // 2}" for k in range(40_000)]
    assert len(set(split(posts, HALVES, groups=[f"g{(k + 1) // 2}" for k in range(40_000)]))) == 1


def test_children_are_where_their_parents_are() -> None:
    posts = [f"p{k}" for k in range(300)]
    crops = [(post, crop) for post in posts for crop in (f"{post}#0", f"{post}#1", f"{post}#0+tile:1024/2048@0,0")]
    sides = split([post for post, _ in crops], {"train": 0.8, "test": 0.2})
    assert [sides[3 * k : 3 * k + 3].count(sides[3 * k]) for k in range(300)] == [3] * 300


def test_shares_are_about_what_was_asked_for_and_seeds_differ() -> None:
    posts = [f"{k}" for k in range(20_000)]
    fractions = {"train": 0.9, "test": 0.07, "val": 0.03}
    sides = split(posts, fractions)
    for name, fraction in fractions.items():
        # five standard deviations of a binomial count
        assert abs(sides.count(name) - 20_000 * fraction) < 5 * (20_000 * fraction * (1 - fraction)) ** 0.5
    other = split(posts, fractions, seed=1)
    agree = sum(a == b for a, b in zip(sides, other, strict=True)) / 20_000
    assert abs(agree - (0.9**2 + 0.07**2 + 0.03**2)) < 0.02


def test_what_was_published_once_holds_for_ever() -> None:
    """These are sides that somebody's test set is made of: never change them."""
    assert hash_post("1234", 0) == 0x6AEE9822D04D088D  # printf 'split 0\n1234' | sha256sum
    digits = "744e7d85"  # the first of the sums of 1 to 8
    assert split(list("12345678"), HALVES) == ["test" if int(digit, 16) < 8 else "train" for digit in digits]


def test_one_split_takes_all_and_nothing_gives_nothing() -> None:
    assert split(["a", "b"], {"all": 1.0}) == ["all", "all"]
    assert assign_splits(table([]), HALVES).type == pa.string()
    assert split([], HALVES) == []


def test_fractions_are_read() -> None:
    assert read_fractions("train=.95, test=.05") == {"train": 0.95, "test": 0.05}
    thirds = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    check_fractions(thirds)
    assert read_fractions("a=.333333,b=.333333,c=.333334") == {"a": 0.333333, "b": 0.333333, "c": 0.333334}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "NAME=FRACTION"),
        ("train", "NAME=FRACTION"),
        ("train=much", "NAME=FRACTION"),
        ("train=.5,train=.5", "named twice"),
        ("train=.5,test=.4", "add up to 1"),
        ("train=1.5,test=-.5", "above 0"),
        ("train=1,test=0", "above 0"),
        ("train=nan,test=1", "above 0"),
        ("train=inf", "above 0"),
        ("../up=1", "name"),
        ("Train=1", "name"),
        ("=1", "name"),
    ],
)
def test_bad_fractions_say_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(SplitError, match=said):
        read_fractions(text)


def test_no_split_at_all_and_groups_of_another_length_are_refused() -> None:
    with pytest.raises(SplitError, match="add up"):
        assign_splits(table(["a"]), {})
    with pytest.raises(SplitError, match="2 groups for 1"):
        assign_splits(table(["a"]), HALVES, groups=["x", "y"])
