"""Tag patterns: wildcards anywhere, escapes, and the same answer for one tag and for a column of them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.query import TagPattern, covers_tag

TAGS = (
    "hair",
    "blue_hair",
    "blue_eyes",
    "*_*",
    r"\m/",
    r"a\b",
    "a*b",
    "!?",
    "hairband",
    "long_blue_hair",
    "a",
    "aa",
    "",
)


def matches(pattern: str) -> set[str]:
    found = TagPattern.parse(pattern).match(pa.array(TAGS))
    assert found.to_pylist() == [TagPattern.parse(pattern).covers(tag) for tag in TAGS]
    return {tag for tag, there in zip(TAGS, found.to_pylist(), strict=True) if there}


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("hair", {"hair"}),
        ("*hair", {"hair", "blue_hair", "long_blue_hair"}),
        ("*_hair", {"blue_hair", "long_blue_hair"}),
        ("hair*", {"hair", "hairband"}),
        ("*hair*", {"hair", "blue_hair", "hairband", "long_blue_hair"}),
        ("blue_*", {"blue_hair", "blue_eyes"}),
        ("b*e_*r", {"blue_hair"}),
        ("*blue*hair", {"blue_hair", "long_blue_hair"}),
        ("a*a", {"aa"}),
        ("*", set(TAGS)),
        ("**", set(TAGS)),
        (r"a\*b", {"a*b"}),
        (r"\*_\*", {"*_*"}),
        (r"*\**", {"*_*", "a*b"}),
        (r"\m/", {r"\m/"}),
        (r"\\m/", {r"\m/"}),
        (r"a\b", {r"a\b"}),
        (r"*\\*", {r"\m/", r"a\b"}),
        ("!?", {"!?"}),
        ("hai?", set()),
        ("[a-z]*", set()),
        ("HAIR", set()),
    ],
)
def test_what_a_pattern_finds(pattern: str, found: set[str]) -> None:
    assert matches(pattern) == found


@pytest.mark.parametrize("text", ["", " ", " hair", "hair\n", "x" * 501])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match="is no tag"):
        TagPattern.parse(text)


def test_a_null_tag_matches_nothing() -> None:
    for pattern in ("a", "a*", "*a", "*a*", "a*b*c"):
        assert TagPattern.parse(pattern).match(pa.array([None, "abc"], pa.string())).to_pylist()[0] is None


def naive(parts: list[str], text: str) -> bool:
    """By trying every place: parts between stars, in their order."""
    if len(parts) == 1:
        return text == parts[0]
    if not text.startswith(parts[0]):
        return False
    ends = {len(parts[0])}
    for part in parts[1:-1]:
        ends = {k + len(part) for end in ends for k in range(end, len(text) + 1) if text.startswith(part, k)}
    return any(text.endswith(parts[-1]) and len(text) - len(parts[-1]) >= end for end in ends)


LETTERS = st.text("ab*\\.é(_\n", max_size=6)


@given(parts=st.lists(st.text("ab*\\.é(_", max_size=3), min_size=1, max_size=4), tags=st.lists(LETTERS, max_size=12))
def test_any_pattern_finds_what_trying_every_place_finds(parts: list[str], tags: list[str]) -> None:
    text = "*".join(part.replace("\\", "\\\\").replace("*", "\\*") for part in parts)
    if not text:
        return
    pattern = TagPattern.parse(text)
    assert [part for part in pattern.parts if part] == [part for part in parts if part]
    expected = [naive(parts, tag) for tag in tags]
    assert [pattern.covers(tag) for tag in tags] == expected
    assert pattern.match(pa.array(tags, pa.string())).to_pylist() == expected
    assert covers_tag([text], tags) == any(expected)
