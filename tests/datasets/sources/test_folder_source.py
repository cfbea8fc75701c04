"""Folders of pictures: whatever their names, and only what lies inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.errors import SourceError
from datasets.sources.config import Problem, SourceConfig, SourceKind
from datasets.sources.files import list_files, stamp_file
from datasets.sources.read import locate, read_posts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name in ("a.png", "b/c.JPG", "b/深い/顔 箱.webp", "notes.txt", ".hidden.png", ".git/x.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"picture")
    return folder


def posts(root: Path, **config: Any) -> dict[str, dict[str, Any]]:
    table = read_posts(SourceConfig(kind=SourceKind.FOLDER, root=root, **config))
    return {row["post_id"]: row for row in table.to_pylist()}


def test_nested_folders_unicode_names_and_nothing_hidden(root: Path) -> None:
    found = posts(root)
    assert sorted(found) == ["a.png", "b/c.JPG", "b/深い/顔 箱.webp"]
    assert found["b/c.JPG"]["extension"] == "jpg"
    assert {post["rating"] for post in found.values()} == {"unrated"}
    assert all(locate(root, post["source_path"]).read_bytes() == b"picture" for post in found.values())


def test_not_recursive(root: Path) -> None:
    assert list(posts(root, recursive=False)) == ["a.png"]


def test_links_are_taken_inside_and_refused_outside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "x.png").write_bytes(b"secret")
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "escape.png").symlink_to(tmp_path / "secret.png")
    (root / "relative.png").symlink_to("../secret.png")
    (root / "folder").symlink_to(tmp_path / "others")
    (root / "dangling.png").symlink_to(root / "absent.png")
    (root / "loop").symlink_to(root)
    (root / "itself.png").symlink_to("itself.png")
    found = posts(root)
    outside = ["escape.png", "folder", "relative.png"]
    assert sorted(found.keys() - {"a.png", "b/c.JPG", "b/深い/顔 箱.webp"}) == sorted(["inside.png", *outside])
    for name in outside:
        assert (found[name]["problem"], found[name]["source_path"]) == (Problem.UNSAFE_PATH, None)


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert len(posts(tmp_path / "link")) == 3


def test_devices_and_pipes_are_not_opened(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (root / "folder.png").mkdir()
    assert len(posts(root)) == 3


def test_a_name_that_is_not_utf8_is_a_named_problem(root: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/\x8a\xe7.png")).write_bytes(b"picture")  # Shift-JIS
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    post = posts(root)["\\x8a\\xe7.png"]
    assert (post["problem"], post["source_path"]) == (Problem.UNSAFE_PATH, None)
    assert "rename" in post["problem_detail"]


def test_a_changed_file_has_another_stamp(root: Path) -> None:
    before = list_files(root).by_name()["a.png"].stamp
    (root / "a.png").write_bytes(b"PICTURE")
    os.utime(root / "a.png", ns=(1, 1))
    after = list_files(root).by_name()["a.png"].stamp
    assert before != after
    (root / "a.png").rename(root / "z.png")
    assert list_files(root).by_name()["z.png"].stamp.split("-")[:4] == after.split("-")[:4]
    assert stamp_file(root / "z.png") == list_files(root).by_name()["z.png"].stamp


def test_a_list_is_columns_in_an_order_that_does_not_depend_on_the_file_system(root: Path) -> None:
    for name in ("b-x/1.png", "b!/2.png", "a.png.d/3.png"):
        (root / name).parent.mkdir()
        (root / name).write_bytes(bytes(len(name)))
    found = list_files(root, suffixes={"png"})
    assert found.names == ["a.png", "a.png.d/3.png", "b!/2.png", "b-x/1.png"]
    assert found.sizes == [7, 13, 8, 9]
    assert found.stamps == [stamp_file(root / name) for name in found.names]
    assert list_files(root).names == [
        "a.png",
        "a.png.d/3.png",
        "b/c.JPG",
        "b/深い/顔 箱.webp",
        "b!/2.png",
        "b-x/1.png",
        "notes.txt",
    ]


def test_empty_absent_and_pictureless_folders_are_errors(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError, match="no pictures"):
        posts(tmp_path)
    with pytest.raises(SourceError, match="does not exist"):
        posts(tmp_path / "absent")
    with pytest.raises(SourceError, match="does not exist"):
        posts(tmp_path / "notes.txt")


# ---- metadata --------------------------------------------------------------------------------------------------------


def test_metadata_as_csv(root: Path) -> None:
    lines = [
        "path,rating,score,favourites,tags",
        "a.png,s,12,3,solo 1girl solo",
        'b\\c.JPG,g,"",,',
        "b/深い/顔 箱.webp,x,1.5,n/a,顔",
    ]
    (root / "meta.csv").write_text("\n".join(lines), encoding="utf-8")
    found = posts(root, metadata="meta.csv")
    first, second, third = (found[name] for name in ("a.png", "b/c.JPG", "b/深い/顔 箱.webp"))
    assert (first["rating"], first["score"], first["favourites"], first["tags"]) == (
        "sensitive",
        12,
        3,
        ["1girl", "solo"],
    )
    assert (second["rating"], second["score"], second["tags"]) == ("general", None, [])
    assert (third["rating"], third["favourites"], third["tags"]) == ("unknown", None, ["顔"])


def test_metadata_as_parquet_with_tags_as_text_or_list(root: Path) -> None:
    frame = pd.DataFrame({"path": ["a.png"], "rating": ["explicit"], "tags": [["solo", "1girl"]]})
    frame.to_parquet(root / "meta.parquet")
    post = posts(root, metadata="meta.parquet")["a.png"]
    assert (post["rating"], post["score"], post["tags"]) == ("explicit", None, ["1girl", "solo"])
    frame.assign(tags="solo 1girl").to_parquet(root / "meta.parquet")
    assert posts(root, metadata="meta.parquet")["a.png"]["tags"] == ["1girl", "solo"]


@pytest.mark.parametrize("score", ["unknown", "1e99", "inf", str(2**40), "--"])
def test_a_strange_score_is_no_score_and_no_crash(root: Path, score: str) -> None:
    (root / "meta.csv").write_text(f"path,score\na.png,{score}\n")
    assert posts(root, metadata="meta.csv")["a.png"]["score"] is None


@pytest.mark.parametrize("spelled", ["./a.png", ".//a.png", "b/../a.png", ".\\\\a.png"])
def test_a_path_may_be_spelled_otherwise(root: Path, spelled: str) -> None:
    (root / "meta.csv").write_text(f"path,rating\n{spelled},explicit\n")
    found = posts(root, metadata="meta.csv")
    assert found["a.png"]["rating"] == "explicit"
    assert not any(post["problem"] for post in found.values())


@pytest.mark.parametrize("head", ["path,Rating", "path, rating", "path,RATING ", "Path,rating", "path,rating,rating"])
def test_a_column_that_is_nearly_a_known_one_is_named(root: Path, head: str) -> None:
    (root / "meta.csv").write_text(f"{head}\na.png,e,e\n"[: len(head) + 9])
    with pytest.raises(SourceError, match=r"(?i)rating|path") as caught:
        posts(root, metadata="meta.csv")
    wrong = [name for name in head.split(",") if name not in ("path", "rating")] or ["rating.1"]
    assert all(repr(name) in str(caught.value) for name in wrong)


def test_a_table_with_a_column_twice_is_refused(root: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a.png"]), pa.array(["g"]), pa.array(["e"])], ["path", "rating", " Rating"])
    pq.write_table(table, root / "meta.parquet")
    with pytest.raises(SourceError, match=r"' Rating'"):
        posts(root, metadata="meta.parquet")


@pytest.mark.parametrize(
    ("ratings", "strictest"),
    [("ge", "explicit"), ("eg", "explicit"), ("gs", "sensitive"), ("gx", "unknown"), ("g,", "unknown")],
)
def test_the_strictest_rating_of_all_rows_of_a_path_counts(root: Path, ratings: str, strictest: str) -> None:
    first, second = ratings[0], ratings[1].strip(",")
    (root / "meta.csv").write_text(f"path,rating,score\na.png,{first},1\nb/c.JPG,g,2\n./a.png,{second},3\n")
    found = posts(root, metadata="meta.csv")
    assert (found["a.png"]["rating"], found["a.png"]["score"], found["a.png"]["problem"]) == (strictest, 1, None)
    assert found["b/c.JPG"]["rating"] == "general"
    told = found["meta.csv: row 3 repeats a.png"]
    assert told["problem"] == Problem.DUPLICATE_ID
    assert "the strictest rating of all rows counts" in told["problem_detail"]


def test_pictures_without_a_row_in_a_table_without_ratings_are_unrated(root: Path) -> None:
    (root / "meta.csv").write_text("path,score\na.png,1\n")
    assert {post["rating"] for post in posts(root, metadata="meta.csv").values()} == {"unrated"}


def test_a_table_that_rates_none_of_the_pictures_leaves_all_unknown(root: Path) -> None:
    (root / "meta.csv").write_text("path,rating\nelsewhere/a.png,e\n")
    found = posts(root, metadata="meta.csv")
    assert {post["rating"] for post in found.values() if not post["problem"]} == {"unknown"}


def test_pictures_without_a_row_are_unknown_and_rows_without_a_picture_are_told(root: Path) -> None:
    (root / "meta.csv").write_text("path,rating\na.png,g\nabsent.png,g\n../secret.png,g\n/etc/passwd,g\nnotes.txt,g\n")
    found = posts(root, metadata="meta.csv")
    assert found["b/c.JPG"]["rating"] == "unknown"
    problems = {name: post["problem"] for name, post in found.items() if post["problem"]}
    assert problems == {
        "absent.png": Problem.MISSING_FILE,
        "notes.txt": Problem.MISSING_FILE,
        "../secret.png": Problem.UNSAFE_PATH,
        "/etc/passwd": Problem.UNSAFE_PATH,
    }
    assert all(found[name]["source_path"] is None for name in problems)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b'path,x\n"a.png', b"name\na.png\n", b"a,b\n1,2,3\n4\n5,6,7,8"]
)
def test_unusable_metadata_is_one_clear_error(root: Path, content: bytes) -> None:
    (root / "meta.csv").write_bytes(content)
    with pytest.raises(SourceError, match=r"meta\.csv"):
        posts(root, metadata="meta.csv")
    (root / "meta.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"meta\.parquet"):
        posts(root, metadata="meta.parquet")


def test_a_row_without_a_path_is_told_and_stops_nothing(root: Path) -> None:
    (root / "meta.csv").write_text("path,rating\na.png,g\n,g\n")
    pd.DataFrame({"path": ["a.png", None], "rating": ["g", "g"]}).to_parquet(root / "meta.parquet")
    for name in ("meta.csv", "meta.parquet"):
        found = posts(root, metadata=name)
        assert found["a.png"]["rating"] == "general"
        assert found[f"{name}: row 2 has no path"]["problem"] == Problem.MISSING_FILE


def test_the_first_of_several_rows_for_a_picture_counts(root: Path) -> None:
    (root / "meta.csv").write_text("path,score\na.png,1\nb\\c.JPG,5\na.png,2\nb/c.JPG,6\n")
    found = posts(root, metadata="meta.csv")
    assert (found["a.png"]["score"], found["b/c.JPG"]["score"]) == (1, 5)


@pytest.mark.parametrize("name", ["absent.csv", "notes.txt", "b"])
def test_metadata_that_is_no_table_is_named(root: Path, name: str) -> None:
    with pytest.raises(SourceError, match="CSV or Parquet"):
        posts(root, metadata=name)
