"""Rows of large tables in another order, without ever joining more of a column than an array can hold.

Arrow's texts, and lists of texts, hold 2 GB in one array. A table may hold more, in several chunks; but Arrow's own
`take` and `sort_by` join lists into one array first, and fail there. Five million posts have that much in tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CHUNK_ROWS = 1 << 17
CHUNK_BYTES = 1 << 28  # of text
JOINED_BYTES = 1 << 30  # of one column: what rows are taken from at once


def sort_in_chunks(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """A table in ascending order of some columns: as `sort_by`, for tables of any size."""
    order = np.asarray(pc.sort_indices(table, [(key, "ascending") for key in keys]).to_numpy(), np.int64)
    if np.array_equal(order, np.arange(len(order))):
        return table
    return gather([table], order)


def gather(tables: list[pa.Table], order: np.ndarray) -> pa.Table:
    """Rows of tables of one schema in an order, counted through the tables: int64 (N,), N at least 1.

    The list is emptied: where nobody else holds the tables, each column is let go as soon as it has its new order. The
    result has chunks of at most CHUNK_ROWS rows, and of CHUNK_BYTES of text unless that is one row. A column of codes
    has one dictionary for all chunks, whatever the tables had, as long as an array can hold it.
    """
    schema = tables[0].schema
    whole = pa.concat_tables(tables)
    tables.clear()
    weights = np.concatenate([_count_text(batch) for batch in whole.to_batches(CHUNK_ROWS)])
    pieces = list(cut_chunks(order, weights[order]))
    columns = _share_dictionaries(whole, weights).columns
    del whole
    taken = []
    while columns:
        runs = _join(columns.pop())
        starts = np.cumsum([0, *(len(run) for run in runs)])
        kind = schema.field(len(columns)).type
        taken.append(pa.chunked_array([_take(runs, starts, rows).cast(kind) for rows in pieces]))
    return pa.Table.from_arrays(taken[::-1], schema=schema)


def cut_chunks(order: np.ndarray, weights: np.ndarray) -> Iterator[np.ndarray]:
    """An order in pieces that make one chunk each. weights: bytes of text of each row of it."""
    sums = np.cumsum(weights)
    start = 0
    while start < len(order):
        before = sums[start - 1] if start else 0
        most = int(np.searchsorted(sums, before + CHUNK_BYTES, side="right"))
        end = max(start + 1, min(start + CHUNK_ROWS, most))
        yield order[start:end]
        start = end


def without_codes(kind: pa.DataType) -> pa.DataType:
    """The type of the same values without a dictionary, in lists too."""
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(without_codes(kind.value_type)))
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def spell_out(table: pa.Table) -> pa.Table:
    """The same table without dictionaries: for few rows, which else would carry the words of all of them."""
    return table.cast(pa.schema([field.with_type(without_codes(field.type)) for field in table.schema]))


def _share_dictionaries(table: pa.Table, weights: np.ndarray) -> pa.Table:
    """Each column of codes with one dictionary; all of them without codes, where one array cannot hold it."""
    try:
        return table.unify_dictionaries()
    except pa.lib.ArrowCapacityError:
        return _decode(table, weights)


def _decode(table: pa.Table, weights: np.ndarray) -> pa.Table:
    """The same values without codes, in chunks of bounded size."""
    rows = cut_chunks(np.arange(len(table)), weights)
    return pa.concat_tables([spell_out(table.slice(some[0], len(some))) for some in rows])


def _join(column: pa.ChunkedArray) -> list[pa.Array]:
    """A column as few arrays: joined up to JOINED_BYTES, and what is larger as it is."""
    groups: list[list[pa.Array]] = []
    size = 0
    for chunk in column.chunks:
        if not groups or size + chunk.nbytes > JOINED_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(chunk)
        size += chunk.nbytes
    return [pa.concat_arrays(group) if len(group) > 1 else group[0] for group in groups]


def _take(runs: Sequence[pa.Array], starts: np.ndarray, rows: np.ndarray) -> pa.Array:
    """These rows of a column, in this order; without a copy where they follow each other. starts: of each run."""
    owners = np.searchsorted(starts, rows[[0, -1]], side="right") - 1 if len(runs) > 1 else np.zeros(2, np.int64)
    first = int(rows[0] - starts[owners[0]])
    if owners[0] == owners[1] and rows[-1] - rows[0] == len(rows) - 1 and np.all(np.diff(rows) == 1):
        return runs[owners[0]].slice(first, len(rows))
    if len(runs) == 1:
        return runs[0].take(pa.array(rows))
    owners = np.searchsorted(starts, rows, side="right") - 1
    by_owner = np.argsort(owners, kind="stable")
    groups = np.split(by_owner, np.flatnonzero(np.diff(owners[by_owner])) + 1)
    parts = [runs[owners[group[0]]].take(pa.array(rows[group] - starts[owners[group[0]]])) for group in groups]
    if len(parts) == 1:
        return parts[0]
    places = np.empty(len(rows), np.int64)
    places[by_owner] = np.arange(len(rows))
    return pa.concat_arrays(parts).take(pa.array(places))


def _count_text(batch: pa.RecordBatch) -> np.ndarray:
    """Bytes of text in each row, in lists too, and as if there were no codes: int64 (N,)."""
    total = np.zeros(len(batch), np.int64)
    for column in batch.columns:
        kind = column.type
        if pa.types.is_string(kind):
            total += pc.fill_null(pc.binary_length(column), 0).to_numpy()
        elif pa.types.is_list(kind) and pa.types.is_string(without_codes(kind.value_type)):
            lengths = _measure_texts(column.flatten())
            sums = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
            ends = np.cumsum(counts, dtype=np.int64)
            total += sums[ends] - sums[ends - counts]
    return total


def _measure_texts(texts: pa.Array) -> np.ndarray:
    """Bytes of each text, plain or with a code; 0 for null: int (N,)."""
    if not pa.types.is_dictionary(texts.type):
        return np.asarray(pc.fill_null(pc.binary_length(texts), 0).to_numpy())
    of_codes = np.append(_measure_texts(texts.dictionary), 0)
    return np.asarray(of_codes[pc.fill_null(texts.indices, -1).to_numpy()])
