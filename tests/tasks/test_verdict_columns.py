"""Verdicts in columns: texts as one word, as arrays of either kind, and in the order of the rules."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from datasets.schema import VERDICTS
from tasks.verdicts import Verdicts

ITEMS = pa.table({"id": ["a", "b", "c", "d"], "x": pa.array([1, None, 3, 4], pa.int32())})


def test_texts_of_every_form() -> None:
    verdicts = Verdicts(ITEMS)
    verdicts.drop(np.array([1, 0, 0, 0], bool), "first", detail=ITEMS["id"], measurement="x", threshold=2)
    verdicts.drop(np.array([1, 1, 0, 0], bool), np.array(["no", "second", None, None], object), related=ITEMS["id"])
    verdicts.drop(np.array([0, 0, 1, 0], bool), pa.array(["no", "no", "third", "no"]), detail=None, parameter="s.p")
    table = verdicts.table()
    assert table.schema == VERDICTS
    assert table.to_pydict() == {
        "keep": [False, False, False, True],
        "reason": ["first", "second", "third", None],
        "measurement": ["x", None, None, None],
        "value": [1.0, None, None, None],
        "threshold": [2.0, None, None, None],
        "parameter": [None, None, "s.p", None],
        "detail": ["a", None, None, None],
        "related": [None, "b", None, None],
    }


def test_a_measurement_that_is_not_there_has_no_value() -> None:
    verdicts = Verdicts(ITEMS)
    verdicts.drop(np.ones(4, bool), "gone", measurement="x")
    assert verdicts.table()["value"].to_pylist() == [1.0, None, 3.0, 4.0]


def test_nothing_falls_and_nothing_is_there() -> None:
    assert Verdicts(ITEMS).table()["reason"].null_count == 4
    empty = Verdicts(ITEMS.slice(0, 0))
    empty.drop(np.zeros(0, bool), "never")
    assert empty.table().equals(VERDICTS.empty_table())


def test_columns_in_pieces() -> None:
    pieces = pa.concat_tables([ITEMS.slice(0, 1), ITEMS.slice(1)])
    verdicts = Verdicts(pieces)
    verdicts.drop(np.array([1, 0, 1, 0], bool), pieces["id"], measurement="x")
    assert verdicts.table()["reason"].to_pylist() == ["a", None, "c", None]
    assert verdicts.table()["value"].to_pylist() == [1.0, None, 3.0, None]
