"""Human decisions: appended, read back, the newest holds, bad ones refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.decisions import (
    Decision,
    DecisionError,
    append_decisions,
    current_decisions,
    decision_by_digest,
    export_csv,
    import_csv,
    newest_decisions,
    read_decisions,
)
from datasets.schema import DECISIONS

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
A, B = "a" * 64, "b" * 64


def row(digest: str = A, decision: str = "keep", minutes: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "pixel_digest": digest,
        "decision": decision,
        "who": "mika",
        "decided_at": NOON + timedelta(minutes=minutes),
        **more,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=DECISIONS)


def test_what_is_appended_is_read_back_and_the_newest_holds(tmp_path: Path) -> None:
    first = append_decisions(tmp_path, table(row(A, "keep"), row(B, "reject", crop_id="7#0")), now=NOON)
    second = append_decisions(tmp_path, table(row(A, "unsure", 5)), now=NOON + timedelta(hours=1))
    assert first and second and first.name < second.name
    assert len(read_decisions(tmp_path)) == 3  # the older one stays as history
    assert decision_by_digest(current_decisions(tmp_path)) == {A: Decision.UNSURE, B: Decision.REJECT}
    assert current_decisions(tmp_path).column("crop_id").to_pylist() == [None, "7#0"]


def test_an_older_decision_that_arrives_late_does_not_win(tmp_path: Path) -> None:
    append_decisions(tmp_path, table(row(A, "reject", 10)), now=NOON)
    append_decisions(tmp_path, table(row(A, "keep", 5)), now=NOON + timedelta(days=1))
    assert decision_by_digest(current_decisions(tmp_path)) == {A: Decision.REJECT}


def test_appending_the_same_rows_again_adds_nothing(tmp_path: Path) -> None:
    rows = table(row(A), row(A), row(B, note="eyes"))
    assert append_decisions(tmp_path, rows, now=NOON) is not None
    assert append_decisions(tmp_path, rows, now=NOON + timedelta(hours=1)) is None
    assert append_decisions(tmp_path, DECISIONS.empty_table()) is None
    assert len(read_decisions(tmp_path)) == 2


def test_a_folder_that_does_not_exist_holds_none(tmp_path: Path) -> None:
    assert current_decisions(tmp_path / "nowhere").schema == DECISIONS
    assert len(current_decisions(tmp_path / "nowhere")) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B]), st.sampled_from(list(Decision)), st.integers(0, 2), st.none() | st.text()),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_does_not_matter(values: list[tuple], random: Any) -> None:
    rows = [row(digest, decision, minutes, note=note) for digest, decision, minutes, note in values]
    shuffled = random.sample(rows, len(rows))
    newest = newest_decisions(table(*rows))
    assert newest.equals(newest_decisions(table(*shuffled)))
    expected = {d: max(m for digest, _, m, _ in values if digest == d) for d, *_ in values}
    found = dict(zip(newest["pixel_digest"].to_pylist(), newest["decided_at"].to_pylist(), strict=True))
    assert found == {digest: NOON + timedelta(minutes=minutes) for digest, minutes in expected.items()}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row(decision="maybe"), "keep, reject, unsure"),
        (row(digest="A" * 64), "64 lower-case"),
        (row(who="  "), "fill in who"),
        (row(minutes=60 * 24 * 3), "future"),
    ],
)
def test_bad_rows_are_refused_and_nothing_is_written(tmp_path: Path, bad: dict[str, Any], says: str) -> None:
    with pytest.raises(DecisionError, match=says):
        append_decisions(tmp_path, table(row(B), bad), now=NOON)
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DecisionError, match="who"):
        append_decisions(tmp_path, table(row()).drop_columns(["who"]))


def test_a_foreign_file_in_the_folder_is_named(tmp_path: Path) -> None:
    append_decisions(tmp_path, table(row()), now=NOON)
    (tmp_path / "note.parquet").write_bytes(b"not parquet")
    with pytest.raises(DecisionError, match=r"note\.parquet"):
        read_decisions(tmp_path)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "note.parquet")
    with pytest.raises(DecisionError, match="pixel_digest"):
        read_decisions(tmp_path)


def test_csv_goes_out_and_comes_back_equal(tmp_path: Path) -> None:
    rows = table(row(A, note='a "quoted", note'), row(B, "reject", 3, version="faces@v7", crop_id="12#1"))
    export_csv(rows, tmp_path / "out.csv")
    assert import_csv(tmp_path / "out.csv", now=NOON).equals(rows)


def test_csv_needs_only_the_digest_and_the_decision(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"﻿pixel_digest,decision\n{A},keep\n")
    assert import_csv(tmp_path / "in.csv", who="rin", now=NOON).to_pylist() == [
        {
            **row(who="rin"),
            "decided_at": NOON + timedelta(microseconds=2),
            "note": None,
            "version": None,
            "crop_id": None,
        }
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"pixel_digest,decision\n{A},keep\n{A},yes\n", "line 3.*keep, reject, unsure"),
        (f"pixel_digest,decision,decided_at\n{A},keep,yesterday\n", "line 2.*ISO 8601"),
        (f"pixel_digest,decision,decided_at\n{A},keep,2026-05-01T10:00:00\n", "line 2.*no time zone"),
        (f"pixel_digest,decision\n{A},keep,extra\n", "line 2.*number of fields"),
        (f"pixel_digest,verdict\n{A},keep\n", "verdict"),
        ("", "lacks pixel_digest"),
    ],
)
def test_bad_csv_says_where_and_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(DecisionError, match=says):
        import_csv(tmp_path / "in.csv", who="rin", now=NOON)


def test_a_note_comes_back_as_it_was_written(tmp_path: Path) -> None:
    notes = ('  two lines,\r\nand a "quote" ', "one\ntwo", "半角")
    rows = [row(f"{k:064x}", note=note) for k, note in enumerate(notes)]
    append_decisions(tmp_path / "store", pa.Table.from_pylist(rows))
    export_csv(read_decisions(tmp_path / "store"), tmp_path / "out.csv")
    again = import_csv(tmp_path / "out.csv")
    assert append_decisions(tmp_path / "store", again) is None
    assert sorted(again["note"].to_pylist()) == sorted(notes)


def test_of_lines_without_a_time_the_last_one_holds(tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    path.write_text(f"pixel_digest,decision\n{A},reject\n{A},keep\n{B},keep\n{B},reject\n")
    append_decisions(tmp_path / "store", import_csv(path, "mika", NOON), NOON)
    held = decision_by_digest(current_decisions(tmp_path / "store"))
    assert held == {A: Decision.KEEP, B: Decision.REJECT}


@pytest.mark.parametrize(
    ("line", "says"),
    [(f'{A},keep,"' + "x" * 200_000, "quote"), (f"{A},keep,,0001-01-01T00:00:00+14:00", "ISO 8601")],
    ids=["open quote", "time before time"],
)
def test_odd_csv_is_one_clear_error(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "said.csv"
    path.write_text(f"pixel_digest,decision,note,decided_at\n{line}\n")
    with pytest.raises(DecisionError, match=says):
        import_csv(path, "mika", NOON)
