"""Crop: with a detector that finds what the test says, so that only the stage itself is judged."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFile

from datasets.cache import INPUT
from datasets.digests import digest_bytes, digest_file, digest_pixels
from datasets.pictures import decode_picture
from datasets.schema import MANIFEST
from datasets.store import Store
from datasets.thumbnails import ThumbnailFolder, encode_thumbnail
from models.faces.detector import Face, Landmark, in_reading_order, share_inside
from models.faces.marks import INSIDE, mark_faces
from models.faces.onnx import name_runtime
from models.hashing import hash_picture
from models.weights import WeightError
from tasks import crop, detection
from tasks.build import BuildResult
from tasks.crop import CropParams, crop_blobs
from tasks.stage import Shard

Build = Callable[..., BuildResult]
EYE = Landmark("left_eye", 130.0, 60.0)
FACES = [
    Face(120, 40, 50, 50, 0.9, "fake", (EYE,)),
    Face(10, 120, 60, 60, 0.4, "fake"),
    Face(20, 20, 30, 30, 0.8, "fake"),
]


class FakeDetector:
    """Finds the given faces in every picture wider than high, nothing in others."""

    name = "fake"
    weights = ()

    def detect(self, rgb: np.ndarray) -> list[Face]:
        return in_reading_order(FACES) if rgb.shape[1] > rgb.shape[0] else []


@pytest.fixture
def source(
    tmp_path: Path, draw: Callable[..., np.ndarray], png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr(detection, "load_detector", lambda *arguments: FakeDetector())
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(draw(0, 240, 200)))
    (folder / "none.png").write_bytes(png(draw(1, 100, 200)))
    return folder


def rows_of(result: BuildResult) -> dict[str, dict[str, Any]]:
    rows = [*result.version.manifest().to_pylist(), *result.version.ledger().to_pylist()]
    return {row["crop_id"] or row["post_id"]: row for row in rows}


FACE = {
    "crop.method": "face",
    "crop.min_face": 1,
    "crop.min_size": 1,
    "clean.min_blur": 0,
    "clean.min_tint_residual": 0,
    "dedup.near": False,  # nothing but this stage drops crops
}


def test_crops_are_numbered_in_reading_order_and_cut_where_they_say(source: Path, build: Build, store: Store) -> None:
    rows = rows_of(build(**FACE))
    assert [rows[f"a.png#{k}"]["face_x"] for k in range(3)] == [20, 120, 10]
    picture = decode_picture((source / "a.png").read_bytes()).rgb
    for k in range(3):
        row = rows[f"a.png#{k}"]
        x, y, w, h = (row[f"box_{name}"] for name in "xywh")
        pixels = decode_picture(store.blobs.path(row["blob"]).read_bytes()).rgb
        assert np.array_equal(pixels, picture[y : y + h, x : x + w])
        assert (row["width"], row["height"], row["pixel_digest"]) == (w, h, digest_pixels(pixels))
    assert rows["a.png#1"]["landmarks"] == [{"name": "left_eye", "x": 130.0, "y": 60.0}]
    assert (rows["a.png#1"]["detector"], rows["a.png#1"]["detector_score"]) == ("fake", 0.9)


def test_a_picture_without_a_face_is_one_row_of_the_ledger(source: Path, build: Build) -> None:
    result = build(**FACE)
    row = rows_of(result)["none.png"]
    assert (row["stage"], row["reason"], row["item_id"], row["crop_id"]) == ("crop", "no_face", "none.png", None)
    assert result.counts["crop"] == {"inputs": 2, "in": 4, "kept": 3, "dropped": {"no_face": 1}}


@pytest.mark.parametrize(
    ("changes", "dropped"),
    [
        ({"crop.min_face": 50}, {"a.png#0": "face_too_small"}),
        ({"crop.min_score": 0.5}, {"a.png#2": "unsure_face"}),
        ({"crop.min_size": 120}, {"a.png#0": "too_small", "a.png#1": "too_small"}),
        ({"crop.max_faces": 1}, {}),
    ],
)
def test_thresholds_without_opening_anything(
    source: Path, build: Build, changes: dict[str, Any], dropped: dict[str, str]
) -> None:
    build(**FACE)
    result = build(**{**FACE, **changes})
    assert set(result.opened.values()) == {0}
    found = rows_of(result)
    assert {name: row["reason"] for name, row in found.items() if row.get("reason") not in (None, "no_face")} == dropped


def test_files_of_equal_bytes_are_cut_once_and_listed_each(source: Path, build: Build) -> None:
    (source / "twin.png").write_bytes((source / "a.png").read_bytes())
    result = build(**FACE)
    assert result.opened["crop"] == 2
    assert {f"{name}#{k}" for name in ("a.png", "twin.png") for k in range(3)} <= set(rows_of(result))
    assert result.counts["dedup"]["dropped"] == {"exact_copy": 3}


def test_whole_takes_the_picture_as_it_is_and_needs_no_detector(
    source: Path, build: Build, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "load_detector", lambda *arguments: pytest.fail("a detector was loaded"))
    row = rows_of(build())["a.png#0"]
    assert [row[f"box_{name}"] for name in "xywh"] == [0, 0, 240, 200]
    pixels = decode_picture(store.blobs.path(row["blob"]).read_bytes()).rgb
    assert np.array_equal(pixels, decode_picture((source / "a.png").read_bytes()).rgb)
    assert (row["detector"], row["face_x"]) == (None, None)


def test_edges_are_mirrored_where_the_recipe_asks(source: Path, build: Build) -> None:
    tall = {"crop.up": 3.0, "crop.down": 3.0, "crop.side": 3.0}
    shrunk, reflected = (rows_of(build(**{**FACE, **tall, "crop.edge": edge})) for edge in ("shrink", "reflect"))
    assert shrunk["a.png#1"]["box_w"] == 200
    assert reflected["a.png#1"]["box_w"] == 350
    assert reflected["a.png#1"]["box_x"] < 0 or reflected["a.png#1"]["box_y"] < 0


def shard(store: Store, source: Path, names: list[str]) -> Shard:
    rows = [{INPUT: digest_file(source / name), "source_path": name} for name in names]
    return Shard(pa.Table.from_pylist(rows), store, source)


def thumbnail_names(store: Store) -> set[str]:
    return {path.name.removesuffix(".jpg") for path in store.thumbnails.folder.rglob("*.jpg")}


def test_every_crop_has_a_thumbnail_and_so_has_a_picture_that_gave_none(source: Path, store: Store) -> None:
    (source / "cut.png").write_bytes((source / "a.png").read_bytes()[:999])
    facts = crop.measure(shard(store, source, ["a.png", "none.png", "cut.png"]), CropParams().for_measure()).table
    crops = [entry for entries in facts["crops"].to_pylist() for entry in entries or []]
    assert len(crops) == 3
    assert thumbnail_names(store) == {entry["pixel_digest"] for entry in crops} | {digest_file(source / "none.png")}
    for entry in crops:
        blob = decode_picture(store.blobs.path(entry["crop_blob"]).read_bytes()).rgb
        path = store.thumbnails.path(entry["pixel_digest"])
        assert path is not None
        assert path.read_bytes() == encode_thumbnail(blob)


def test_a_stricter_build_opens_thumbnails_and_nothing_else(
    source: Path, build: Build, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even the pictures of its card."""
    build(**FACE)
    opened: list[Any] = []
    original = Image.open

    def note(source: Any, *arguments: Any, **named: Any) -> Image.Image:
        opened.append(source)
        return original(source, *arguments, **named)

    monkeypatch.setattr(Image, "open", note)
    result = build(**{**FACE, "crop.min_face": 50})
    assert (result.published, set(result.opened.values())) == (True, {0})
    digests = {row["pixel_digest"] or digest_file(source / "none.png") for row in rows_of(result).values()}
    assert {Path(path) for path in opened} == {store.thumbnails.path(digest) for digest in digests}


