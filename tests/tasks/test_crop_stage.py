"""Crop: with a detector that finds what the test says, so that only the stage itself is judged."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from datasets.cache import INPUT
from datasets.digests import digest_file, digest_pixels
from datasets.pictures import decode_picture
from datasets.store import Store
from datasets.thumbnails import ThumbnailFolder, encode_thumbnail
from models.faces.detector import Face, Landmark, in_reading_order
from tasks import crop
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
    monkeypatch.setattr(crop, "load_detector", lambda *arguments: FakeDetector())
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(draw(0, 240, 200)))
    (folder / "none.png").write_bytes(png(draw(1, 100, 200)))
    return folder


def rows_of(result: BuildResult) -> dict[str, dict[str, Any]]:
    rows = [*result.version.manifest().to_pylist(), *result.version.ledger().to_pylist()]
    return {row["crop_id"] or row["post_id"]: row for row in rows}


FACE = {"crop.method": "face", "crop.min_face": 1, "crop.min_size": 1, "clean.min_blur": 0, "dedup.near": False}


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
    monkeypatch.setattr(crop, "load_detector", lambda *arguments: pytest.fail("a detector was loaded"))
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
