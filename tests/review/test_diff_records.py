"""A diff as plain records: what is shown of each item, and which version a decision is about. No FiftyOne here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fake_version import DIFFERING, draw_face, make_diff, make_row
from PIL import Image

from datasets.decisions import Decision
from datasets.diff import DIFF
from datasets.review.comparison import CAPTION, GAP, LARGEST, SMALLEST, draw_comparison, save_comparison
from datasets.review.diff_records import DIFF_FIELDS, DiffInputs, build_diff_records, collect_diff, with_decided_pixels
from datasets.review.records import choose_rows
from datasets.review.tagging import ReviewError
from datasets.schema import LEDGER, MANIFEST, conform
from datasets.store import Store
from datasets.version import Version, publish_version


@pytest.fixture
def diff(tmp_path: Path) -> DiffInputs:
    return make_diff(tmp_path)


def records_of(inputs: DiffInputs, decisions: dict[str, Decision] | None = None) -> dict[str, dict[str, Any]]:
    records = build_diff_records(with_decided_pixels(inputs.table), inputs, decisions or {})
    return {record["item_id"]: record for record in records}


def test_every_difference_is_one_record_by_change_and_cause(diff: DiffInputs) -> None:
    records = records_of(diff)
    assert len(records) == DIFFERING
    assert [(record["change"], record["cause"], item) for item, record in records.items()] == [
        ("added", "new_post", "102#0"),
        ("removed", "decision", "106#0"),
        ("removed", "source_gone", "105#0"),
        ("removed", "threshold", "107#0"),  # 45 is further from the limit than 52
        ("removed", "threshold", "101#0"),
        ("pixels", "setting", "103#0"),
        ("metadata", "source_metadata_changed", "104#0"),
        ("verdict", "new_post", "200"),
        ("verdict", "setting", "201"),
    ]


def test_the_columns_of_the_diff_go_through_and_the_sentence_is_said(diff: DiffInputs) -> None:
    record = records_of(diff)["101#0"]
    row = diff.table.to_pylist()[0]
    same = [field.name for field in DIFF_FIELDS if field.name in DIFF.names]
    assert len(same) >= 15 and {name: record[name] for name in same} == {name: row[name] for name in same}
    assert record["sentence"] == "101#0 removed: blur 52 against clean.min_blur 40 -> 60"
    assert (record["value"], record["threshold_before"], record["threshold_after"]) == (52, 40, 60)


def test_the_published_picture_comes_before_the_crop_of_the_other_version(diff: DiffInputs) -> None:
    records, rows = records_of(diff), {row["item_id"]: row for row in diff.table.to_pylist()}
    shown = {item: record["showing"] for item, record in records.items()}
    assert shown == {
        **dict.fromkeys(("101#0", "102#0", "104#0", "105#0", "106#0", "107#0"), "published"),
        "103#0": "before and after",
        "200": "nothing",
        "201": "source",
    }
    blob = diff.blob_path
    assert records["101#0"]["filepath"] == str(blob(rows["101#0"]["blob_before"]))  # the crop is there, but smaller
    assert records["102#0"]["filepath"] == str(blob(rows["102#0"]["blob_after"]))
    assert records["101#0"]["media_size"] == (96, 96)

    blob(rows["101#0"]["blob_before"]).unlink()  # collected as garbage
    record = records_of(diff)["101#0"]
    assert (record["showing"], record["filepath"]) == ("crop", str(blob(rows["101#0"]["blob_after"])))
    blob(rows["101#0"]["blob_after"]).unlink()
    assert records_of(diff)["101#0"]["showing"] == "nothing"


def test_a_picture_that_a_version_does_not_keep_shows_its_parent(diff: DiffInputs) -> None:
    before, after = (
        replace(diff.before, derived=frozenset({"105#0"})),
        replace(diff.after, derived=frozenset({"104#0"})),
    )
    shown = {item: record["showing"] for item, record in records_of(replace(diff, before=before, after=after)).items()}
    assert (shown["104#0"], shown["105#0"], shown["106#0"]) == ("parent", "parent", "published")


def test_changed_pixels_of_a_parent_are_said_to_be_its(diff: DiffInputs) -> None:
    plain = records_of(diff)["103#0"]["filepath"]
    after = replace(diff.after, derived=frozenset({"103#0"}))
    record = records_of(replace(diff, after=after))["103#0"]
    assert record["showing"] == "before and after"
    with Image.open(plain) as one, Image.open(record["filepath"]) as other:
        said = [np.asarray(picture.convert("L"))[:CAPTION] for picture in (one, other)]
        assert np.array_equal(said[0][:, :SMALLEST], said[1][:, :SMALLEST])
        assert not np.array_equal(said[0][:, SMALLEST:], said[1][:, SMALLEST:])


def test_changed_pixels_are_shown_side_by_side(diff: DiffInputs) -> None:
    record = records_of(diff)["103#0"]
    path = Path(record["filepath"])
    assert path.parent == diff.comparison_folder
    with Image.open(path) as image:
        assert image.size == record["media_size"] == (2 * SMALLEST + GAP, SMALLEST + CAPTION)
    stamp = path.stat().st_mtime_ns
    assert records_of(diff)["103#0"]["filepath"] == str(path) and path.stat().st_mtime_ns == stamp  # not drawn anew


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_one_of_two_pictures_is_shown_when_the_other_is_lost(diff: DiffInputs, damage: str) -> None:
    row = next(row for row in diff.table.to_pylist() if row["item_id"] == "103#0")
    lost = diff.blob_path(row["blob_before"])
    whole = lost.read_bytes()
    lost.unlink()
    if damage == "torn":
        lost.write_bytes(whole[: len(whole) // 2])
    record = records_of(diff)["103#0"]
    assert (record["showing"], record["filepath"]) == ("published", str(diff.blob_path(row["blob_after"])))


def recut(inputs: DiffInputs, item: str) -> tuple[DiffInputs, dict[str, Any]]:
    """The diff with other pixels of one removed item in the later version, and that row."""
    rows = inputs.table.to_pylist()
    row = next(row for row in rows if row["item_id"] == item)
    row["pixel_digest_after"] = "d" * 64
    return replace(inputs, table=pa.Table.from_pylist(rows, schema=DIFF)), row


def test_a_removed_item_of_other_pixels_shows_both(diff: DiffInputs) -> None:
    """The decision will be about the later pixels: the earlier picture alone would be a trap."""
    inputs, row = recut(diff, "101#0")
    record = records_of(inputs)["101#0"]
    assert (record["pixel_digest"], record["version"]) == (row["pixel_digest_after"], "faces@v7")
    assert record["showing"] == "before and after"
    assert Path(record["filepath"]).parent == diff.comparison_folder


def test_the_picture_that_is_shown_is_the_one_that_is_decided_about(diff: DiffInputs) -> None:
    inputs, row = recut(diff, "101#0")
    lost = diff.blob_path(row["blob_before"])
    whole = lost.read_bytes()
    lost.unlink()
    record = records_of(inputs)["101#0"]
    assert (record["showing"], record["filepath"]) == ("crop", str(diff.blob_path(row["blob_after"])))
    lost.write_bytes(whole)
    diff.blob_path(row["blob_after"]).unlink()
    record = records_of(inputs)["101#0"]
    assert record["pixel_digest"] == row["pixel_digest_after"]
    assert record["showing"] == "nothing"  # the earlier picture is there, and is not what is decided about


def test_a_decision_is_about_the_later_pixels_and_names_their_version(diff: DiffInputs) -> None:
    rows = {row["item_id"]: row for row in diff.table.to_pylist()}
    rejected = rows["103#0"]["pixel_digest_after"]
    assert rejected != rows["103#0"]["pixel_digest_before"]
    records = records_of(diff, {rejected: Decision.REJECT})
    about = {item: (record["pixel_digest"], record["version"], record["crop_id"]) for item, record in records.items()}
    assert about["103#0"] == (rejected, "faces@v7", "103#0")
    assert about["101#0"] == (rows["101#0"]["pixel_digest_before"], "faces@v7", "101#0")  # dropped, but v7 has it
    assert about["105#0"] == (rows["105#0"]["pixel_digest_before"], "faces@v6", "105#0")  # v7 has never heard of it
    assert about["200"] == (None, None, None)
    assert (records["103#0"]["tags"], records["103#0"]["decision"]) == (["reject"], "reject")
    assert records["101#0"]["tags"] == []


def test_a_huge_diff_is_cut_down_by_change_cause_and_parameter(diff: DiffInputs) -> None:
    table = with_decided_pixels(diff.table)
    chosen, left_out = choose_rows(table, ("change", "cause", "parameter"), 1, decided=[])
    assert len(chosen) == DIFFERING - 1
    assert left_out == {"removed: threshold: clean.min_blur": 1}


def test_the_pictures_of_a_comparison_share_one_scale() -> None:
    small, large = Image.new("RGB", (300, 300), "red"), Image.new("RGB", (1200, 600), "blue")
    drawn = draw_comparison(small, large, ("before", "after"))
    assert drawn.size == (2 * LARGEST + GAP, LARGEST + CAPTION)
    middle = CAPTION + LARGEST // 2
    red = [x for x in range(drawn.width) if drawn.getpixel((x, middle)) == (255, 0, 0)]
    blue = [x for x in range(drawn.width) if drawn.getpixel((x, middle)) == (0, 0, 255)]
    assert (len(red), len(blue)) == (LARGEST // 4, LARGEST)  # 300 of 1200, and all of it
    assert max(red) < LARGEST and min(blue) == LARGEST + GAP


def test_a_comparison_is_named_by_what_it_shows(tmp_path: Path) -> None:
    one, two = tmp_path / "1.png", tmp_path / "2.png"
    one.write_bytes(draw_face(1))
    two.write_bytes(draw_face(2))
    paths = [
        save_comparison(tmp_path, *pair, (name, "after"))
        for pair, name in (((one, two), "v1"), ((two, one), "v1"), ((one, two), "v2"))
    ]
    assert len(set(paths)) == 3 and None not in paths


def test_two_published_versions_are_compared_with_their_causes(tmp_path: Path) -> None:
    store, source = Store(tmp_path / "store"), tmp_path / "source"
    source.mkdir()
    blobs = store.blobs
    stay, fall = make_row("1#0", draw_face(1), blobs), make_row("2#0", draw_face(2), blobs, blur=52.0)
    before = publish(store, source, [stay, fall], [], min_blur=40.0)
    with pytest.raises(ReviewError, match="nothing differs between faces@v1 and faces@v1"):
        collect_diff(store, before, before, "faces-v0001")

    crop = {**fall, "crop_blob": fall["blob"], "blob": None, "item_id": "2#0", "stage": "clean", "reason": "blurred"}
    judged = {"measurement": "blur", "value": 52.0, "threshold": 60.0, "parameter": "clean.min_blur"}
    unread = {"item_id": "3", "post_id": "3", "stage": "crop", "reason": "no_face", "source_path": "3.png"}
    Image.new("RGB", (40, 30), "green").save(source / "3.png")
    after = publish(store, source, [stay], [{**crop, **judged}, unread], min_blur=60.0)

    inputs = collect_diff(store, before, after, "faces-v0002")
    records = records_of(inputs)
    assert {item: (record["change"], record["showing"]) for item, record in records.items()} == {
        "2#0": ("removed", "published"),
        "3": ("verdict", "source"),
    }
    record = records["2#0"]
    assert (record["cause"], record["parameter"], record["after"]) == ("threshold", "clean.min_blur", "clean: blurred")
    assert (record["value"], record["threshold_before"], record["threshold_after"]) == (52, 40, 60)
    assert record["version"] == "faces@v2" and records["3"]["filepath"] == str((source / "3.png").resolve())

    elsewhere = replace(inputs, after=replace(inputs.after, source_root=None))
    assert records_of(elsewhere)["3"]["showing"] == "nothing"  # v1 does not know the post


def publish(
    store: Store, source: Path, kept: list[dict[str, Any]], dropped: list[dict[str, Any]], min_blur: float
) -> Version:
    limit = {"stage": "clean", "column": "blur", "parameter": "clean.min_blur", "sign": ">=", "value": min_blur}
    lineage = {
        "recipe": {"clean": {"min_blur": min_blur}},
        "thresholds": [limit],
        "measured": {},
        "sources": [{"root": str(source)}],
        "stage_versions": {"clean": 1},
        "weights": {},
        "counts": {stage: {} for stage in ("filter", "crop", "clean")},
        "created_at": "2026-05-01T12:00:00+00:00",
    }
    manifest, ledger = (
        conform(pa.Table.from_pylist(rows), schema) if rows else schema.empty_table()
        for rows, schema in ((kept, MANIFEST), (dropped, LEDGER))
    )
    return publish_version(store, "faces", manifest, ledger, lineage, lambda *card: None)


def test_the_command_names_the_two_versions_and_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from datasets.review import commands
    from flows.cli.review import review

    opened: list[tuple[Any, ...]] = []
    monkeypatch.setattr(commands, "open_diff", lambda *arguments: opened.append(arguments))
    store = Store(tmp_path / "store")
    rows = [make_row(f"{i}#0", draw_face(i), store.blobs) for i in range(3)]
    publish(store, tmp_path, rows[:1], [], min_blur=40.0)
    publish(store, tmp_path, rows, [], min_blur=40.0)

    review("faces", store.root, diff="faces@v1", port=5999)
    ((folder, name, inputs, port, _),) = opened
    assert (folder, name, port) == (store.root / "review", "faces-v0002-vs-v0001", 5999)
    assert (inputs.before.version, inputs.after.version, inputs.review) == ("faces@v1", "faces@v2", "faces-v0002")
    said = capsys.readouterr().out
    assert "faces@v1 -> faces@v2: 2 added" in said and "kaobako decisions pull faces@v2" in said
    with pytest.raises(ReviewError, match="nothing differs"):
        review("faces@v1", store.root, diff="faces@v1")