def test_thumbnails_may_be_lost_without_any_picture_being_measured_again(
    source: Path, build: Build, store: Store
) -> None:
    build(**FACE)
    names = thumbnail_names(store)
    shutil.rmtree(store.thumbnails.folder)
    result = build(**{**FACE, "crop.min_face": 50})
    assert (result.published, set(result.opened.values())) == (True, {0})
    assert thumbnail_names(store) == names  # the card has made them anew


def test_a_full_disk_is_no_reason_to_go_on_without_a_thumbnail(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ThumbnailFolder, "put", fail)
    for name in ("a.png", "none.png"):
        with pytest.raises(OSError, match="No space left"):
            crop.measure(shard(store, source, [name]), CropParams().for_measure())


def test_broken_files_are_facts_and_vanished_files_are_not(source: Path, store: Store) -> None:
    (source / "cut.png").write_bytes((source / "a.png").read_bytes()[:999])
    (source / "gone.png").write_bytes(b"x")
    items = shard(store, source, ["a.png", "cut.png", "gone.png"])
    (source / "gone.png").unlink()
    facts = crop.measure(items, CropParams(method="whole").for_measure())
    assert facts.table["defect"].to_pylist() == [None, "truncated"]
    assert facts.opened == 2
    found = crop.list_crops(
        items.items.append_column("post_id", pa.array(["a", "cut", "gone"])).append_column(
            "file_digest", items.items[INPUT]
        ),
        facts.table,
    )
    verdicts = crop.decide(found, CropParams(method="whole"))
    reasons = dict(zip(found["post_id"].to_pylist(), verdicts["reason"].to_pylist(), strict=True))
    assert reasons == {"a": None, "cut": "truncated", "gone": "unreadable_file"}


