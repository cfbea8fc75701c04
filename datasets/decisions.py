"""Human decisions: keep, reject or unsure, said of a crop's pixels, and never forgotten.

A decision is keyed by the pixel digest of its crop (DESIGN section 4, invariant 9), so it survives every rebuild,
renamed files and new detectors. The folder is append-only: one Parquet file per append, written once. What holds is
the newest decision of each digest; the older ones stay, as history.
"""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.atomic import write_parquet, write_text
from datasets.digests import digest_json, digest_rows
from datasets.errors import KaobakoError
from datasets.schema import DECISIONS, conform

PIXEL_DIGEST = re.compile(r"[0-9a-f]{64}")

# Clocks of two machines differ by minutes, not days; a decision from the far future would win for ever.
CLOCK_TOLERANCE = timedelta(days=1)


class Decision(StrEnum):
    """What a person says of a crop. It beats every automatic verdict; `unsure` beats none, it only remembers."""

    KEEP = "keep"
    REJECT = "reject"
    UNSURE = "unsure"


class DecisionError(KaobakoError):
    """A decision that cannot be taken as it is; the message says which row, why, and what to do."""


def append_decisions(folder: Path, rows: pa.Table, now: datetime | None = None) -> Path | None:
    """Add decisions to the store's decisions folder, in one new file.

    rows: columns of `schema.DECISIONS`; `note`, `version` and `crop_id` may be missing. Rows that the folder already
    holds, equal in every column, are left out: importing the same file twice adds nothing.
    now: aware time of the append, for the file's name; the present unless given.
    Returns the file written, or None when there was nothing new.
    Raises DecisionError when a row is unsound; nothing is written then.
    """
    moment = now or datetime.now(UTC)
    checked = check_decisions(rows, moment)
    known = {_row_key(row) for row in read_decisions(folder).to_pylist()}
    fresh = {_row_key(row): row for row in checked.to_pylist() if _row_key(row) not in known}
    if not fresh:
        return None
    table = pa.Table.from_pylist([fresh[key] for key in sorted(fresh)], schema=DECISIONS)
    name = f"{moment.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{digest_json(sorted(fresh))[:16]}.parquet"
    write_parquet(folder / name, table)
    return folder / name


def read_decisions(folder: Path) -> pa.Table:
    """Every decision ever appended, oldest append first; columns `schema.DECISIONS`.

    A folder that does not exist holds none. Raises DecisionError for a file that is not a table of decisions.
    """
    tables = [_read_file(path) for path in sorted(folder.glob("*.parquet"))]
    return pa.concat_tables(tables) if tables else DECISIONS.empty_table()


def current_decisions(folder: Path) -> pa.Table:
    """What holds now: the newest decision of each pixel digest, sorted by digest; columns `schema.DECISIONS`."""
    return newest_decisions(read_decisions(folder))


def newest_decisions(decisions: pa.Table) -> pa.Table:
    """The newest row of each pixel digest, sorted by digest.

    Of two rows of the same moment the one that sorts last by its content wins, so that neither the order of files
    nor the order of rows matters.
    """
    if not len(decisions):
        return decisions
    columns = ["pixel_digest", "decided_at", "decision", "who", "note", "version", "crop_id"]
    ordered = decisions.sort_by([(name, "ascending") for name in columns])
    digests = np.asarray(ordered.column("pixel_digest").to_pylist(), dtype=object)
    is_last = np.append(digests[1:] != digests[:-1], True)
    return ordered.filter(pa.array(is_last))


def decision_by_digest(decisions: pa.Table) -> dict[str, Decision]:
    """pixel_digest -> what holds, of any table of decisions."""
    newest = newest_decisions(decisions)
    words = newest.column("decision").to_pylist()
    return dict(zip(newest.column("pixel_digest").to_pylist(), map(Decision, words), strict=True))


def digest_decisions(current: pa.Table) -> str:
    """The digest of decisions that hold (`current_decisions`): it changes when a person decides."""
    times = current.column("decided_at").cast(pa.string())
    rows = current.set_column(DECISIONS.get_field_index("decided_at"), "decided_at", times)
    return digest_rows(rows, tuple(DECISIONS.names), order_by="pixel_digest")


