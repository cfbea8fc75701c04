"""Why an item is in or out: one entry per version, with the figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from datasets.atomic import write_text
from datasets.decisions import append_decisions
from datasets.errors import StoreError
from datasets.store import Store
from datasets.trace import explain_drop, suggest_items, trace_decisions, trace_item
from datasets.version import Version

Publish = Callable[..., Version]
BLURRED = {
    "item_id": "x1#0",
    "post_id": "x1",
    "crop_id": "x1#0",
    "reason": "blurred",
    "measurement": "blur",
    "value": 12.25,
    "threshold": 60.0,
    "parameter": "clean.min_blur",
    "score": 9,
}
WITHOUT_CROP = {"item_id": "x2", "post_id": "x2", "reason": "grey", "detail": "no colour"}


def list_thresholds(version: Version, *limits: tuple[str, str, str, float]) -> None:
    """Put (stage, column, sign, value) into a version's lineage."""
    rows = [
        {"stage": stage, "column": column, "parameter": f"{stage}.min_{column}", "sign": sign, "value": value}
        for stage, column, sign, value in limits
    ]
    write_text(version.folder / "version.json", json.dumps({**version.lineage, "thresholds": rows}))


def test_a_dropped_crop_by_its_crop_and_by_its_post(store: Store, publish: Publish) -> None:
    list_thresholds(publish(dropped=(BLURRED, WITHOUT_CROP)), ("filter", "score", ">=", 5.0))
    for name in ("x1#0", "x1"):
        (trace,) = trace_item(store, name)
        assert (trace["version"], trace["item_id"]) == ("faces@v1", "x1#0")
        assert trace["verdict"] == "dropped by clean: blurred"
        assert [(stage["stage"], stage["verdict"]) for stage in trace["stages"]] == [
            ("filter", "kept"),
            ("clean", "dropped"),
        ]
        assert trace["stages"][0]["why"] == "score 9 >= 5"
        assert trace["stages"][1]["why"] == "blurred: blur 12.25 against clean.min_blur 60"


def test_a_dropped_post_without_a_crop(store: Store, publish: Publish) -> None:
    publish(dropped=(WITHOUT_CROP,))
    (trace,) = trace_item(store, "x2")
    assert trace["stages"][-1]["why"] == "grey: no colour"


def test_a_published_item_says_how_near_it_was(store: Store, publish: Publish) -> None:
    list_thresholds(publish(blur=71.5), ("clean", "blur", ">=", 60.0), ("clean", "contrast", ">=", 8.0))
    (trace,) = trace_item(store, "p1")
    assert trace["verdict"] == "published"
    assert [stage["verdict"] for stage in trace["stages"]] == ["kept", "kept"]
    assert trace["stages"][1]["why"] == "blur 71.5 >= 60"


def test_a_version_that_lists_no_thresholds_says_only_what_it_knows(store: Store, publish: Publish) -> None:
    publish(blur=71.5, recipe={"clean": {"min_blur": 60.0}})
    assert [stage["why"] for stage in trace_item(store, "p1")[0]["stages"]] == ["", ""]


def test_a_human_decision_is_the_reason(store: Store, publish: Publish) -> None:
    version = publish(blur=1.0, decision="keep")
    list_thresholds(version, ("clean", "blur", ">=", 60.0))
    traces = trace_item(store, "p1#0")
    assert traces[0]["stages"][1]["why"] == "blur 1, not >= 60: kept by a person"
    said = {"pixel_digest": traces[0]["pixel_digest"], "who": "mika", "note": "soft on purpose"}
    now = datetime.now(UTC)
    rows = [
        said | {"decision": "keep", "decided_at": now},
        said | {"decision": "unsure", "decided_at": now - timedelta(hours=1)},
        said | {"decision": "reject", "decided_at": now, "pixel_digest": "0" * 64},
    ]
    append_decisions(store.decisions, pa.Table.from_pylist(rows))
    told = [(row["decision"], row["who"], row["note"]) for row in trace_decisions(store, traces)]
    assert told == [("unsure", "mika", "soft on purpose"), ("keep", "mika", "soft on purpose")]


@pytest.mark.parametrize(
    ("blur", "decision", "why"),
    [
        (71.5, "keep", "blur 71.5 >= 60, contrast 9 >= 8"),
        (12.0, "keep", "blur 12, not >= 60, contrast 9 >= 8: kept by a person"),
        (12.0, "reject", "blur 12, not >= 60, contrast 9 >= 8: rejected by a person"),
    ],
)
def test_a_decision_hides_no_measurement(store: Store, publish: Publish, blur: float, decision: str, why: str) -> None:
    version = publish(1, blur=blur, contrast=9.0, decision=decision)
    list_thresholds(version, ("clean", "blur", ">=", 60.0), ("clean", "contrast", ">=", 8.0))
    assert trace_item(store, "p0#0")[0]["stages"][1]["why"] == why


def test_a_kept_item_of_a_version_that_lists_no_thresholds(store: Store, publish: Publish) -> None:
    publish(1, blur=1.0, decision="keep")
    assert [stage["why"] for stage in trace_item(store, "p0#0")[0]["stages"]] == ["", "kept by a person"]


def test_a_moved_file_is_not_called_gone(store: Store, publish: Publish) -> None:
    publish(1, file_digest="f" * 64)
    row = BLURRED | {"file_digest": "f" * 64, "pixel_digest": trace_item(store, "p0#0")[0]["pixel_digest"]}
    publish(0, dropped=(row,))
    assert trace_item(store, "p0#0")[-1]["change"] == "p0#0 removed: post gone, moved to x1"
    assert trace_item(store, "x1#0")[-1]["cause"] == "new_post"


