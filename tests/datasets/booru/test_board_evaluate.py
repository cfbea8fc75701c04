"""Scores on hand-made tables whose answers are known."""

import json

import pyarrow as pa
import pytest

from datasets.booru.board import TRUTH_SCHEMA
from datasets.booru.evaluate import Evaluation, evaluate, overlap

FACE = {"x": 10.0, "y": 10.0, "w": 40.0, "h": 40.0}


def post(
    post_id: str, kind: str = "plain", stage: str | None = None, faces: int = 1, original: str | None = None
) -> dict:
    ids = [f"{original or post_id}/{k}" for k in range(faces)]
    return {
        "post_id": post_id,
        "path": f"original/0001/{post_id}.jpg",
        "kind": kind,
        "expected": "drop" if stage else "keep",
        "expected_stage": stage,
        "original": original,
        "faces": [FACE | {"face_id": name, "x": 10.0 + 100 * k} for k, name in enumerate(ids)],
    }


def crop(post_id: str, k: int = 0, x: float | None = None, augmentation: str | None = None) -> dict:
    left = 10.0 + 100 * k if x is None else x
    face = {"face_x": left, "face_y": 12.0, "face_w": 40.0, "face_h": 40.0}
    box = {"box_x": left - 20, "box_y": 0.0, "box_w": 80.0, "box_h": 80.0}
    return {"crop_id": f"{post_id}#{k}", "post_id": post_id, "augmentation": augmentation, **face, **box}


def score(posts: list[dict], crops: list[dict], dropped: list[tuple[str, str]]) -> Evaluation:
    sides = [f"{kind}_{side}" for kind in ("box", "face") for side in "xywh"]
    texts = [(name, pa.string()) for name in ("crop_id", "post_id", "augmentation")]
    schema = pa.schema([*texts, *((name, pa.float32()) for name in sides)])
    ledger = pa.table(
        {
            "stage": pa.array([stage for stage, _ in dropped], pa.string()),
            "post_id": pa.array([name for _, name in dropped], pa.string()),
        }
    )
    truth = pa.Table.from_pylist(posts, schema=TRUTH_SCHEMA)
    return evaluate(pa.Table.from_pylist(crops, schema=schema), ledger, truth)


def stage(result: Evaluation, name: str) -> dict:
    return next(s for s in result.to_json()["stages"] if s["stage"] == name)


def kind(result: Evaluation, name: str) -> dict:
    return next(k for k in result.to_json()["kinds"] if k["kind"] == name)


def test_overlap() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (20, 0, 10, 10)) == 0.0


def test_stages_kinds_and_the_final_dataset() -> None:
    posts = [post("1"), post("2"), post("3"), post("4", "grey", "clean"), post("5", "grey", "clean")]
    posts += [post("6", "grey", "clean"), post("7", "explicit", "filter"), post("8", "no_face", "crop", faces=0)]
    result = score(
        posts,
        [crop("1"), crop("2"), crop("6")],
        [("clean", "3"), ("clean", "4"), ("crop", "5"), ("filter", "7"), ("crop", "8")],
    )
    clean = stage(result, "clean")
    assert (clean["dropped"], clean["rightly"], clean["precision"]) == (2, 1, 0.5)
    assert (clean["expected"], clean["here"], clean["earlier"], clean["missed"]) == (3, 1, 1, 1)
    assert clean["recall"] == pytest.approx(2 / 3, abs=1e-4)
    assert stage(result, "crop")["precision"] == 1.0  # the grey one was right to go, if early
    assert stage(result, "dedup")["precision"] is None
    assert kind(result, "grey") == {
        "kind": "grey", "posts": 3, "expected": "drop", "as_expected": 2, "rate": 0.6667,
        "dropped_at": {"clean": 1, "crop": 1},
    }  # fmt: skip
    assert kind(result, "plain")["rate"] == 0.6667
    assert (result.final.found, result.final.right, result.final.expected) == (3, 2, 3)


def test_dropped_later_than_expected_is_caught_for_the_kind_but_not_for_the_stage() -> None:
    result = score([post("1"), post("2", "tiny", "crop")], [crop("1")], [("clean", "2")])
    assert stage(result, "crop")["later"] == 1
    assert stage(result, "crop")["recall"] == 0.0
    assert kind(result, "tiny")["rate"] == 1.0