def check_decisions(rows: pa.Table, now: datetime | None = None) -> pa.Table:
    """The rows in the columns and types of `schema.DECISIONS`, every value sound. Raises DecisionError."""
    missing = [f.name for f in DECISIONS if not f.nullable and f.name not in rows.column_names]
    if missing:
        raise DecisionError(f"a table of decisions needs the columns {', '.join(missing)}")
    try:
        table = conform(rows, DECISIONS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise DecisionError(f"the columns of these decisions have wrong types: {error}") from error
    latest = (now or datetime.now(UTC)) + CLOCK_TOLERANCE
    for number, row in enumerate(table.to_pylist(), start=1):
        problem = _find_problem(row, latest)
        if problem:
            raise DecisionError(f"decision {number} ({row['crop_id'] or row['pixel_digest']}): {problem}")
    return table


def export_csv(decisions: pa.Table, path: Path) -> None:
    """Write decisions as CSV (UTF-8, header, times in ISO 8601 UTC), whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=DECISIONS.names, lineterminator="\n")
    writer.writeheader()
    for row in conform(decisions, DECISIONS).to_pylist():
        writer.writerow({**row, "decided_at": row["decided_at"].isoformat()})
    write_text(path, text.getvalue())


def import_csv(path: Path, who: str | None = None, now: datetime | None = None) -> pa.Table:
    """Read decisions from a CSV file with a header; append_decisions puts them into a store.

    Needed columns: pixel_digest and decision. Where `who` or `decided_at` is missing or empty, the given `who` and
    the present (or `now`) stand in; of such rows a later line is newer. Times are ISO 8601 with a zone, e.g.
    2026-11-22T17:30:00+00:00.
    Raises DecisionError, with the line, for anything that is not a sound decision; OSError when unreadable.
    """
    moment = now or datetime.now(UTC)
    try:
        text = path.read_bytes().decode("utf-8-sig")  # spreadsheets put a byte order mark in front
    except UnicodeDecodeError as error:
        raise DecisionError(f"{path.name} is not UTF-8 text: save it as CSV UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))  # a note's own line breaks stay as they are
    unknown = [name for name in reader.fieldnames or () if name not in DECISIONS.names]
    lacking = [name for name in ("pixel_digest", "decision") if name not in (reader.fieldnames or ())]
    if unknown or lacking:
        wrong = f"does not know {', '.join(unknown)}" if unknown else f"lacks {', '.join(lacking)}"
        raise DecisionError(f"{path.name} {wrong}: its columns may be {', '.join(DECISIONS.names)}")
    rows = []
    try:
        for record in reader:
            line = f"{path.name} line {reader.line_num}"
            row = _parse_record(record, line, who, moment + timedelta(microseconds=reader.line_num))
            problem = _find_problem(row, moment + CLOCK_TOLERANCE)
            if problem:
                raise DecisionError(f"{line}: {problem}")
            rows.append(row)
    except csv.Error as error:
        raise DecisionError(f"{path.name} line {reader.line_num}: {error}; was a quote left open?") from error
    return pa.Table.from_pylist(rows, schema=DECISIONS)


def _parse_record(record: dict[str | None, Any], line: str, who: str | None, moment: datetime) -> dict[str, Any]:
    if None in record or None in record.values():
        raise DecisionError(f"{line}: has another number of fields than the header; put text with commas in quotes")
    row: dict[str, Any] = {name: (record.get(name) or "").strip() or None for name in DECISIONS.names}
    row["note"] = record.get("note") or None  # as it was written, so that an export reads back as it is
    row["who"] = row["who"] or who
    try:
        row["decided_at"] = datetime.fromisoformat(row["decided_at"]) if row["decided_at"] else moment
        if row["decided_at"].tzinfo is not None:
            row["decided_at"] = row["decided_at"].astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise DecisionError(f"{line}: decided_at is not an ISO 8601 time: {row['decided_at']!r}") from error
    if row["decided_at"].tzinfo is None:
        raise DecisionError(f"{line}: decided_at has no time zone; write e.g. {moment:%Y-%m-%dT%H:%M:%S}+00:00")
    return row


def _find_problem(row: dict[str, Any], latest: datetime) -> str | None:
    if not PIXEL_DIGEST.fullmatch(row["pixel_digest"] or ""):
        return f"pixel_digest must be 64 lower-case hexadecimal digits, not {row['pixel_digest']!r}"
    if row["decision"] not in set(Decision):
        return f"decision must be one of {', '.join(Decision)}, not {row['decision']!r}"
    if not (row["who"] or "").strip():
        return "nobody is named as the one who decided: fill in who"
    if row["decided_at"] is None:
        return "decided_at is missing"
    if row["decided_at"] > latest:
        return f"decided_at lies in the future ({row['decided_at'].isoformat()}): check the clock"
    return None


def _read_file(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
        return check_decisions(table, now=datetime.max.replace(tzinfo=UTC) - CLOCK_TOLERANCE)
    except (pa.ArrowInvalid, DecisionError) as error:
        raise DecisionError(f"{path} is not a sound file of decisions: {error}. Move it out of the folder") from error


def _row_key(row: dict[str, Any]) -> str:
    return digest_json({**row, "decided_at": row["decided_at"].isoformat()})