def test_every_version_that_knew_it_oldest_first(store: Store, publish: Publish) -> None:
    publish(2)
    publish(3)
    publish(name="paintings")
    assert [trace["version"] for trace in trace_item(store, "p1")] == ["faces@v1", "faces@v2", "paintings@v1"]
    assert [trace["version"] for trace in trace_item(store, "p2")] == ["faces@v2", "paintings@v1"]
    assert [trace["version"] for trace in trace_item(store, "p1", "faces")] == ["faces@v1", "faces@v2"]
    assert [trace["version"] for trace in trace_item(store, "p1", "faces@v2")] == ["faces@v2"]


def test_nothing_is_known_of_a_stranger(store: Store, publish: Publish) -> None:
    publish()
    assert trace_item(store, "p") == []  # no part of a name counts
    with pytest.raises(StoreError):
        trace_item(store, "p1", "faces@v9")


def test_all_crops_of_a_post_are_told(store: Store, publish: Publish) -> None:
    second = BLURRED | {"item_id": "p1#1", "crop_id": "p1#1", "post_id": "p1"}
    publish(dropped=(second,))
    verdicts = {trace["item_id"]: trace["verdict"] for trace in trace_item(store, "p1")}
    assert verdicts == {"p1#0": "published", "p1#1": "dropped by clean: blurred"}


def test_a_copy_is_explained_by_what_it_copies() -> None:
    row = dict.fromkeys(("measurement", "value", "threshold", "parameter", "detail"), None)
    assert explain_drop({**row, "reason": "exact_copy", "related": "p3#0"}) == "exact_copy: of p3#0"
    assert explain_drop({**row, "reason": "no_face", "related": None}) == "no_face"


def test_each_version_says_what_it_changed(store: Store, publish: Publish) -> None:
    publish(3, recipe={"clean": {"min_blur": 40.0}}, blur=52.0)
    out = BLURRED | {"item_id": "p2#0", "crop_id": "p2#0", "post_id": "p2", "value": 52.0}
    digest = trace_item(store, "p2#0")[0]["pixel_digest"]
    publish(2, recipe={"clean": {"min_blur": 60.0}}, blur=52.0, dropped=(out | {"pixel_digest": digest},))
    publish(2, recipe={"clean": {"min_blur": 60.0}}, blur=52.0)
    publish(2, recipe={"clean": {"min_blur": 61.0}}, blur=52.0)
    traces = trace_item(store, "p2#0")
    assert [(trace["version"], trace["verdict"], trace["cause"]) for trace in traces] == [
        ("faces@v1", "published", None),
        ("faces@v2", "dropped by clean: blurred", "threshold"),
        ("faces@v3", "absent", "source_gone"),
    ]
    assert traces[1]["change"] == "p2#0 removed: blur 52 against clean.min_blur 40 -> 60"
    assert [trace["change"] for trace in trace_item(store, "p1")] == [None] * 4


def test_a_crop_is_followed_through_other_numbers_and_a_post_without_crops(store: Store, publish: Publish) -> None:
    publish(1)
    digest = trace_item(store, "p0#0")[0]["pixel_digest"]
    again = BLURRED | {"post_id": "p0", "pixel_digest": digest}
    publish(0, dropped=(again | {"item_id": "p0#1", "crop_id": "p0#1"},))
    publish(0, dropped=({"item_id": "p0", "post_id": "p0", "reason": "no_face"},))
    traces = trace_item(store, "p0#0")
    assert [(trace["version"], trace["item_id"]) for trace in traces] == [
        ("faces@v1", "p0#0"),
        ("faces@v2", "p0#1"),
        ("faces@v3", "p0"),
    ]
    assert traces[2]["change"].startswith("p0#1 clean: blurred -> clean: no_face: ")


def test_a_crop_that_is_gone_and_another_one_with_its_number_are_both_told(store: Store, publish: Publish) -> None:
    """Another detector finds the second face only, a few pixels larger: it is the first one now."""
    near: dict[str, Any] = {"box_y": 0, "box_w": 90, "box_h": 90, "file_digest": "f" * 64}
    second = BLURRED | near | {"item_id": "p0#1", "crop_id": "p0#1", "post_id": "p0", "box_x": 300}
    publish(1, dropped=(second | {"pixel_digest": "1" * 64},), box_x=0, **near)
    first = second | {"item_id": "p0#0", "crop_id": "p0#0", "box_x": 303, "pixel_digest": "2" * 64}
    publish(0, dropped=(first | {"reason": "flat"},))
    told = [(trace["item_id"], trace["verdict"], trace["change"]) for trace in trace_item(store, "p0")[2:]]
    assert [(name, verdict) for name, verdict, _ in told] == [("p0#0", "dropped by clean: flat"), ("p0#0", "absent")]
    assert told[0][2].startswith("p0#0 clean: blurred -> clean: flat")
    assert told[1][2].startswith("p0#0 removed: ")


def test_a_mirror_image_goes_with_its_parent(store: Store, publish: Publish) -> None:
    publish(1, augmentation=None)
    parent: dict[str, Any] = {"crop_id": "p0#0+mirror", "augmentation": "mirror", "parent_crop": "p0#0"}
    publish(1, name="doubled", **parent)
    (trace,) = trace_item(store, "p0#0+mirror")
    assert (trace["version"], trace["item_id"], trace["verdict"]) == ("doubled@v1", "p0#0+mirror", "published")


def test_ids_near_an_unknown_one_are_suggested(store: Store, publish: Publish) -> None:
    publish(4, dropped=(BLURRED, WITHOUT_CROP))
    assert suggest_items(store, "p3#7") == ["p3#0"]
    assert suggest_items(store, "x9") == []
    assert suggest_items(store, "x22") == ["x2"]
    assert suggest_items(store, "nobody") == []
