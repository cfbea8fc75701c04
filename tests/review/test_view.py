"""The FiftyOne dataset of a version, and the way of a tag back into the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_version import KEPT, NAME

from datasets.decisions import append_decisions, current_decisions, decision_by_digest
from datasets.review.records import ReviewInputs
from datasets.review.tagging import ReviewError, tag_decision

pytestmark = pytest.mark.review


@pytest.fixture
def dataset(review_folder: Path, inputs: ReviewInputs) -> Iterator[Any]:
    import fiftyone as fo

    from datasets.review.view import build_review_dataset

    yield build_review_dataset(NAME, inputs)
    fo.delete_dataset(NAME)


def items(view: Any) -> list[str]:
    return view.values("item_id")


def pull(decisions: Path) -> Any:
    from datasets.review.pull import pull_decisions

    return pull_decisions(NAME, decisions, who="mika")


def with_decisions(inputs: ReviewInputs, folder: Path) -> ReviewInputs:
    return replace(inputs, decisions=current_decisions(folder))


def test_kept_and_dropped_are_there_with_stage_and_reason(dataset: Any) -> None:
    assert dataset.persistent and len(dataset) == KEPT + 6
    assert dataset.count_values("stage") == {
        "published": KEPT, "filter": 1, "crop": 1, "clean": 1, "dedup": 2, "rank": 1
    }  # fmt: skip
    sample = dataset.match({"item_id": "202#0"}).first()
    assert (sample.reason, sample.value, sample.threshold, sample.parameter) == ("blurry", 12.25, 50, "clean.min_blur")
    assert Path(sample.filepath).is_file() and sample.metadata.width == 96
    assert sample.boxes.detections[0].bounding_box == [0.25, 0.25, 0.5, 0.5]
    assert dataset.info["kaobako"] | {"built_from": ""} == {
        "version": "faces@v7",
        "content_digest": "c" * 64,
        "kept": KEPT,
        "dropped": {"clean": 1, "crop": 1, "dedup": 2, "filter": 1, "rank": 1},
        "left_out_of_this_view": {},
        "built_from": "",
    }


def test_saved_views_show_what_they_say(dataset: Any) -> None:
    views = {name: items(dataset.load_saved_view(name)) for name in dataset.list_saved_views()}
    kept = [f"{100 + i}#0" for i in range(KEPT)]
    assert views == {
        "kept": kept,
        "lowest ranked": kept,  # the fake version's scores rise with the id
        "highest ranked": kept[::-1],
        "undecided": kept,
        "dropped: filter": ["200"],
        "dropped: crop": ["201"],
        "dropped: clean": ["202#0"],
        "dropped: dedup": ["203#0", "204#0"],
        "dropped: rank": ["205#0"],
        "near-duplicate groups": ["101#0", "203#0", "204#0"],
    }


def test_what_people_sort_by_is_indexed(dataset: Any) -> None:
    assert {"d_score", "tags", "stage", "reason"} <= set(dataset.list_indexes())


def test_fields_that_are_null_throughout_exist_all_the_same(dataset: Any) -> None:
    assert dataset.get_field("augmentation") is not None
    assert dataset.exists("augmentation").count() == 0


def test_tags_become_decisions_and_come_back_as_tags(dataset: Any, inputs: ReviewInputs, tmp_path: Path) -> None:
    from datasets.review.view import build_review_dataset

    store = tmp_path / "decisions"
    dataset.match({"item_id": "100#0"}).tag_samples("reject")
    dataset.match({"item_id": "205#0"}).tag_samples(["keep", "a tag of my own"])
    pulled = pull(store)
    assert pulled.describe() == ["pulled 1 keep, 1 reject, 0 unsure"]
    assert pulled.rows["version"].to_pylist() == ["faces@v7"] * 2
    digests = dict(zip(*dataset.values(["item_id", "pixel_digest"]), strict=True))
    held = decision_by_digest(current_decisions(store))
    assert held == {digests["100#0"]: "reject", digests["205#0"]: "keep"}

    assert pull(store).file is None  # nothing new

    again = build_review_dataset(NAME, with_decisions(inputs, store))
    assert again.count_sample_tags() == {"reject": 1, "keep": 1}
    assert items(again.load_saved_view("undecided"))[0] == "101#0"
    assert pull(store).file is None


def test_a_mind_can_be_changed_between_pulls(dataset: Any, tmp_path: Path) -> None:
    store = tmp_path / "decisions"
    sample = dataset.match({"item_id": "100#0"}).values("id")
    for decision in ("keep", "reject", "keep"):
        tag_decision(dataset, sample, decision=_decision(decision))
        assert pull(store).rows["decision"].to_pylist() == [decision]


def test_an_old_view_does_not_overrule_a_newer_decision(dataset: Any, inputs: ReviewInputs, tmp_path: Path) -> None:
    from datasets.review.view import build_review_dataset

    store = tmp_path / "decisions"
    tag_decision(dataset, dataset.match({"item_id": "100#0"}).values("id"), _decision("keep"))
    pull(store)
    build_review_dataset(NAME, with_decisions(inputs, store))
    row = current_decisions(store).to_pylist()[0]
    from datetime import timedelta

    import pyarrow as pa

    newer = row | {"decision": "reject", "who": "rin", "decided_at": row["decided_at"] + timedelta(seconds=1)}
    append_decisions(store, pa.Table.from_pylist([newer], schema=current_decisions(store).schema))
    assert pull(store).file is None
    assert list(decision_by_digest(current_decisions(store)).values()) == ["reject"]


def test_tags_nobody_pulled_survive_a_rebuild(dataset: Any, inputs: ReviewInputs, tmp_path: Path) -> None:
    from datasets.review.view import build_review_dataset

    tag_decision(dataset, dataset.match({"item_id": "103#0"}).values("id"), _decision("unsure"))
    again = build_review_dataset(NAME, inputs)
    assert items(again.match_tags("unsure")) == ["103#0"]
    assert pull(tmp_path / "decisions").rows["crop_id"].to_pylist() == ["103#0"]


def test_unpulled_tags_are_neither_left_out_nor_put_on_other_pixels(dataset: Any, inputs: ReviewInputs) -> None:
    from datasets.review.view import build_review_dataset

    for item in ("203#0", "204#0"):
        tag_decision(dataset, dataset.match({"item_id": item}).values("id"), _decision("keep"))
    again = build_review_dataset(NAME, inputs, most_per_reason=1)
    assert items(again.match_tags("keep")) == ["203#0", "204#0"]  # beyond the limit, but somebody decided

    others = replace(inputs, ledger=inputs.ledger.slice(0, 0))
    with pytest.raises(ReviewError, match="2 decisions that were never pulled"):
        build_review_dataset(NAME, others)
    import fiftyone as fo

    assert items(fo.load_dataset(NAME).match_tags("keep")) == ["203#0", "204#0"]


def test_the_same_version_is_opened_again_with_the_decisions_of_today(
    dataset: Any, inputs: ReviewInputs, tmp_path: Path
) -> None:
    from datasets.review.view import load_review_dataset

    store = tmp_path / "decisions"
    tag_decision(dataset, dataset.match({"item_id": "100#0"}).values("id"), _decision("keep"))
    pull(store)
    tag_decision(dataset, dataset.match({"item_id": "101#0"}).values("id"), _decision("reject"))  # not pulled
    ids = dataset.values("id")

    opened = load_review_dataset(NAME, inputs)  # with decisions that know nothing of the keep
    assert opened.values("id") == ids  # not built anew
    assert items(opened.match_tags("keep")) == [] and items(opened.match_tags("reject")) == ["101#0"]
    opened = load_review_dataset(NAME, with_decisions(inputs, store))
    assert items(opened.match_tags("keep")) == ["100#0"] and items(opened.match_tags("reject")) == ["101#0"]

    assert load_review_dataset(NAME, replace(inputs, source_root=None)).values("id") != ids
    opened = load_review_dataset(NAME, inputs, most_per_reason=1)
    assert opened.count_values("stage")["dedup"] == 1
    assert opened.info["kaobako"]["left_out_of_this_view"] == {"dedup: near_duplicate": 1}


def test_a_tag_on_a_post_without_pixels_is_reported_not_lost_in_silence(dataset: Any, tmp_path: Path) -> None:
    dataset.match({"item_id": "200"}).tag_samples("keep")
    dataset.match({"item_id": "100#0"}).tag_samples(["keep", "reject"])
    pulled = pull(tmp_path / "decisions")
    assert (pulled.without_pixels, pulled.contradictory, pulled.file) == (("200",), ("100#0",), None)


def test_a_foreign_dataset_is_refused(review_folder: Path, tmp_path: Path) -> None:
    import fiftyone as fo

    with pytest.raises(ReviewError, match="no review faces-v0007 yet"):
        pull(tmp_path)
    foreign = fo.Dataset()
    with pytest.raises(ReviewError, match="not a Kaobako review"):
        tag_decision(foreign, ["0" * 24], _decision("keep"))
    foreign.delete()


def _decision(word: str) -> Any:
    from datasets.decisions import Decision

    return Decision(word)
