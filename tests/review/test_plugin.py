"""The three buttons, as FiftyOne runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from fake_version import NAME

from datasets.review.records import ReviewInputs

pytestmark = pytest.mark.review
PLUGIN = "@kaobako/review"


@pytest.fixture
def dataset(review_folder: Path, inputs: ReviewInputs) -> Iterator[Any]:
    import fiftyone as fo

    from datasets.review.view import build_review_dataset

    yield build_review_dataset(NAME, inputs)
    fo.delete_dataset(NAME)


def press(dataset: Any, button: str, *items: str) -> Any:
    import fiftyone.operators as foo

    selected = [dataset.match({"item_id": item}).first().id for item in items]
    return foo.execute_operator(f"{PLUGIN}/{button}", {"dataset": dataset, "selected": selected})


def tags(dataset: Any, item: str) -> list[str]:
    return dataset.match({"item_id": item}).values("tags")[0]


def test_fiftyone_finds_the_buttons_and_its_own_operators(review_folder: Path) -> None:
    import fiftyone.operators as foo

    uris = {operator.uri for operator in foo.list_operators()}
    assert {f"{PLUGIN}/{name}" for name in ("keep", "reject", "unsure")} <= uris
    assert "@voxel51/operators/list_saved_views" in uris  # a package of ours called `plugins` would hide these


def test_a_sample_has_the_last_decision_only(dataset: Any) -> None:
    dataset.match({"item_id": "100#0"}).tag_samples("mine")
    for button in ("keep", "reject", "unsure"):
        assert press(dataset, button, "100#0", "202#0").result == {"count": 2}
        assert tags(dataset, "100#0") == ["mine", button]
        assert tags(dataset, "202#0") == [button]
    assert dataset.count_sample_tags() == {"mine": 1, "unsure": 2}


def test_nothing_selected_means_nothing_done(dataset: Any) -> None:
    assert press(dataset, "reject").result == {"count": 0}
    assert dataset.count_sample_tags() == {}


def test_an_empty_selection_is_said_and_kept(dataset: Any) -> None:
    from datasets.review.fiftyone_plugins.kaobako_review import Keep

    context = MagicMock(dataset=dataset, selected=[])
    Keep().execute(context)
    context.ops.notify.assert_called_once_with("Select images first, then press Keep.", variant="warning")
    context.ops.clear_selected_samples.assert_not_called()


def test_what_has_no_pixels_is_not_tagged_and_named(dataset: Any) -> None:
    from datasets.review.fiftyone_plugins.kaobako_review import Reject

    ids = [dataset.match({"item_id": item}).first().id for item in ("200", "202#0")]
    context = MagicMock(dataset=dataset, selected=ids)
    assert Reject().execute(context) == {"count": 1}
    message = context.ops.notify.call_args.args[0]
    assert message.startswith("1 marked reject; 1 not marked (200)")
    assert (tags(dataset, "200"), tags(dataset, "202#0")) == ([], ["reject"])
    context.ops.clear_selected_samples.assert_called_once_with()
    context.ops.reload_dataset.assert_called_once_with()


def test_the_buttons_stand_above_the_grid_and_ask_nothing(dataset: Any) -> None:
    from datasets.review.fiftyone_plugins import kaobako_review

    for operator in (kaobako_review.Keep(), kaobako_review.Reject(), kaobako_review.Unsure()):
        placement = operator.resolve_placement(MagicMock()).to_json()
        assert placement["place"] == "samples-grid-actions" and placement["view"]["prompt"] is False
        icon = Path(kaobako_review.__file__).parent / placement["view"]["icon"].lstrip("/")
        assert icon.is_file()


def test_decisions_are_shown_from_the_start_on_our_datasets_only(dataset: Any) -> None:
    from datasets.review.fiftyone_plugins.kaobako_review import ShowDecisions

    context = MagicMock(dataset=dataset, active_fields=["stage"])
    ShowDecisions().execute(context)
    context.ops.set_active_fields.assert_called_once_with(["tags", "stage"])
    foreign = MagicMock(active_fields=["stage"])
    foreign.dataset.info = {}
    ShowDecisions().execute(foreign)
    foreign.ops.set_active_fields.assert_not_called()