def test_last_stage_counts_when_crops_of_a_post_end_at_several() -> None:
    result = score([post("1"), post("2", "blurred", "clean", faces=2)], [crop("1")], [("clean", "2"), ("crop", "2")])
    assert kind(result, "blurred")["dropped_at"] == {"clean": 1}


def test_files_without_metadata_are_known_by_path_or_unlisted() -> None:
    posts = [post("1"), post("2", "orphan_file", "filter"), post("3", "broken_json", "filter")]
    result = score(posts, [crop("1")], [("filter", "original/0001/2.jpg"), ("filter", "metadata/posts.json:3")])
    assert kind(result, "orphan_file")["dropped_at"] == {"filter": 1}
    assert kind(result, "broken_json")["dropped_at"] == {"unlisted": 1}
    assert stage(result, "filter")["recall"] == 1.0
    caught = score(posts, [crop("1"), crop("original/0001/2.jpg")], [])
    assert kind(caught, "orphan_file")["rate"] == 0.0


@pytest.mark.parametrize("survivor", ["1", "2"])
def test_either_of_a_pair_may_survive(survivor: str) -> None:
    posts = [post("1"), post("2", "byte_copy", "dedup", original="1")]
    result = score(posts, [crop(survivor)], [("dedup", "2" if survivor == "1" else "1")])
    assert kind(result, "byte_copy")["rate"] == 1.0
    assert kind(result, "plain")["rate"] == 1.0
    assert stage(result, "dedup")["recall"] == 1.0
    assert (result.final.precision, result.final.recall) == (1.0, 1.0)


def test_both_of_a_pair_is_one_too_many_and_none_loses_the_original() -> None:
    posts = [post("1"), post("2", "resized_copy", "dedup", original="1")]
    both = score(posts, [crop("1"), crop("2")], [])
    assert kind(both, "resized_copy")["rate"] == 0.0
    assert both.final.precision == 0.5
    none = score(posts, [], [("dedup", "1"), ("dedup", "2")])
    assert kind(none, "plain")["rate"] == 0.0
    assert kind(none, "resized_copy")["rate"] == 1.0
    assert stage(none, "dedup")["precision"] == 0.5


def test_copies_are_judged_face_by_face() -> None:
    posts = [post("1", faces=2), post("2", "reencoded_copy", "dedup", faces=2, original="1")]
    result = score(posts, [crop("1", 0), crop("2", 1)], [("dedup", "1"), ("dedup", "2")])
    assert kind(result, "reencoded_copy")["rate"] == 1.0
    result = score(posts, [crop("1", 0), crop("1", 1), crop("2", 1)], [("dedup", "2")])
    assert kind(result, "reencoded_copy")["rate"] == 0.0


def test_faces_match_one_to_one_and_augmentations_do_not_count() -> None:
    posts = [post("1", faces=2), post("2", "fools_detector", "crop", faces=0)]
    crops = [crop("1", 0), crop("1", 1, x=12.0), crop("1", 2, x=300.0), crop("2"), crop("1", 3, augmentation="mirror")]
    faces = score(posts, crops, []).faces
    assert (faces.found, faces.right, faces.expected) == (4, 1, 2)
    assert (faces.precision, faces.recall) == (0.25, 0.5)


def test_face_recall_counts_posts_without_a_crop_and_crops_out_of_copies() -> None:
    posts = [post("1"), post("2", "byte_copy", "dedup", original="1"), post("3"), post("4", "grey", "clean")]
    for row, skin in zip(posts, ("fair", "fair", "dark", "fair"), strict=True):
        row["faces"][0]["skin"] = skin
    result = score(posts, [crop("2")], [("dedup", "1"), ("crop", "3"), ("clean", "4")])
    assert (result.faces.expected, result.faces.recall) == (2, 0.5)
    recalls = {(a.attribute, a.value): a.recall for a in result.attributes}
    assert recalls == {("skin", "dark"): 0.0, ("skin", "fair"): 1.0}


def test_result_is_plain_data() -> None:
    result = score([post("1"), post("2", "grey", "clean")], [crop("1")], [("clean", "2")])
    assert json.loads(json.dumps(result.to_json())) == result.to_json()
    for rows in result.to_tables().values():
        assert all(not isinstance(value, dict | list | tuple) for row in rows for value in row.values())


def test_another_board_is_refused() -> None:
    with pytest.raises(ValueError, match="another board"):
        score([post("1")], [crop("99")], [])
