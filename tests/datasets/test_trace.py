"""Why an item is in or out: one entry per version, with the figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from datasets.errors import StoreError
from datasets.store import Store
from datasets.trace import explain_drop, trace_item
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


def test_a_dropped_crop_by_its_crop_and_by_its_post(store: Store, publish: Publish) -> None:
    publish(dropped=(BLURRED, WITHOUT_CROP), recipe={"filter": {"min_score": 5}})
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
    publish(blur=71.5, recipe={"clean": {"min_blur": 60.0}})
    (trace,) = trace_item(store, "p1")
    assert trace["verdict"] == "published"
    assert [stage["verdict"] for stage in trace["stages"]] == ["kept", "kept"]
    assert trace["stages"][1]["why"] == "blur 71.5 >= 60"


def test_a_human_decision_is_the_reason(store: Store, publish: Publish) -> None:
    publish(blur=1.0, decision="keep", recipe={"clean": {"min_blur": 60.0}})
    assert trace_item(store, "p1#0")[0]["stages"][1]["why"] == "kept by a person"


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
