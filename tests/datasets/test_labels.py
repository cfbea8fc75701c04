"""Labels are what the tags say, whatever the rows look like and however the table is cut up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.errors import KaobakoError
from datasets.labels import NO_CLASS, SEVERAL_CLASSES, class_labels, column_labels, tag_labels
from datasets.schema import MANIFEST
from datasets.version import Version

WORDS = ("1girl", "red_hair", "blue_hair", "smile", "猫耳")
Tags = list[str | None] | None
row_tags = st.none() | st.lists(st.none() | st.sampled_from([*WORDS, "", "hair"]), max_size=6)
asked_tags = st.lists(st.sampled_from([*WORDS, "nobody_has_this"]), unique=True, max_size=6)


def tabulate(rows: list[Tags]) -> pa.Table:
    return pa.table({"tags": pa.array(rows, MANIFEST.field("tags").type)})


ROWS: list[Tags] = [["red_hair", "smile"], None, [], ["smile", "blue_hair", "red_hair"], ["smile"], [None, "blue_hair"]]


def test_tag_labels_are_many_hot() -> None:
    labels = tag_labels(tabulate(ROWS), ["blue_hair", "red_hair", "green_hair"])
    assert labels.dtype == np.float32
    assert labels.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_class_labels_name_rows_without_and_with_several_classes() -> None:
    labels = class_labels(tabulate(ROWS), ["blue_hair", "red_hair"])
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, NO_CLASS, NO_CLASS, SEVERAL_CLASSES, NO_CLASS, 0]
    assert (NO_CLASS, SEVERAL_CLASSES) == (-1, -2)


def test_a_tag_written_twice_in_a_row_is_one_tag() -> None:
    twice = tabulate([["smile", "smile"]])
    assert tag_labels(twice, ["smile"]).tolist() == [[1]]
    assert class_labels(twice, ["smile"]).tolist() == [0]


@pytest.mark.parametrize("rows", [[], [None, None], [["smile"]]])
def test_shapes_hold_for_empty_tables_and_for_no_tags(rows: list[Tags]) -> None:
    table = tabulate(rows)
    assert tag_labels(table, []).shape == (len(rows), 0)
    assert tag_labels(table, WORDS).shape == (len(rows), len(WORDS))
    assert class_labels(table, []).tolist() == [NO_CLASS] * len(rows)


@pytest.mark.parametrize("label", [tag_labels, class_labels])
def test_a_tag_asked_for_twice_is_refused(label: Callable[..., np.ndarray]) -> None:
    with pytest.raises(KaobakoError, match="smile are named more than once: name each label once"):
        label(tabulate(ROWS), ["smile", "red_hair", "smile"])


def test_a_published_manifest_gives_labels(publish: Callable[..., Version]) -> None:
    manifest = publish(3, tags=["red_hair", "smile"]).manifest()
    assert tag_labels(manifest, ["smile", "blue_hair"]).tolist() == [[1, 0]] * 3


@given(rows=st.lists(row_tags, max_size=12), tags=asked_tags, cuts=st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_labels_are_what_a_plain_loop_finds(rows: list[Tags], tags: list[str], cuts: tuple[int, int]) -> None:
    # the same rows as slices of larger arrays and in several chunks: offsets must not shift a label
    first, last = sorted(cuts)
    whole = tabulate([["smile"], *rows, WORDS, *rows])
    table = pa.concat_tables([whole.slice(1, len(rows)), whole.slice(first, last - first), whole.slice(0, 0)])
    expected = [{tag for tag in row or [] if tag is not None} & set(tags) for row in table["tags"].to_pylist()]
    many_hot, classes = tag_labels(table, tags), class_labels(table, tags)
    assert many_hot.tolist() == [[float(tag in found) for tag in tags] for found in expected]
    for found, label in zip(expected, classes.tolist(), strict=True):
        assert label == (tags.index(next(iter(found))) if len(found) == 1 else -1 if not found else -2)


def test_tags_hidden_beneath_a_null_row_are_no_tags() -> None:
    masked = pa.ListArray.from_arrays(
        pa.array([0, 1, 3, 4], pa.int32()),
        pa.array(["red_hair", "smile", "blue_hair", "smile"]),
        mask=pa.array([False, True, False]),
    )
    assert class_labels(pa.table({"tags": masked}), ["blue_hair", "smile", "red_hair"]).tolist() == [2, NO_CLASS, 1]


def test_column_labels_are_the_sorted_values_of_a_column() -> None:
    whole = pa.table({"rating": pa.array(["x", "safe", None, "explicit", "safe", "ü", ""], pa.string())})
    table = pa.concat_tables([whole.slice(1, 3), whole.slice(4)])
    names, labels = column_labels(table, "rating")
    assert names == ("", "explicit", "safe", "ü")
    assert labels.dtype == np.int64
    assert labels.tolist() == [2, NO_CLASS, 1, 2, 3, 0]
    assert column_labels(table.slice(0, 0), "rating")[1].tolist() == []


@pytest.mark.parametrize(("column", "said"), [("score", "does not hold words"), ("mood", "is not in the manifest")])
def test_columns_without_words_are_refused(publish: Callable[..., Version], column: str, said: str) -> None:
    with pytest.raises(KaobakoError, match=rf"made of {column}: it {said}. Name one of .*rating.*decision"):
        column_labels(publish(1).manifest(), column)