def test_a_missing_blob_of_any_crop_makes_its_picture_unmeasured(source: Path, build: Build, store: Store) -> None:
    rows = rows_of(build(**FACE))
    store.blobs.path(rows["a.png#1"]["blob"]).unlink()
    again = build(**FACE)
    assert (again.published, again.opened["crop"]) == (False, 1)
    assert store.blobs.path(rows["a.png#1"]["blob"]).exists()


def test_crop_blobs_of_a_table_in_pieces(source: Path, store: Store) -> None:
    (source / "empty.png").write_bytes(b"")
    names = ["empty.png", "a.png", "none.png"]
    facts = crop.measure(shard(store, source, names), CropParams().for_measure()).table
    pieces = pa.concat_tables([facts.slice(0, 1), facts.slice(1, 1), facts.slice(2, 1)])
    for table in (facts, pieces, facts.slice(1)):
        lengths = [len(blobs) for blobs in crop_blobs(table).to_pylist()]
        assert lengths == [0, 3, 0][3 - len(table) :]
    assert crop_blobs(facts)[1].as_py() == [entry["crop_blob"] for entry in facts["crops"][1].as_py()]


# ---- marks -----------------------------------------------------------------------------------------------------------

CROWD = [
    Face(0, 10, 60, 60, 0.9, "fake"),  # at the left border
    Face(90, 60, 80, 80, 0.9, "fake"),
    Face(115, 80, 30, 30, 0.9, "fake"),  # inside the one before
    Face(172, 70, 40, 40, 0.9, "fake"),
]


