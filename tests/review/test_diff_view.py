"""The FiftyOne dataset of a diff, its saved views, and the way of its tags back into the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_version import DIFF_NAME, DIFFERING, NAME, make_diff

from datasets.decisions import Decision, current_decisions
from datasets.diff import DIFF
from datasets.review.diff_records import DiffInputs
from datasets.review.records import ReviewInputs
from datasets.review.tagging import ReviewError, tag_decision

pytestmark = pytest.mark.review


@pytest.fixture
def diff(tmp_path: Path) -> DiffInputs:
    return make_diff(tmp_path)


@pytest.fixture
def dataset(review_folder: Path, diff: DiffInputs) -> Iterator[Any]:
    import fiftyone as fo

    from datasets.review.diff_view import build_diff_dataset

    yield build_diff_dataset(DIFF_NAME, diff)
    for name in (DIFF_NAME, f"{DIFF_NAME}-building", NAME):
        if fo.dataset_exists(name):
            fo.delete_dataset(name)


def items(view: Any) -> list[str]:
    return view.values("item_id")


def tag(dataset: Any, item: str, decision: Decision) -> None:
    tag_decision(dataset, dataset.match({"item_id": item}).values("id"), decision)


def pull(decisions: Path) -> Any:
    from datasets.review.pull import pull_decisions

    return pull_decisions(NAME, decisions, who="mika")


def test_each_difference_is_a_sample_with_its_cause(dataset: Any) -> None:
    assert dataset.persistent and dataset.media_type == "image" and len(dataset) == DIFFERING
    assert dataset.count_values("change") == {"added": 1, "removed": 4, "pixels": 1, "metadata": 1, "verdict": 2}
    sample = dataset.match({"item_id": "101#0"}).first()
    assert (sample.cause, sample.parameter, sample.before, sample.after) == (
        "threshold", "clean.min_blur", "published", "clean: blurred"
    )  # fmt: skip
    assert (sample.value, sample.threshold_before, sample.threshold_after) == (52, 40, 60)
    assert sample.sentence == "101#0 removed: blur 52 against clean.min_blur 40 -> 60"
    assert dataset.match({"item_id": "106#0"}).values("who") == ["rin"]
    assert all(Path(path).is_file() for path in dataset.values("filepath"))
    info = dataset.info["kaobako"]
    assert (info["version"], info["diff_from"], info["review"]) == ("faces@v7", "faces@v6", NAME)
    assert {"change": "removed", "cause": "threshold", "parameter": "clean.min_blur", "count": 2} in info["counts"]


def test_every_column_of_a_diff_can_be_filtered(dataset: Any) -> None:
    fields = set(dataset.get_field_schema())
    assert set(DIFF.names) - {"detail"} <= fields  # `sentence` says the detail
    assert {"who", "sentence", "version", "decision"} <= fields
    shown = {path for group in dataset.app_config.sidebar_groups for path in group.paths}
    assert fields - {"metadata", "tags"} <= shown
    assert {"change", "cause", "parameter", "tags"} <= set(dataset.list_indexes())


def test_saved_views_by_change_and_by_cause(dataset: Any) -> None:
    views = {name: items(dataset.load_saved_view(name)) for name in dataset.list_saved_views()}
    assert views == {
        "added": ["102#0"],
        "added by new post": ["102#0"],
        "removed": ["106#0", "105#0", "107#0", "101#0"],
        "removed by decision": ["106#0"],
        "removed by source gone": ["105#0"],
        "removed by threshold": ["107#0", "101#0"],
        "pixels": ["103#0"],
        "pixels by setting": ["103#0"],
        "metadata": ["104#0"],
        "metadata by source metadata changed": ["104#0"],
        "verdict": ["200", "201"],
        "verdict by new post": ["200"],
        "verdict by setting": ["201"],
        "undecided": ["102#0", "104#0", "103#0", "106#0", "105#0", "107#0", "101#0"],
    }


def test_decisions_are_pulled_with_the_version_whose_pixels_were_seen(dataset: Any, tmp_path: Path) -> None:
    for item, decision in (("101#0", Decision.KEEP), ("103#0", Decision.REJECT), ("105#0", Decision.UNSURE)):
        tag(dataset, item, decision)
    assert pull(tmp_path / "decisions").describe() == ["pulled 1 keep, 1 reject, 1 unsure"]
    digests = dict(zip(*dataset.values(["item_id", "pixel_digest"]), strict=True))
    columns = ["crop_id", "decision", "version", "pixel_digest"]
    rows = current_decisions(tmp_path / "decisions").select(columns).sort_by("crop_id").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("101#0", "keep", "faces@v7", digests["101#0"]),
        ("103#0", "reject", "faces@v7", digests["103#0"]),
        ("105#0", "unsure", "faces@v6", digests["105#0"]),
    ]
    assert pull(tmp_path / "decisions").file is None


def test_the_review_and_its_diffs_are_pulled_together(dataset: Any, inputs: ReviewInputs, tmp_path: Path) -> None:
    from datasets.review.view import build_review_dataset

    store = tmp_path / "decisions"
    shared = dataset.match({"item_id": "101#0"}).values("pixel_digest")[0]
    manifest = inputs.manifest.to_pylist()
    manifest[1]["pixel_digest"] = shared
    changed = replace(inputs, manifest=inputs.manifest.from_pylist(manifest, schema=inputs.manifest.schema))
    review = build_review_dataset(NAME, changed)
    tag(review, "100#0", Decision.KEEP)
    tag(dataset, "102#0", Decision.REJECT)
    tag(dataset, "101#0", Decision.KEEP)
    tag(review, "101#0", Decision.REJECT)  # the same pixels, later
    pulled = pull(store)
    assert (pulled.contradictory, pulled.superseded) == ((), ("101#0",))
    held = {row["crop_id"]: row["decision"] for row in current_decisions(store).to_pylist()}
    assert held == {"100#0": "keep", "101#0": "reject", "102#0": "reject"}
    tag(dataset, "101#0", Decision.UNSURE)  # later still
    assert pull(store).rows["decision"].to_pylist() == ["unsure"]


def test_only_the_diffs_of_the_version_itself_are_pulled(dataset: Any, diff: DiffInputs, tmp_path: Path) -> None:
    import fiftyone as fo

    from datasets.review.diff_view import build_diff_dataset

    tag(dataset, "101#0", Decision.KEEP)
    dataset.clone(f"{DIFF_NAME}-building", persistent=True)  # as an interrupted build leaves it
    foreign = build_diff_dataset(f"{NAME}-vs-something-else", replace(diff, review="another-v0001"))
    try:
        tag(foreign, "102#0", Decision.KEEP)
        pulled = pull(tmp_path / "decisions")
        assert pulled.rows["crop_id"].to_pylist() == ["101#0"]
    finally:
        fo.delete_dataset(foreign.name)
    dataset.delete()
    with pytest.raises(ReviewError, match="no review faces-v0007 yet"):
        pull(tmp_path / "decisions")


def test_what_is_there_already_is_opened_with_the_decisions_of_today(
    dataset: Any, diff: DiffInputs, tmp_path: Path
) -> None:
    from datasets.review.diff_view import load_diff_dataset

    tag(dataset, "101#0", Decision.KEEP)
    pull(tmp_path / "decisions")
    tag(dataset, "102#0", Decision.REJECT)  # not pulled
    ids = dataset.values("id")
    opened = load_diff_dataset(DIFF_NAME, replace(diff, decisions=current_decisions(tmp_path / "decisions")))
    assert opened.values("id") == ids
    assert (items(opened.match_tags("keep")), items(opened.match_tags("reject"))) == (["101#0"], ["102#0"])

    # another cause for the same item is another view; tags come along, and what was decided is never left out
    rows = diff.table.to_pylist()
    rows[2]["cause"] = "unknown"
    told_otherwise = replace(diff, table=diff.table.from_pylist(rows, schema=DIFF))
    opened = load_diff_dataset(DIFF_NAME, told_otherwise, most_per_cause=0)
    assert opened.values(["item_id", "cause"]) == (["102#0"], ["unknown"])
    assert items(opened.match_tags("reject")) == ["102#0"]
    assert opened.info["kaobako"]["left_out_of_this_view"]["removed: threshold: clean.min_blur"] == 2


def test_the_buttons_work_and_name_what_cannot_be_decided(dataset: Any) -> None:
    import fiftyone.operators as foo

    chosen = [dataset.match({"item_id": item}).first().id for item in ("101#0", "200")]
    done = foo.execute_operator("@kaobako/review/reject", {"dataset": dataset, "selected": chosen})
    assert done.result == {"count": 1}
    assert items(dataset.match_tags("reject")) == ["101#0"]
