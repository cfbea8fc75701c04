"""Lines of every vintage and make: what a row means, and that the fast way and the careful one agree on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.sources.config import Problem, RatingVintage, SourceConfig
from datasets.sources.danbooru import rows
from datasets.sources.danbooru.columns import Evidence
from datasets.sources.danbooru.fields import read_date, read_extension, read_id
from datasets.sources.danbooru.rows import load_decoder, read_lines
from datasets.sources.listing import SourceReading, VintageReport
from datasets.sources.read import read_source

Dump = Callable[..., dict[str, dict[str, Any]]]
REAL = Path(__file__).parents[3].parent / "shared" / "data" / "metadata"
GELBOORU: dict[str, Any] = {
    "id": 3889484,
    "created_at": "Wed Sep 20 10:30:44 -0500 2017",
    "rating": "s",
    "score": "4",
    "tags": " solo 1girl don&#039;t_cry &gt;:) 1girl ",
    "width": "1280",
    "height": "1066",
    "md5": "3AB2ca9a562c662cb16c9d021975738b",
    "file_url": "https://img3.gelbooru.com/images/3a/b2/3ab2ca9a562c662cb16c9d021975738b.PNG?3889484",
    "parent_id": "",
    "status": "active",
    "has_children": "false",
    "change": "1505921445",
    "directory": "3a/b2",
    "owner": "danbooru",
}
TYPED: dict[str, Any] = {
    "id": 7,
    "rating": "s",
    "score": -2,
    "fav_count": 3,
    "tag_string": "1girl smile",
    "file_ext": "png",
    "image_width": 640,
    "image_height": 480,
    "is_deleted": False,
    "parent_id": None,
    "created_at": "2021-05-01T00:00:00.000-04:00",
    "updated_at": "2021-05-01T00:00:00.000-04:00",
}
OLD: dict[str, Any] = {
    "id": "1234567",
    "rating": "q",
    "score": "12",
    "favs": ["1", "2"],
    "tags": [{"id": "1", "name": "solo", "category": "0"}, {"id": "2", "name": "1girl", "category": "0"}],
    "pools": ["1", 2],
    "file_ext": "jpg",
    "image_width": "640",
    "is_deleted": True,
    "parent_id": "0",
    "created_at": "2015-01-01 00:00:00 UTC",
    "source": 'a \\ "b" ü',
}


def as_lines(*values: Any) -> bytes:
    return b"".join(value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n" for value in values)


def read_one(value: Any) -> dict[str, Any]:
    """The only row of a line, by the way that is taken here."""
    table, _, _ = read_lines(as_lines(value))
    (row,) = table.to_pylist()
    return dict(row)


# ---- schemas ---------------------------------------------------------------------------------------------------------


def test_a_gelbooru_row() -> None:
    row = read_one(GELBOORU)
    assert (row["id"], row["score"], row["extension"], row["problem"]) == (3889484, 4, "png", None)
    assert (row["declared_width"], row["declared_height"], row["parent_id"]) == (1280, 1066, None)
    assert row["tags"] == ["1girl", ">:)", "don't_cry", "solo"]
    assert row["created_at"] == "2017-09-20T15:30:44Z"
    assert row["md5"] == "3ab2ca9a562c662cb16c9d021975738b"
    assert (row["deleted"], row["rating"]) == (False, "s")
    assert read_one(GELBOORU | {"status": "deleted"})["deleted"] is True


@pytest.mark.parametrize(
    "page",
    [
        {"@attributes": {"limit": 100, "offset": 0, "count": 2}, "post": [GELBOORU, {**GELBOORU, "id": 5}]},
        [GELBOORU, {**GELBOORU, "id": 5}],
    ],
)
def test_a_page_of_an_interface_is_its_posts(page: Any) -> None:
    table, evidence, count = read_lines(as_lines(page))
    assert table["id"].to_pylist() == [3889484, 5]
    assert (table["problem"].null_count, evidence.letters, count) == (2, 2, 1)


def test_a_page_of_one_post_and_an_empty_page() -> None:
    assert read_one({"@attributes": {}, "post": GELBOORU})["id"] == 3889484
    for empty in ([], {"@attributes": {}, "post": []}):
        assert len(read_lines(as_lines(empty))[0]) == 0


def test_a_page_with_something_else_in_it_is_broken_whole() -> None:
    row = read_one([TYPED, 5])
    assert (row["problem"], row["problem_detail"]) == (
        Problem.BROKEN_ROW,
        "a list of JSON objects was expected, but int is in it",
    )


def test_tags_by_category_where_there_are_no_others() -> None:
    row = {key: value for key, value in TYPED.items() if key != "tag_string"}
    row |= {"tag_string_general": ["solo", "1girl"], "tag_string_artist": "someone", "tag_string_meta": None}
    assert read_one(row)["tags"] == ["1girl", "solo", "someone"]
    assert read_one({**row, "tag_string": "only these"})["tags"] == ["only", "these"]


@pytest.mark.parametrize(
    ("stated", "addresses", "found"),
    [
        ("PNG", (), "png"),
        (None, ("a.b.jpg", "https://x/y.png"), "jpg"),
        (None, (None, "https://x/y.webp?3#z"), "webp"),
        (None, ("", "/data/original/ab/cd/x.jpeg"), "jpeg"),
        (None, (".png",), None),
        (None, ("no ending", "x.png"), None),
        (None, ("x.../../etc",), None),
        (None, ("http://[x.png",), "png"),
        ("../x", ("y.png",), None),
        (5, (), "5"),
    ],
)
def test_a_files_ending(stated: Any, addresses: tuple[Any, ...], found: str | None) -> None:
    ending, fault = read_extension(stated, *addresses)
    assert ending == found
    assert (fault is None) == (found is not None)


@pytest.mark.parametrize(("value", "number"), [("007", 7), (7, 7), ("0", 0), (10**18 - 1, 10**18 - 1), (10**18, None)])
def test_ids(value: Any, number: int | None) -> None:
    assert read_id(value) == number


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2016-12-31 04:50:40 UTC", "2016-12-31T04:50:40Z"),
        ("2016-12-31 04:50:40.99046 UTC", "2016-12-31T04:50:40Z"),
        ("2016-12-31T23:50:40.123-04:00", "2017-01-01T03:50:40Z"),
        ("2016-12-31T23:50:40Z", "2016-12-31T23:50:40Z"),
        ("2016-12-31", "2016-12-31T00:00:00Z"),
        ("2016-12-31T23:50", "2016-12-31T23:50:00Z"),
        ("Mon Jan 02 15:04:05 -0600 2006", "2006-01-02T21:04:05Z"),
        ("Mon Jan 02 01:04:05 +0930 2006", "2006-01-01T15:34:05Z"),
        *[(value, "2017-09-20T15:30:45Z") for value in (1505921445, "1505921445", 1505921445123, "1505921445123")],
        ({"json_class": "Time", "s": 1505921445, "n": 5}, "2017-09-20T15:30:45Z"),
        *[(value, None) for value in ("", "yesterday", "2016-13-01", "2016-12-31 25:00:00 UTC", None, True, [], {})],
        *[(value, None) for value in (10**30, float("inf"), float("nan"), "0001-01-01T00:00:00+05:00", "20161231")],
        *[(value, None) for value in (20161231, 0, -1505921445, "2016", "9" * 18, "9" * 30)],
        *[(value, None) for value in ("Mon Foo 02 15:04:05 -0600 2006", "Mon Feb 30 15:04:05 -0600 2006", {"s": "x"})],
    ],
)
def test_times_compare_as_text(value: Any, time: str | None) -> None:
    assert read_date(value) == time


# ---- the vintage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"created_at": "2023-03-01T00:00:00.000-05:00"},
        {"updated_at": "2022-01-01T00:00:00.000-05:00"},
        {"updated_at": "2022-01-01 00:00:00 UTC"},
        {"created_at": "Mon Jan 02 15:04:05 -0600 2023"},
        {"change": "1672531200"},
        {"change": 1672531200},
        {"rating": "sensitive"},
        {"rating": "general"},
        {"media_asset": {"id": 1, "variants": [{"type": "180x180"}]}},
        {"id": None, "rating": "g"},
    ],
)
def test_what_shows_that_s_is_sensitive(dump: Dump, tmp_path: Path, changed: dict[str, Any]) -> None:
    assert dump({"id": 5}, {"id": 6})["5"]["rating"] == "safe"
    posts = dump({"id": 5}, json.dumps({**TYPED, "id": 6, **changed}))
    assert posts["5"]["rating"] == "sensitive"
    found = read_source(SourceConfig(root=tmp_path / "dump")).vintage
    assert found is not None
    assert (found.vintage, found.stated, found.newer) == (RatingVintage.S_IS_SENSITIVE, False, 1)
    assert found.first is not None and found.first.startswith("metadata/posts.json:2: ")
    json.dumps(found.describe())


@pytest.mark.parametrize("changed", [{"rating": "e"}, {"change": "x"}, {"media_asset": None}])
def test_what_does_not_show_it(dump: Dump, changed: dict[str, Any]) -> None:
    assert dump({"id": 5}, {"id": 6, **changed})["5"]["rating"] == "safe"


def read_vintage(tmp_path: Path, **settings: Any) -> VintageReport:
    found = read_source(SourceConfig(root=tmp_path / "dump", **settings)).vintage
    assert found is not None
    return found


UNDATED = [None, "", "x", "2021/05/01", "20210501", 20210501, "1970-01-01 00:00:00 UTC", 0, "0", "2021-13-01", [], True]


@pytest.mark.parametrize("updated", UNDATED)
def test_s_is_sensitive_where_a_row_does_not_say_when_it_was_written(
    dump: Dump, tmp_path: Path, caplog: pytest.LogCaptureFixture, updated: object
) -> None:
    undated = {"id": 6, "updated_at": updated, "created_at": "2015-01-01 00:00:00 UTC"}
    caplog.set_level(logging.WARNING)
    assert dump({"id": 5}, undated)["5"]["rating"] == "sensitive"
    found = read_vintage(tmp_path)
    assert (found.inferred, found.letters, found.newer, found.undated) == ("s-is-sensitive", 2, 0, 1)
    assert found.explain() == ["The rating s was read as sensitive, in 2 rows (in doubt).", found.warning()]
    assert "1 of 2 rows" in caplog.text and "source.rating_vintage=s-is-safe" in caplog.text
    stated = read_vintage(tmp_path, rating_vintage="s-is-safe")
    assert stated.vintage == "s-is-safe" and stated.warning() is None
    assert dump({"id": 5}, undated | {"rating": "e"})["5"]["rating"] == "safe"  # it is not in question


@pytest.mark.parametrize(
    "written", [{"updated_at": "2017-06-01 00:00:00 UTC"}, {"change": "1505921445"}, {"change": 1505921445123}]
)
def test_s_is_safe_where_every_row_was_written_before_2022(dump: Dump, tmp_path: Path, written: dict[str, Any]) -> None:
    assert dump({"id": 5, "updated_at": None, **written})["5"]["rating"] == "safe"
    assert read_vintage(tmp_path).undated == 0


@pytest.mark.parametrize("updated", ["1672531200", "1672531200000", 1672531200000])
def test_seconds_and_milliseconds_show_that_s_is_sensitive(dump: Dump, tmp_path: Path, updated: object) -> None:
    assert dump({"id": 5, "updated_at": updated})["5"]["rating"] == "sensitive"
    assert read_vintage(tmp_path).newer == 1


def test_evidence_adds_up() -> None:
    undated, newer = {**TYPED, "updated_at": None}, {**TYPED, "rating": "g"}
    data = as_lines(undated, newer, undated)
    assert read_lines(data)[1] == Evidence(2, 1, 2, 2, "rated general")
    parts = [read_lines(as_lines(row))[1] for row in (undated, newer, undated)]
    added = parts[0] + parts[1] + parts[2]
    assert (added.letters, added.newer, added.undated, added.why) == (2, 1, 2, "rated general")


def test_a_stated_vintage_that_the_rows_gainsay_is_warned_of(
    dump: Dump, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dump({"id": 5}, {"id": 6, "rating": "g"})

    def read(**settings: Any) -> SourceReading:
        return read_source(SourceConfig(root=tmp_path / "dump", **settings))

    found = read(rating_vintage="s-is-safe").vintage
    assert found is not None
    assert (found.vintage, found.inferred, found.stated) == ("s-is-safe", "s-is-sensitive", True)
    assert "metadata/posts.json:2" in (found.warning() or "")
    assert found.warning() in caplog.messages
    assert found.explain()[1:] == [found.warning()]
    for stated in ({}, {"rating_vintage": "s-is-sensitive"}):
        said = read(**stated).vintage
        assert said is not None and said.warning() is None


# ---- two ways, one table ---------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        ["s", "g", "q", "true", "12", "-3", "1girl solo", "x.png", "a&amp;b", "2023-01-01", "0", 7, 2**31]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "id", "s"]), inner, max_size=2)
    ),
    max_leaves=5,
)
ROWS = st.builds(
    lambda base, changed: {**base, **changed},
    st.sampled_from([GELBOORU, TYPED, OLD]),
    st.dictionaries(st.sampled_from(sorted({*rows._WANTED, "@attributes", "pools"})), VALUES, max_size=4),
)
SPLICES = [
    b"\xff",
    b"\\q",
    b"\\ud83d",
    b"\n",
    b"\r",
    b"{",
    b"}",
    b"[",
    b"9" * 4301,
    b"NaN",
    b"1e999",
    b"\x00",
    b",",
    b" ",
]


@st.composite
def lines(draw: Callable[..., Any]) -> bytes:
    """A line of metadata, sound or damaged somewhere."""
    line = json.dumps(
        draw(ROWS), ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(",", ":"), None]))
    )
    data = line.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(SPLICES)) + data[at + draw(st.integers(0, 3)) :]
    return data + b"\n"


def assert_both_ways_agree(data: bytes) -> pa.Table:
    pytest.importorskip("msgspec")
    fast, careful = read_lines(data), read_lines(data, fast=False)
    assert fast[0].to_pylist() == careful[0].to_pylist()
    assert fast[0].equals(careful[0])
    assert fast[1:] == careful[1:]
    return fast[0]


@settings(max_examples=300, deadline=None)
@given(st.lists(lines(), max_size=6))
def test_the_fast_way_reads_what_the_careful_one_does(parts: list[bytes]) -> None:
    assert_both_ways_agree(b"".join(parts))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"id": 7, "file_ext": "png", "unread": "\xff"}', Problem.BROKEN_ROW),
        (b'{"id": 7, "file_ext": "png", "\xff": 1}', Problem.BROKEN_ROW),
        (b'{"id": 7, "file_ext": "png", "unread": ' + b"9" * 4301 + b"}", Problem.BROKEN_ROW),
        (b'{"id": 7, "file_ext": "png", "unread": ' + b"9" * 4300 + b"}", None),
        (b'{"id": 7, "file_ext": "png", "unread": ' + b"[" * 401 + b"]" * 401 + b"}", Problem.BROKEN_ROW),
        (b'{"id": 7, "file_ext": "png", "unread": ' + b"[" * 399 + b"]" * 399 + b"}", None),
        (b'{"id": 7, "file_ext": "png", "unread": "' + b"[" * 500 + b'"}', None),
        (b'{"id": 7, "file_ext": "png", "unread": [' + b"[]," * 500 + b"0]}", None),
        (b'{"id": 7, "file_ext": "png", "unread": NaN}', None),
        (b'{"id": 7, "file_ext": "png", "unread": "\\ud800"}', None),
        (b'{"id": 6, "file_ext": "png", "id": 7}', None),
        (b'{"id": 7, "file_ext": "png"}\r', None),
        (b'{"id": 7, "file_ext": "png"} {}', Problem.BROKEN_ROW),
        (b'{"post": null}', Problem.NO_ID),
        (b'{"id": 7, "file_ext": "png", "post": null}', None),
    ],
)
def test_faults_that_a_hasty_reader_overlooks(line: bytes, problem: Problem | None) -> None:
    for fast in (True, False):
        (row,) = read_lines(line + b"\n", fast)[0].to_pylist()
        assert row["problem"] == problem
        assert row["id"] == (7 if problem is None else None)
    assert_both_ways_agree(line + b"\n")


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_how_many_lines_are_read_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, fast: bool, at_once: int
) -> None:
    newer = {"id": None, "updated_at": "2024-01-01"}
    data = as_lines(OLD, b"{\n", b"\n", TYPED | newer, GELBOORU, b"x\n", b"x\n", TYPED | {"rating": "g"}, [TYPED, OLD])
    expected = read_lines(data, fast)
    assert expected[1].line == 4 and expected[1].newer == 2
    monkeypatch.setattr(rows, "_LINES_AT_ONCE", at_once)
    found = read_lines(data, fast)
    assert found[0].equals(expected[0]) and found[1:] == expected[1:]


@pytest.mark.skipif(not REAL.is_dir(), reason="real metadata lies outside the repository")
def test_both_ways_agree_on_real_rows() -> None:
    for path in sorted(REAL.glob("*.jsonl")):
        table = assert_both_ways_agree(path.read_bytes())
        assert table["problem"].null_count == len(table) > 100
        assert table["created_at"].null_count == 0


def test_the_careful_way_is_taken_where_msgspec_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(name)

    expected = read_lines(as_lines(TYPED, OLD, b"{\n"), fast=False)
    monkeypatch.setattr(rows.importlib, "import_module", refuse)
    assert load_decoder() is None
    found = read_lines(as_lines(TYPED, OLD, b"{\n"))
    assert found[0].equals(expected[0]) and found[1:] == expected[1:]


@pytest.mark.parametrize("broken", [b"garbage\n", b"{}\n"])
def test_endless_bad_lines_are_counted_in_one(monkeypatch: pytest.MonkeyPatch, broken: bytes) -> None:
    monkeypatch.setattr(rows, "MAX_RUN", 3)
    table, _, count = read_lines(broken * 10 + as_lines(TYPED) + broken * 2)
    assert count == 13
    problems = table.filter(pa.compute.is_valid(table["problem"]))
    assert problems["line"].to_pylist() == [1, 2, 3, 4, 12, 13]
    assert problems["problem_detail"][3].as_py().startswith("7 more such lines in a row: ")