@pytest.fixture
def crowd(source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(FakeDetector, "detect", lambda self, rgb: CROWD if rgb.shape[1] > rgb.shape[0] else [])
    return source


def test_faces_are_marked_and_counted(crowd: Path, store: Store) -> None:
    facts = crop.measure(shard(store, crowd, ["a.png"]), CropParams().for_measure()).table
    crops = facts["crops"][0].as_py()
    assert [entry["face_cut"] for entry in crops] == [True, False, False, False]
    assert [entry["face_inside"] for entry in crops] == [False, False, True, False]
    for entry in crops:
        centres = [(face.x + face.w / 2, face.y + face.h / 2) for face in CROWD]
        x, y, side = entry["box_x"], entry["box_y"], entry["box_w"]
        inside = [x <= cx < x + side and y <= cy < y + side for cx, cy in centres]
        assert entry["faces_in_crop"] == sum(inside)
    assert [entry["faces_in_crop"] for entry in crops] == [1, 3, 2, 1]
    assert {entry["roll"] for entry in crops} == {None}


@pytest.mark.parametrize(
    ("changes", "dropped"),
    [
        ({}, {"a.png#2": "face_inside_another"}),
        ({"crop.drop_inside": False}, {}),
        ({"crop.drop_cut": True, "crop.drop_inside": False}, {"a.png#0": "face_cut_off"}),
        ({"crop.max_faces": 2, "crop.drop_inside": False}, {"a.png#1": "several_faces"}),
        ({"crop.max_faces": 1}, {"a.png#1": "several_faces", "a.png#2": "several_faces"}),
        (
            {"crop.min_size": 100, "crop.drop_cut": True},
            {"a.png#0": "face_cut_off", "a.png#2": "too_small", "a.png#3": "too_small"},
        ),
    ],
)
def test_marks_drop_what_the_recipe_does_not_want(
    crowd: Path, build: Build, changes: dict[str, Any], dropped: dict[str, str]
) -> None:
    build(**FACE)
    result = build(**{**FACE, **changes})
    assert result.opened["crop"] == 0
    rows = rows_of(result)
    assert {name: row["reason"] for name, row in rows.items() if row.get("reason") not in (None, "no_face")} == dropped
    if dropped == {"a.png#1": "several_faces"}:
        row = rows["a.png#1"]
        assert (row["measurement"], row["value"], row["threshold"]) == ("faces_in_crop", 3, 2)


def judge(posts: dict[str, list[tuple[int, int, int, int, float]]], **settings: Any) -> list[str | None]:
    """Why the faces (x, y, w, h, score) of some posts are dropped, in an order that mixes the posts."""
    rows = []
    for post, boxes in posts.items():
        faces = [Face(*box, "fake") for box in boxes]
        for k, (face, marks) in enumerate(zip(faces, mark_faces(faces, (2000, 2000)), strict=True)):
            row: dict[str, Any] = {"post_id": post, "crop_id": f"{post}#{k}", "true_format": "PNG", "faces_in_crop": 1}
            row |= {
                "face_x": face.x,
                "face_y": face.y,
                "face_w": face.w,
                "face_h": face.h,
                "detector_score": face.score,
            }
            rows.append({**row, "face_cut": marks.cut, "face_inside": marks.inside, "box_w": 200, "box_h": 200})
        rows.append({"post_id": f"{post} without", "true_format": "PNG"})
    schema = pa.schema([*(MANIFEST.field(name).with_nullable(True) for name in JUDGED), *TEXTS])
    mixed = np.random.default_rng(3).permutation(len(rows))
    table = pa.Table.from_pylist([rows[k] for k in mixed], schema=schema)
    reasons = crop.decide(table, CropParams(method="face", **settings))["reason"].take(pa.array(np.argsort(mixed)))
    return [reason for row, reason in zip(rows, reasons.to_pylist(), strict=True) if "crop_id" in row]


JUDGED = (
    *("post_id", "crop_id", "true_format", "face_x", "face_y", "face_w", "face_h", "face_cut", "face_inside"),
    *("faces_in_crop", "detector_score", "box_w", "box_h"),
)
TEXTS = (("defect", pa.string()), ("defect_detail", pa.string()))
WRONG = (100, 100, 400, 400, 0.52)
SOUND = [(120, 120, 100, 100, 0.95), (350, 350, 100, 100, 0.95)]


def test_a_find_that_falls_itself_takes_no_face_inside_it_along() -> None:
    posts = {"a": [WRONG, *SOUND], "b": [(100, 100, 400, 400, 0.9), *SOUND], "c": SOUND}
    inside = "face_inside_another"
    assert judge(posts, min_score=0.6) == ["unsure_face", None, None, None, inside, inside, None, None]
    assert judge(posts) == [None, inside, inside, None, inside, inside, None, None]
    assert judge(posts, drop_inside=False) == [None] * 8
    assert judge({"a": [(2, 100, 400, 400, 0.9), *SOUND]}, drop_cut=True) == ["face_cut_off", None, None]


def test_of_faces_one_in_another_one_that_falls_takes_none_with_it() -> None:
    outer, middle, inner = (100, 100, 400, 400, 0.9), (100, 400, 130, 130, 0.9), (120, 450, 60, 78, 0.9)
    faces = [Face(*box, "fake") for box in (outer, middle, inner)]
    assert share_inside(faces[1], faces[0]) >= INSIDE > share_inside(faces[2], faces[0])
    assert share_inside(faces[2], faces[1]) == 1
    inside = "face_inside_another"
    assert judge({"a": [outer, middle, inner], "b": [middle, inner]}) == [None, inside, None, None, inside]


# ---- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "top"), [("centre", 50), ("top", 0)])
def test_square_takes_the_largest_square_and_needs_no_detector(
    source: Path, build: Build, store: Store, monkeypatch: pytest.MonkeyPatch, at: str, top: int
) -> None:
    monkeypatch.setattr(detection, "load_detector", lambda *arguments: pytest.fail("a detector was loaded"))
    rows = rows_of(build(**{**FACE, "crop.method": "square", "crop.square_at": at}))
    assert [rows["a.png#0"][f"box_{name}"] for name in "xywh"] == [20, 0, 200, 200]
    assert [rows["none.png#0"][f"box_{name}"] for name in "xywh"] == [0, top, 100, 100]
    picture = decode_picture((source / "none.png").read_bytes()).rgb
    pixels = decode_picture(store.blobs.path(rows["none.png#0"]["blob"]).read_bytes()).rgb
    assert np.array_equal(pixels, picture[top : top + 100])


def test_align_turns_faces_with_eyes_and_leaves_others(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tilted = (Landmark("left_eye", 150.0, 80.0), Landmark("right_eye", 110.0, 60.0))
    level = (Landmark("left_eye", 50.0, 50.0), Landmark("right_eye", 30.0, 50.0))
    faces = [
        Face(100, 50, 60, 60, 0.9, "fake", tilted),
        Face(20, 30, 40, 40, 0.9, "fake", level),
        Face(20, 120, 40, 40, 0.9, "fake"),
    ]
    monkeypatch.setattr(FakeDetector, "detect", lambda self, rgb: faces)
    names = shard(store, source, ["a.png"])
    aligned = crop.measure(names, CropParams(method="align").for_measure()).table["crops"][0].as_py()
    upright = crop.measure(names, CropParams(method="face").for_measure()).table["crops"][0].as_py()
    assert aligned[0]["roll"] == pytest.approx(26.565, abs=1e-3)
    assert (aligned[1]["roll"], aligned[2]["roll"]) == (0.0, None)
    assert aligned[0]["pixel_digest"] != upright[0]["pixel_digest"]
    assert [entry["pixel_digest"] for entry in aligned[1:]] == [entry["pixel_digest"] for entry in upright[1:]]
    assert [entry["box_w"] for entry in aligned] == [entry["box_w"] for entry in upright]
    assert (aligned[0]["face_x"], aligned[0]["landmarks"][0]["x"]) == (100, 150.0)  # in the picture as it is


def test_pad_lays_a_colour_beyond_the_edge(source: Path, build: Build, store: Store) -> None:
    far = {"crop.up": 3.0, "crop.down": 3.0, "crop.side": 3.0, "crop.edge": "pad", "crop.edge_colour": "#0a0b0c"}
    row = rows_of(build(**{**FACE, **far}))["a.png#1"]
    pixels = decode_picture(store.blobs.path(row["blob"]).read_bytes()).rgb
    assert pixels.shape == (350, 350, 3)
    assert (pixels[0] == (10, 11, 12)).all() and (pixels[:, -1] == (10, 11, 12)).all()
    picture = decode_picture((source / "a.png").read_bytes()).rgb
    left, top = -row["box_x"], -row["box_y"]
    assert np.array_equal(pixels[top : top + 200, left : left + 240], picture)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"detector": "onnx"}, "detector_file"),
        ({"detector": "lbp", "detector_file": "x.onnx"}, "lbp uses no network"),
        ({"detector": "animeface", "detector_file": "x.onnx"}, "animeface uses no network"),
        ({"method": "align", "detector": "lbp"}, "eyes"),
        ({"method": "align", "detector": "onnx", "detector_file": "x.onnx"}, "eyes"),
    ],
)
def test_settings_that_cannot_work_together_are_refused_at_once(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        CropParams.model_validate(values)
    CropParams.model_validate({**values, "method": "whole"})  # where nothing is searched they do not matter


def test_a_network_is_known_by_its_bytes(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    params = CropParams(detector="onnx", detector_file=str(path))
    with pytest.raises(WeightError, match="detector_file"):
        crop.name_weights(params, store)
    path.write_bytes(b"one")
    first = crop.name_weights(params, store)
    path.write_bytes(b"two")
    assert (
        crop.name_weights(params, store)
        != first
        == {
            "detector": digest_bytes(b"one"),
            "detector_runtime": name_runtime(),
        }
    )


@pytest.mark.parametrize("detector", ["union", "agreement"])
def test_a_network_beside_the_other_detectors_is_part_of_what_they_have_learned(
    detector: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"one")
    alone = crop.name_weights(CropParams(detector=detector), store)
    assert set(alone) == {"lbpcascade-animeface", "animeface"}
    params = CropParams(detector=detector, detector_file=str(path))
    used = crop.name_weights(params, store)
    assert used == {**alone, "detector": digest_bytes(b"one"), "detector_runtime": name_runtime()}
    monkeypatch.setattr("models.faces.onnx.find_spec", lambda name: None)
    assert crop.name_weights(params, store) == {**used, "detector_runtime": f"opencv {cv2.__version__}"}


@pytest.mark.parametrize("detector", ["onnx", "union", "agreement"])
def test_a_network_is_handed_to_the_detector(
    detector: str, source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(*arguments: Any, **named: Any) -> FakeDetector:
        asked.append((arguments[0], named))
        return FakeDetector()

    monkeypatch.setattr(detection, "load_detector", load)
    params = CropParams(detector=detector, detector_file="nets/face.onnx")
    crop.measure(shard(store, source, ["a.png"]), params.for_measure())
    assert asked == [(detector, {"model": Path("nets/face.onnx")})]


# ---- large pictures --------------------------------------------------------------------------------------------------


@pytest.fixture
def large(source: Path, draw: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Two JPEGs of 1200 pixels, one with a face at (400, 200); the sizes at which pictures are decoded."""
    seen: list[tuple[int, int]] = []

    def detect(self: FakeDetector, rgb: np.ndarray) -> list[Face]:
        return [Face(100, 50, 75, 75, 0.9, "fake", (EYE,))] if rgb.shape[1] > rgb.shape[0] else []

    def note(self: ImageFile.ImageFile) -> Any:
        if self.tile:
            seen.append(self.size)
        return original(self)

    for name, size in (("face.jpg", (1200, 1000)), ("none.jpg", (1000, 1200))):
        Image.fromarray(draw(0, *size)).save(source / name, quality=92, icc_profile=None)
    original = ImageFile.ImageFile.load
    monkeypatch.setattr(FakeDetector, "detect", detect)
    monkeypatch.setattr(ImageFile.ImageFile, "load", note)
    return seen


def test_full_colour_is_decoded_only_of_pictures_with_a_face_and_once(
    source: Path, store: Store, large: list[tuple[int, int]]
) -> None:
    params = CropParams(search_face=208).for_measure()
    facts = crop.measure(shard(store, source, ["face.jpg", "none.jpg"]), params)
    face = facts.table["crops"][0].as_py()[0]
    assert large == [(300, 250), (1200, face["box_y"] + face["box_h"]), (250, 300)]
    assert facts.opened == 2
    assert [face[f"face_{name}"] for name in "xywh"] == [400, 200, 300, 300]
    assert face["landmarks"] == [{"name": "left_eye", "x": 520.0, "y": 240.0}]
    x, y, w, h = (face[f"box_{name}"] for name in "xywh")
    whole = decode_picture((source / "face.jpg").read_bytes()).rgb
    assert face["pixel_digest"] == digest_pixels(whole[y : y + h, x : x + w])
    assert thumbnail_names(store) == {face["pixel_digest"], digest_file(source / "none.jpg")}


def test_facts_of_the_file(source: Path, store: Store, large: list[tuple[int, int]]) -> None:
    (source / "cut.jpg").write_bytes((source / "face.jpg").read_bytes()[:20_000])
    (source / "moving.gif").write_bytes(b"")
    frames = [Image.new("L", (9, 9), k) for k in (0, 99)]
    frames[0].save(source / "moving.gif", save_all=True, append_images=frames[1:], duration=50)
    names = ["face.jpg", "a.png", "cut.jpg", "moving.gif"]
    params = CropParams(search_face=208).for_measure()
    rows = crop.measure(shard(store, source, names), params).table.drop_columns(["crops"]).to_pylist()
    assert [row["true_format"] for row in rows] == ["JPEG", "PNG", None, "GIF"]
    assert [row["defect"] for row in rows] == [None, None, "truncated", "animated"]
    assert [(row["mode"], row["bits"], row["frames"]) for row in rows[:2]] == [("RGB", 8, 1)] * 2
    assert rows[3]["frames"] == 2
    assert rows[0]["jpeg_quality"] == pytest.approx(92, abs=1)
    assert rows[1]["jpeg_quality"] is None
    assert (rows[0]["alpha_share"], rows[0]["oriented"], rows[0]["icc"]) == (0.0, False, False)


def test_the_hash_of_a_picture_that_was_decoded_reduced_is_near_that_of_the_whole(
    source: Path, store: Store, large: list[tuple[int, int]]
) -> None:
    for search_face in (52, 104, 208, 416):
        params = CropParams(search_face=search_face).for_measure()
        row = crop.measure(shard(store, source, ["face.jpg"]), params).table.to_pylist()[0]
        hashes = hash_picture(decode_picture((source / "face.jpg").read_bytes()).rgb)
        assert hashes is not None
        assert (row["source_hash"] ^ hashes.bits).bit_count() <= 2
        assert (row["source_hash_mirrored"] ^ hashes.mirrored).bit_count() <= 2
        for column, whole in (("", hashes.bits256), ("_mirrored", hashes.mirrored256)):
            found = int.from_bytes(row[f"source_hash256{column}"], "big")
            assert (found ^ int.from_bytes(whole, "big")).bit_count() <= 8


def test_a_uniform_picture_has_no_hash(source: Path, store: Store) -> None:
    Image.new("RGB", (90, 80), (200, 100, 50)).save(source / "plain.png")
    row = crop.measure(shard(store, source, ["plain.png"]), CropParams(method="whole").for_measure()).table.to_pylist()[
        0
    ]
    assert (row["defect"], row["source_hash"], row["source_hash256_mirrored"]) == (None, None, None)
