"""The drawn board as a whole: layout, determinism, truth against the files."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from datasets.booru.board import BoardSummary, draw_board, plan_board
from datasets.booru.defects import BY_NAME, KINDS
from datasets.booru.metadata import RatingVintage, Schema


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    draw_board(tmp_path / "a", 12, seed=5, workers=1)
    draw_board(tmp_path / "b", 12, seed=5, workers=2)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    draw_board(tmp_path / "c", 3, seed=6, workers=1)
    assert not digests(tmp_path / "a").items() & digests(tmp_path / "c").items()


def test_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="not empty"):
        draw_board(tmp_path, 2, seed=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("posts", "least"), [(300, 2), (600, 5)])
def test_kinds_are_dealt_evenly(posts: int, least: int) -> None:
    counts = Counter(order.kind for order in plan_board(posts, seed=3))
    planted = [counts[kind.name] for kind in KINDS]
    assert min(planted) >= least
    assert max(planted) - min(planted) <= 1
    assert counts["plain"] == posts - sum(planted) == round(0.7 * posts)


def test_ids_ascend_and_originals_are_plain() -> None:
    orders = plan_board(400, seed=9)
    ids = [order.post_id for order in orders]
    assert ids == sorted(set(ids))
    for order in orders:
        assert (order.original is not None) == (BY_NAME[order.kind].subject == "copy")
        if order.original is not None:
            assert orders[order.original].kind == "plain"
            assert orders[order.original].post_id == order.original_id


def test_every_file_lies_where_danbooru_would_have_it(board: BoardSummary, truth: list[dict]) -> None:
    listed = {row["path"] for row in truth if row["path"]}
    found = {
        p.relative_to(board.path).as_posix() for d in ("original", "private") for p in (board.path / d).rglob("*.*")
    }
    assert listed == found
    for row in truth:
        if row["path"] and row["kind"] != "path_escape":
            top, folder, name = row["path"].split("/")
            assert (top, folder) == ("original", f"{int(row['post_id']) % 1000:04d}")
            assert name.split(".")[0] == row["post_id"]


def test_metadata_is_true_of_the_files(board: BoardSummary, truth: list[dict], rows: dict[str, dict]) -> None:
    for row in truth:
        post = rows.get(row["post_id"])
        if post is None:
            assert row["kind"] in ("orphan_file", "broken_json")
            continue
        assert (post["image_width"], post["image_height"]) == (row["width"], row["height"])
        if row["path"] is not None:
            data = (board.path / row["path"]).read_bytes()
            assert post["file_size"] == len(data)
            assert post.get("md5", hashlib.md5(data).hexdigest()) == hashlib.md5(data).hexdigest()
        people = row["faces"]
        if people and row["kind"] not in ("grey", "rgb_grey", "sepia"):
            tags = post["tag_string_general"].split()
            assert ("solo" in tags) == (len(people) == 1)
            for face in people:
                assert f"{face['eye_colour']}_eyes" in tags


def test_faces_lie_in_the_picture_as_seen(board: BoardSummary, truth: list[dict]) -> None:
    for row in truth:
        kind = BY_NAME[row["kind"]]
        if kind.expected == "keep" or kind.stage in ("clean", "dedup"):
            with Image.open(board.path / row["path"]) as image:
                assert ImageOps.exif_transpose(image).size == (row["width"], row["height"])
            assert row["faces"]
        for face in row["faces"]:
            assert -0.1 * face["w"] <= face["x"] <= row["width"] - 0.9 * face["w"]
            assert -0.1 * face["h"] <= face["y"] <= row["height"] - 0.9 * face["h"]
            assert face["scale"] == pytest.approx(face["w"] / min(row["width"], row["height"]), abs=1e-3)
    plain = [face["w"] for row in truth if row["kind"] == "plain" for face in row["faces"]]
    assert min(plain) >= 90
    assert max(plain) <= 425


def test_old_schema_is_all_strings(tmp_path: Path) -> None:
    draw_board(
        tmp_path / "old", 4, seed=2, schema=Schema.STRINGS_2019, rating_vintage=RatingVintage.BEFORE_2022, workers=1
    )
    (path,) = (tmp_path / "old" / "metadata").iterdir()
    assert path.name == "2018000000000000"
    for line in path.read_text().splitlines():
        post = json.loads(line)
        assert {k for k, v in post.items() if isinstance(v, int) and not isinstance(v, bool)} == set()
        assert post["parent_id"] == post["pixiv_id"] == "0"
        assert all(set(tag) == {"id", "name", "category"} and tag["category"] in "01345" for tag in post["tags"])


def test_since_2022_safe_is_g(tmp_path: Path) -> None:
    draw_board(tmp_path / "new", 3, seed=2, rating_vintage=RatingVintage.SINCE_2022, workers=1)
    lines = (tmp_path / "new" / "metadata" / "posts000000000000.json").read_text().splitlines()
    plain = {
        r["post_id"] for r in pq.read_table(tmp_path / "new" / "truth.parquet").to_pylist() if r["kind"] == "plain"
    }
    assert {json.loads(line)["rating"] for line in lines if str(json.loads(line)["id"]) in plain} == {"g"}
