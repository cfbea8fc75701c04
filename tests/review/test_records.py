"""A version as plain records: nothing missing, nothing invented. No FiftyOne here."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from fake_version import KEPT

from datasets.decisions import Decision
from datasets.review.media import MediaFinder
from datasets.review.records import (
    REVIEW_FIELDS,
    ReviewInputs,
    build_records,
    choose_rows,
    describe_verdict,
    diff_name,
    find_duplicate_groups,
    review_name,
)
from datasets.schema import LEDGER, MANIFEST


def records_of(inputs: ReviewInputs, decisions: dict[str, Decision] | None = None) -> dict[str, dict[str, Any]]:
    finder = MediaFinder(inputs.blob_path, inputs.source_root, inputs.placeholder_folder)
    records = build_records(inputs.manifest, inputs.ledger, decisions or {}, finder.find)
    return {record["item_id"]: record for record in records}


def test_every_item_kept_or_dropped_is_one_record(inputs: ReviewInputs) -> None:
    records = records_of(inputs)
    assert len(records) == KEPT + 6
    stages = {item: record["stage"] for item, record in records.items() if int(item.split("#")[0]) >= 200}
    assert stages == {
        "200": "filter", "201": "crop", "202#0": "clean", "203#0": "dedup", "204#0": "dedup", "205#0": "rank"
    }  # fmt: skip
    assert [record["stage"] for record in records.values()].count("published") == KEPT
    assert list(records) == sorted(records)


def test_measurements_and_tags_go_through(inputs: ReviewInputs) -> None:
    record = records_of(inputs)["101#0"]
    row = inputs.manifest.to_pylist()[1]
    same = [field.name for field in REVIEW_FIELDS if field.name in MANIFEST.names and field.name != "decision"]
    assert {name: record[name] for name in same} == {name: row[name] for name in same}
    assert record["post_tags"] == ["1girl", "series_2"]
    assert record["tags"] == []  # FiftyOne's sample tags are for decisions
    assert record["filepath"] == str(inputs.blob_path(row["blob"]))


def test_a_picture_that_is_not_kept_shows_its_parent_and_says_so(inputs: ReviewInputs) -> None:
    parent = inputs.manifest.slice(0, 1).to_pylist()[0]
    said = {"parent_crop": parent["crop_id"], "width": 7, "height": 5}
    lazy = parent | said | {"crop_id": f"{parent['crop_id']}+rotate:90", "augmentation": "rotate:90"}
    kept = lazy | {"crop_id": f"{parent['crop_id']}+mirror", "augmentation": "mirror"}
    kept["blob"] = inputs.manifest["blob"][1].as_py()
    children = pa.Table.from_pylist([lazy, kept], schema=inputs.manifest.schema)
    records = records_of(replace(inputs, manifest=pa.concat_tables([inputs.manifest, children])))
    shown, of_parent = records[lazy["crop_id"]], records[parent["crop_id"]]
    assert (shown["showing"], of_parent["showing"]) == ("parent", "published")
    assert shown["filepath"] == of_parent["filepath"]
    assert shown["media_size"] == of_parent["media_size"]  # of the file on the screen, not of what is made of it
    assert shown["boxes"] == []
    assert records[kept["crop_id"]]["showing"] == "published"
    assert "parent" in next(field.description for field in REVIEW_FIELDS if field.name == "showing")


def test_each_kind_of_item_shows_what_there_is_of_it(inputs: ReviewInputs) -> None:
    shown = {item: record["showing"] for item, record in records_of(inputs).items()}
    assert shown["100#0"] == "published"
    assert shown["202#0"] == "crop"
    assert shown["201"] == "source"
    assert shown["200"] == "nothing"


def test_the_face_is_a_fraction_of_the_picture_that_is_shown(inputs: ReviewInputs) -> None:
    records = records_of(inputs)
    assert records["100#0"]["boxes"] == [{"label": "face", "bounding_box": [0.25, 0.25, 0.5, 0.5], "confidence": 0.9}]
    # the source picture is 200 x 200, and the face in it 120 wide at 40, 48
    assert records["201"]["boxes"] == [{"label": "face", "bounding_box": [0.2, 0.24, 0.6, 0.6], "confidence": None}]
    assert records["200"]["boxes"] == []


def test_the_current_decision_is_the_tag(inputs: ReviewInputs) -> None:
    digests = inputs.manifest["pixel_digest"].to_pylist()
    records = records_of(inputs, {digests[0]: Decision.REJECT})
    assert (records["100#0"]["tags"], records["100#0"]["decision"]) == (["reject"], "reject")
    assert (records["101#0"]["tags"], records["101#0"]["decision"]) == ([], None)


def test_a_value_that_is_no_number_is_null(inputs: ReviewInputs) -> None:
    rows = inputs.ledger.to_pylist()
    rows[2]["value"] = math.nan
    records = records_of(_with_ledger(inputs, rows))
    assert records["202#0"]["value"] is None


def test_the_reason_is_a_sentence(inputs: ReviewInputs) -> None:
    records = records_of(inputs)
    assert records["202#0"]["why"] == "clean: blurry, blur is 12.25, the limit is 50 (clean.min_blur)"
    assert records["200"]["why"] == "filter: file missing. pictures/200.png is not there"
    assert records["100#0"]["why"] is None
    assert describe_verdict(inputs.ledger.to_pylist()[3]) == "dedup: near duplicate"


def test_duplicates_and_their_keeper_are_one_group(inputs: ReviewInputs) -> None:
    records = records_of(inputs)
    members = sorted(item for item, record in records.items() if record["duplicate_group"] == "101#0")
    assert members == ["101#0", "203#0", "204#0"]  # 204 was dropped for 203, which was dropped for 101
    assert sum(record["duplicate_group"] is not None for record in records.values()) == 3


@pytest.mark.parametrize(
    ("related", "groups"),
    [
        ({"b": "a", "c": "b", "d": "x"}, {"a": "a", "b": "a", "c": "a", "d": "x", "x": "x"}),
        ({"a": "b", "b": "a", "c": "b"}, {"a": "a", "b": "a", "c": "a"}),
        ({"a": None}, {}),
    ],
)
def test_chains_of_duplicates_end(related: dict[str, str], groups: dict[str, str]) -> None:
    rows = [{"item_id": item, "related": keeper, "stage": "dedup"} for item, keeper in related.items()]
    assert find_duplicate_groups(rows) == groups


def test_a_huge_ledger_is_cut_down_evenly_and_says_so() -> None:
    rows = [
        {"stage": "filter", "reason": "rating" if i % 3 else "score", "item_id": str(i), "pixel_digest": str(i)}
        for i in range(300)
    ]
    ledger = pa.Table.from_pylist(rows, schema=LEDGER)
    chosen, left_out = choose_rows(ledger, ("stage", "reason"), 20, decided=["7", "8"])
    assert left_out == {"filter: rating": 178, "filter: score": 80}
    assert {"7", "8"} <= set(chosen["item_id"].to_pylist())
    assert len(chosen) + sum(left_out.values()) == 300
    reversed_ledger = pa.Table.from_pylist(rows[::-1], schema=LEDGER)
    again, _ = choose_rows(reversed_ledger, ("stage", "reason"), 20, decided=["7", "8"])
    assert sorted(again["item_id"].to_pylist()) == sorted(chosen["item_id"].to_pylist())
    whole, nothing = choose_rows(ledger, ("stage", "reason"), 300, decided=[])
    assert (len(whole), nothing) == (300, {})


def test_the_name_sorts_by_version() -> None:
    assert review_name("faces", 7) == "faces-v0007"
    assert diff_name("faces-v0007", "faces-v0006") == "faces-v0007-vs-v0006"
    assert diff_name("faces-v0007", "more-faces-v0006") == "faces-v0007-vs-more-faces-v0006"


def _with_ledger(inputs: ReviewInputs, rows: list[dict[str, Any]]) -> ReviewInputs:
    from dataclasses import replace

    return replace(inputs, ledger=pa.Table.from_pylist(rows, schema=LEDGER))
