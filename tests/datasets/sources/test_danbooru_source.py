"""Danbooru dumps of every vintage: nothing is lost, nothing is trusted, and `s` never lets sensitive pictures in."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datasets.errors import SourceError
from datasets.schema import POSTS
from datasets.sources.config import Problem, Rating, RatingVintage, SourceConfig
from datasets.sources.read import digest_posts, locate, read_posts, read_source

Dump = Callable[..., dict[str, dict[str, Any]]]
REAL = Path(__file__).parents[3].parent / "shared" / "data" / "metadata"
OLD = {
    "id": "1234567",
    "rating": "s",
    "score": "12",
    "favs": ["1", "2", "3"],
    "tags": [{"id": "1", "name": "solo", "category": "0"}, {"id": "2", "name": "1girl", "category": "0"}],
    "file_ext": "jpg",
    "image_width": "640",
    "image_height": "480",
    "is_deleted": "false",
    "is_banned": "true",
    "parent_id": "0",
    "created_at": "2015-01-01 00:00:00 UTC",
}


def name_of(line: str | bytes) -> str:
    """What a line without an id is called."""
    text = line.encode() if isinstance(line, str) else line
    return "line-" + hashlib.sha256(text.strip()).hexdigest()[:16]


# ---- schemas ---------------------------------------------------------------------------------------------------------


def test_typed_schema(dump: Dump) -> None:
    post = dump({"parent_id": 5})["7"]
    assert post["source_path"] == "original/0007/7.png"
    assert post["tags"] == ["1girl", "smile", "solo"]
    assert (post["score"], post["favourites"], post["declared_width"], post["declared_height"]) == (12, 3, 640, 480)
    assert (post["extension"], post["parent_id"], post["problem"], post["file_bytes"]) == ("png", "5", None, 7)
    assert (post["deleted"], post["banned"]) == (False, False)


def test_old_schema_of_strings(dump: Dump) -> None:
    post = dump(json.dumps(OLD), files=("0567/1234567.jpg",))["1234567"]
    assert post["source_path"] == "original/0567/1234567.jpg"
    assert post["tags"] == ["1girl", "solo"]
    assert (post["score"], post["favourites"], post["declared_width"]) == (12, 3, 640)
    assert (post["deleted"], post["banned"], post["parent_id"], post["problem"]) == (False, True, None, None)


def test_both_schemas_in_one_file(dump: Dump) -> None:
    posts = dump({}, json.dumps(OLD), files=("0007/7.png", "0567/1234567.jpg"))
    assert [post["problem"] for post in posts.values()] == [None, None]


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        *[(value, True) for value in (True, "true", "True", "t", "1", 1)],
        *[(value, False) for value in (False, "false", "False", "f", "0", 0, None, "")],
    ],
)
def test_flags_of_every_spelling(dump: Dump, value: object, flag: bool) -> None:
    assert dump({"is_deleted": value})["7"]["deleted"] is flag


@pytest.mark.parametrize(
    ("value", "number"),
    [("-3", -3), (12, 12), ("", None), (None, None), ("many", None), ([], None), (2**40, None), (1e400, None)],
)
def test_numbers_of_every_spelling(dump: Dump, value: object, number: int | None) -> None:
    assert dump({"score": value})["7"]["score"] == number


@pytest.mark.parametrize(
    "tags",
    [{"tag_string": None}, {"tag_string": 5}, {"tags": [None, {"x": 1}, 3, ""]}, {"tags": {"a": 1}, "tag_string": ""}],
)
def test_strange_tags_are_no_tags(dump: Dump, tags: dict[str, Any]) -> None:
    assert dump(tags)["7"]["tags"] == []


def test_half_a_character_does_not_stop_the_reader(dump: Dump) -> None:
    post = dump({"tag_string": "a\ud83d solo", "created_at": "\ud800", "parent_id": "\udfff"})["7"]
    assert post["tags"] == ["a?", "solo"]


# ---- ratings ---------------------------------------------------------------------------------------------------------


def test_s_is_safe_where_no_row_is_general(dump: Dump) -> None:
    assert dump({"rating": "s"}, {"id": 8, "rating": "q"}, {"id": 9, "rating": "e"})["7"]["rating"] == "safe"


@pytest.mark.parametrize("general", ["g", "general", "G", " g "])
def test_s_is_sensitive_as_soon_as_any_row_is_general(dump: Dump, general: str) -> None:
    rows = [{"id": k} for k in range(1, 30)]
    posts = dump(*rows, {"id": 99, "rating": general})
    assert {posts[str(k)]["rating"] for k in range(1, 30)} == {"sensitive"}
    assert posts["99"]["rating"] == "general"


def test_one_general_row_in_another_file_decides_for_all(dump: Dump, tmp_path: Path) -> None:
    (tmp_path / "dump" / "metadata").mkdir(parents=True)
    (tmp_path / "dump" / "metadata" / "zzz.json").write_text('{"id": 8, "rating" : "g", "file_ext": "png"}\n')
    assert dump({})["7"]["rating"] == "sensitive"


def test_a_tag_or_another_field_that_says_g_decides_nothing(dump: Dump) -> None:
    assert dump({"tag_string": "rating:g g", "source": "g", "uploader_rating": "g"})["7"]["rating"] == "safe"


@pytest.mark.parametrize(
    ("vintage", "expected"), [(RatingVintage.S_IS_SAFE, "safe"), (RatingVintage.S_IS_SENSITIVE, "sensitive")]
)
def test_the_recipe_may_say_what_s_means(dump: Dump, vintage: RatingVintage, expected: str) -> None:
    assert dump({}, {"id": 8, "rating": "q"}, rating_vintage=vintage)["7"]["rating"] == expected


@pytest.mark.parametrize("value", ["x", "", None, 5, [], "safe-ish", "gs", "nan"])
def test_an_unknown_rating_is_unrated(dump: Dump, value: object) -> None:
    assert dump({"rating": value})["7"]["rating"] == Rating.UNKNOWN


@pytest.mark.parametrize("word", ["questionable", "explicit", "sensitive", "Explicit"])
def test_ratings_in_words(dump: Dump, word: str) -> None:
    assert dump({"rating": word})["7"]["rating"] == word.lower()


# ---- bad rows and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ['{"id": 1', "[1, 2]", '"text"', "3", "null", b"\xff\xfe{}", "[" * 100_000, '{"id": ' + "9" * 5000 + "}"]
)
def test_a_line_that_is_no_object_is_a_broken_row_named_by_its_text(dump: Dump, line: str | bytes) -> None:
    posts = dump({}, line, {"id": 8})
    broken = posts[name_of(line)]
    assert broken["problem"] == Problem.BROKEN_ROW
    assert re.match(r"metadata/posts\.json:2: .", broken["problem_detail"])
    assert (posts["7"]["problem"], posts["8"]["problem"]) == (None, None)


def test_empty_lines_are_no_rows(dump: Dump) -> None:
    assert list(dump("", {}, "   ", "")) == ["7"]


def test_a_byte_order_mark_is_no_problem(dump: Dump) -> None:
    line = json.dumps({"id": 7, "rating": "s", "file_ext": "png"})
    assert dump(b"\xef\xbb\xbf" + line.encode(), files=("0007/7.png",))["7"]["problem"] is None


def test_a_huge_line_is_one_broken_row_and_the_next_is_read(dump: Dump, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.sources.danbooru.rows.MAX_LINE_BYTES", 1000)
    huge = json.dumps({"id": 5, "padding": "x" * 200_000})
    for block_bytes in (2000, 1 << 20):
        monkeypatch.setattr("datasets.sources.danbooru.blocks.BLOCK_BYTES", block_bytes)
        posts = dump({}, huge, {"id": 8}, {"id": 9}, huge)
        problems = {post["problem_detail"]: post["problem"] for post in posts.values() if post["problem"]}
        detail = "the line is longer than 1000 bytes"
        expected = {f"metadata/posts.json:{line}: {detail}": Problem.BROKEN_ROW for line in (2, 5)}
        assert problems == expected
        assert all(posts[name]["problem"] is None for name in "789")


@pytest.mark.parametrize("value", [None, "", "abc", "../7", -1, 1.5, True, [7], "7\n", "٧", 10**30])
def test_an_id_that_is_no_number_is_no_id(dump: Dump, value: object) -> None:
    row = {"id": value, "rating": "q", "file_ext": "png"}
    for _ in range(2):
        line = json.dumps(row)
        post = dump({}, line)[name_of(line)]
        assert post["problem"] == Problem.NO_ID
        assert post["problem_detail"].startswith("metadata/posts.json:2: id is ")
        row.pop("id", None)


def test_the_first_row_of_an_id_counts_and_later_ones_are_named(dump: Dump) -> None:
    posts = dump({"score": 1}, {"score": 2}, {"score": 3})
    assert (posts["7"]["score"], posts["7"]["problem"]) == (1, None)
    for place in (2, 3):
        assert posts[f"7~{place}"]["problem"] == Problem.DUPLICATE_ID
        told = posts[f"7~{place}"]["problem_detail"]
        assert told.startswith(f"metadata/posts.json:{place}: id 7 was already read. Here it is rated safe;")
    assert len(posts) == 3  # and the file is nobody's orphan


@pytest.mark.parametrize(
    ("ratings", "strictest"),
    [
        ("ge", "explicit"),
        ("eg", "explicit"),
        ("gsq", "questionable"),
        ("gxs", "sensitive"),
        ("gx", "unknown"),
        (("g", "safe"), "safe"),
        ("gg", "general"),
    ],
)
def test_the_strictest_rating_of_all_rows_of_an_id_counts(
    dump: Dump, tmp_path: Path, ratings: tuple[str, ...], strictest: str
) -> None:
    """Also where they lie in several files, between rows of other ids."""
    folder = tmp_path / "dump" / "metadata"
    folder.mkdir(parents=True)
    for number, rating in enumerate(ratings[1:]):
        other, row = ({"id": k, "rating": rating, "score": 99} for k in (1000 + number, 7))
        (folder / f"z{number}.json").write_text(f"{json.dumps(other)}\n{json.dumps(row)}\n")
    posts = dump({"id": 3, "rating": "q"}, {"rating": ratings[0]}, {"id": 8, "rating": "g"})
    assert (posts["7"]["rating"], posts["7"]["score"]) == (strictest, 12)
    assert (posts["3"]["rating"], posts["8"]["rating"]) == ("questionable", "general")
    last = posts[f"7~{len(ratings)}"]
    assert f"Here it is rated {last['rating']}; the strictest rating of all rows counts" in last["problem_detail"]


def test_rows_of_an_id_in_a_later_file_alone_agree_too(dump: Dump, tmp_path: Path) -> None:
    (tmp_path / "dump" / "metadata").mkdir(parents=True)
    later = ({"id": 5, "rating": "q"}, {"id": 8, "rating": "g"}, {"id": 8, "rating": "e"})
    (tmp_path / "dump" / "metadata" / "z.json").write_text("\n".join(map(json.dumps, later)))
    posts = dump({"rating": "g"}, {"rating": "e"})
    ratings = {name: posts[name]["rating"] for name in ("7", "7~2", "8", "8~2")}
    assert ratings == {"7": "explicit", "7~2": "explicit", "8": "explicit", "8~2": "explicit"}
    assert posts["5"]["rating"] == "questionable"


def test_s_is_resolved_before_ratings_are_compared(dump: Dump) -> None:
    assert dump({"rating": "general"}, {"rating": "s"})["7"]["rating"] == "sensitive"
    assert dump({"rating": "x"}, {"rating": "s"})["7"]["rating"] == "unknown"  # s is safe here


@pytest.mark.parametrize("flag", ["deleted", "banned"])
def test_a_post_is_deleted_or_banned_where_any_row_of_its_id_says_so(dump: Dump, flag: str) -> None:
    posts = dump({}, {"id": 8}, {f"is_{flag}": True}, {})
    other = "banned" if flag == "deleted" else "deleted"
    assert (posts["7"][flag], posts["7"][other], posts["8"][flag], posts["7~3"][flag]) == (True, False, False, False)


@pytest.mark.parametrize("parent", [2, "2", "02", " 2", "2 ", 2.0, "2.0"])
def test_a_parent_is_named_as_posts_are(dump: Dump, parent: object) -> None:
    assert dump({"parent_id": parent})["7"]["parent_id"] == "2"


@pytest.mark.parametrize(
    "parent", [None, "", 0, "0", "00", 0.0, "null", "None", float("nan"), 1.5, -2, True, [2], "2 3"]
)
def test_what_is_no_id_is_no_parent(dump: Dump, parent: object) -> None:
    assert dump({"parent_id": parent})["7"]["parent_id"] is None


@pytest.mark.parametrize("first", [True, False])
def test_an_id_is_a_duplicate_even_of_a_row_with_an_unsafe_path(dump: Dump, first: bool) -> None:
    bad = json.dumps({"id": 7, "file_ext": "../x"})
    posts = dump(*([bad, {}] if first else [{}, bad]), files=("0007/7.png",))
    assert posts["7~2"]["problem"] == Problem.DUPLICATE_ID
    assert posts["7"]["problem"] == (Problem.UNSAFE_PATH if first else None)


@pytest.mark.parametrize(
    "extension", ["../../etc/passwd", "/png", "p/ng", "png\x00", "..", "", None, "sixsix", ["png"]]
)
def test_an_extension_that_is_no_plain_word_never_becomes_a_path(dump: Dump, extension: object) -> None:
    posts = dump(json.dumps({"id": 7, "rating": "s", "file_ext": extension}), files=("0007/7.png",))
    assert posts["7"]["problem"] == Problem.UNSAFE_PATH
    assert (posts["7"]["source_path"], posts["7"]["file_stamp"], posts["7"]["extension"]) == (None, None, None)
    assert posts["original/0007/7.png"]["problem"] == Problem.NO_METADATA


def test_a_missing_file_and_an_orphan_file_are_both_told(dump: Dump) -> None:
    posts = dump({}, files=("0008/8.png", "stray.txt"))
    assert posts["7"]["problem"] == Problem.MISSING_FILE
    assert "original/0007/7.png" in posts["7"]["problem_detail"]
    assert posts["original/0008/8.png"]["problem"] == Problem.NO_METADATA
    assert posts["original/stray.txt"]["problem"] == Problem.NO_METADATA


def test_an_orphan_whose_name_is_not_utf8_is_told(dump: Dump, tmp_path: Path) -> None:
    folder = tmp_path / "dump" / "original"
    folder.mkdir(parents=True)
    try:
        (Path(os.fsdecode(os.fsencode(folder) + b"/\x8a\xe7.png"))).write_bytes(b"picture")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert dump({})["original/\\x8a\\xe7.png"]["problem"] == Problem.NO_METADATA


def test_a_file_in_the_wrong_folder_is_missing(dump: Dump) -> None:
    assert dump({}, files=("0008/7.png",))["7"]["problem"] == Problem.MISSING_FILE


def test_a_link_out_of_the_images_is_not_followed(dump: Dump, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "dump" / "original" / "0007").mkdir(parents=True)
    (tmp_path / "dump" / "original" / "0007" / "7.png").symlink_to(tmp_path / "secret.png")
    post = dump({}, files=())["7"]
    assert (post["problem"], post["source_path"], post["file_bytes"]) == (Problem.UNSAFE_PATH, None, None)


def test_another_modulus_and_folder(dump: Dump, tmp_path: Path) -> None:
    path = tmp_path / "dump" / "512px" / "0002" / "7.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert dump({}, files=(), images="512px", modulus=5)["7"]["source_path"] == "512px/0002/7.png"


# ---- the source as a whole -------------------------------------------------------------------------------------------


def test_no_metadata_and_no_folder_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"source\.root"):
        read_posts(SourceConfig(root=tmp_path / "absent"))
    with pytest.raises(SourceError, match=r"source\.metadata"):
        read_posts(SourceConfig(root=tmp_path))


@pytest.mark.parametrize("pattern", ["../*.json", "/etc/*", "a/../../*"])
def test_metadata_outside_the_source_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(SourceError, match="below"):
        read_posts(SourceConfig(root=tmp_path, metadata=pattern))


def test_digest_sees_scores_and_files_but_not_times_of_files(dump: Dump, tmp_path: Path) -> None:
    def digest() -> str:
        return digest_posts(read_posts(SourceConfig(root=tmp_path / "dump")))

    dump({})
    first = digest()
    os.utime(tmp_path / "dump" / "original" / "0007" / "7.png", ns=(5, 5))
    assert digest() == first
    dump({"score": 13})
    assert digest() != first


@pytest.mark.parametrize("name", sorted(set(POSTS.names) - {"file_stamp", "problem_detail"}))
def test_digest_sees_whatever_the_filter_judges_by(name: str) -> None:
    row = dict.fromkeys(POSTS.names) | {"post_id": "7"}
    kind = POSTS.field(name).type
    other = ["a"] if pa.types.is_list(kind) else True if pa.types.is_boolean(kind) else 5
    changed = row | {name: str(other) if pa.types.is_string(kind) else other}
    one, two = (digest_posts(pa.Table.from_pylist([value], schema=POSTS)) for value in (row, changed))
    assert one != two


def test_locate_never_leaves_the_root(tmp_path: Path) -> None:
    assert locate(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"
    for path in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(SourceError, match="leaves"):
            locate(tmp_path, path)


@pytest.mark.skipif(not REAL.is_dir(), reason="real metadata lies outside the repository")
def test_real_rows(dump: Dump) -> None:
    lines = (REAL / "booru_posts.jsonl").read_bytes().splitlines()
    rows = [json.loads(line) for line in lines]
    posts = dump(*lines, files=())
    named = Counter(post["problem"] for post in posts.values())
    assert sum(named.values()) == len(rows)
    assert named[Problem.MISSING_FILE] >= 100  # everything that has an id and an extension
    assert named[Problem.BROKEN_ROW] == 0
    assert all(post["tags"] and post["declared_width"] for post in posts.values() if post["problem"] == "missing_file")
    assert any(str(row.get("created_at")).startswith("2022") for row in rows)
    found = read_source(SourceConfig(root=REAL, metadata="booru_posts.jsonl")).vintage
    assert found is not None and found.inferred is RatingVintage.S_IS_SENSITIVE
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", post["created_at"]) for post in posts.values())
    said_in_words = any(row.get("rating") == "safe" for row in rows)
    assert said_in_words or Rating.SAFE not in {post["rating"] for post in posts.values()}
