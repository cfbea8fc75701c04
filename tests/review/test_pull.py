"""From tags to decisions, without FiftyOne: what counts, what does not, and what is said of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from datasets.review.pull import NewTags, PulledDecisions, collect_decisions
from datasets.schema import DECISIONS

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
A, B = "a" * 64, "b" * 64


def tag(item: str, digest: str | None, *tags: str, minutes: int = 0) -> NewTags:
    return NewTags(f"id of {item}", item, item, digest, tags, NOON + timedelta(minutes=minutes), "faces@v7")


def held(decision: str, minutes: int) -> pa.Table:
    row = {"pixel_digest": A, "decision": decision, "who": "rin", "decided_at": NOON + timedelta(minutes=minutes)}
    return pa.Table.from_pylist([row], schema=DECISIONS)


def collect(*tagged: NewTags, current: pa.Table | None = None) -> PulledDecisions:
    return collect_decisions(tagged, current if current is not None else DECISIONS.empty_table(), who="mika", note="n")


def test_a_tag_becomes_a_decision_of_the_moment_it_was_set() -> None:
    assert collect(tag("1#0", A, "keep")).rows.to_pylist() == [
        {
            "pixel_digest": A,
            "decision": "keep",
            "who": "mika",
            "decided_at": NOON,
            "note": "n",
            "version": "faces@v7",
            "crop_id": "1#0",
        }
    ]


def test_what_the_store_holds_already_is_not_appended() -> None:
    pulled = collect(tag("1#0", A, "keep"), current=held("keep", minutes=-5))
    assert len(pulled.rows) == 0 and not pulled.superseded


def test_a_change_of_mind_is_appended() -> None:
    assert collect(tag("1#0", A, "reject"), current=held("keep", minutes=-5)).rows["decision"].to_pylist() == ["reject"]


def test_a_later_decision_from_elsewhere_holds() -> None:
    pulled = collect(tag("1#0", A, "reject"), current=held("keep", minutes=5))
    assert len(pulled.rows) == 0 and pulled.superseded == ("1#0",)


def test_two_tags_on_one_sample_are_refused_by_name() -> None:
    pulled = collect(tag("1#0", A, "keep", "reject"), tag("2#0", B, "keep"))
    assert pulled.contradictory == ("1#0",)
    assert pulled.rows["crop_id"].to_pylist() == ["2#0"]


def test_the_same_pixels_tagged_twice_are_one_decision_or_a_contradiction() -> None:
    agreed = collect(tag("1#0", A, "keep"), tag("2#0", A, "keep", minutes=3))
    assert agreed.rows.select(["crop_id", "decided_at"]).to_pylist() == [
        {"crop_id": "2#0", "decided_at": NOON + timedelta(minutes=3)}
    ]
    assert collect(tag("1#0", A, "keep"), tag("2#0", A, "reject")).contradictory == ("1#0", "2#0")


def test_without_pixels_there_is_nothing_to_decide_about() -> None:
    pulled = collect(tag("200", None, "keep"))
    assert len(pulled.rows) == 0 and pulled.without_pixels == ("200",)


def test_the_report_names_what_was_not_taken() -> None:
    lines = collect(tag("1#0", A, "keep", "reject"), tag("200", None, "keep"), tag("2#0", B, "unsure")).describe()
    assert lines[0] == "pulled 0 keep, 0 reject, 1 unsure"
    assert "1 (1#0) carry more than one" in lines[1] and "1 (200) were dropped before" in lines[2]
