"""Several rows of one id: which of them counts, and what the others have to say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.sources.config import MILDEST_FIRST, RatingVintage
from datasets.sources.danbooru.fields import S, meaning_of_s

_FLAGS = ("deleted", "banned")


def count_repeats(ids: np.ndarray) -> np.ndarray:
    """How many rows before it have a row's id: int64 (N,). Rows without an id (-1) repeat nothing."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    begins = np.ones(len(ids), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    places = np.arange(len(ids))
    repeats = np.empty(len(ids), np.int64)
    repeats[order] = places - np.maximum.accumulate(np.where(begins, places, 0))
    repeats[ids < 0] = 0
    return repeats


def settle_repeats(tables: list[pa.Table], ids: np.ndarray, repeats: np.ndarray, vintage: RatingVintage) -> None:
    """Give the row that counts the strictest rating of all rows of its id, deleted and banned if any of them says so.

    tables: schema READ; changed in place. ids, repeats: of all their rows, see count_repeats.
    """
    repeated = np.unique(ids[repeats > 0])
    if not len(repeated):
        return
    words = pa.array([str(rating) for rating in MILDEST_FIRST], pa.string())
    strictest = np.zeros(len(repeated), np.int64)
    raised = {flag: np.zeros(len(repeated), bool) for flag in _FLAGS}
    members = _find_members(tables, ids, repeated)
    for table, (rows, places) in zip(tables, members, strict=True):
        some = table.select(["rating", *_FLAGS]).take(pa.array(rows))
        said = resolve_s(some["rating"].combine_chunks(), vintage)
        np.maximum.at(strictest, places, pc.index_in(said, value_set=words).to_numpy())
        for flag in _FLAGS:
            np.logical_or.at(raised[flag], places, pc.fill_null(some[flag], False).to_numpy())
    start = 0
    for number, (table, (rows, places)) in enumerate(zip(tables, members, strict=True)):
        counts = repeats[start + rows] == 0
        heads, agreed = np.zeros(len(table), bool), places[counts]
        heads[rows[counts]] = True
        settled = {"rating": words.take(pa.array(strictest[agreed]))}
        settled |= {flag: pa.array(raised[flag][agreed]) for flag in _FLAGS}
        start += len(table)
        for name, values in settled.items():
            column = pc.replace_with_mask(table[name].combine_chunks(), pa.array(heads), values)
            tables[number] = tables[number].set_column(table.column_names.index(name), name, column)


def resolve_s(ratings: pa.Array, vintage: RatingVintage) -> pa.Array:
    """Ratings as a converted file has them, with the meaning of the letter s."""
    return pc.if_else(pc.equal(ratings, S), meaning_of_s(vintage), ratings)


def _find_members(
    tables: Sequence[pa.Table], ids: np.ndarray, repeated: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each table the rows whose id is repeated, and where it stands in `repeated` (sorted): int64, int64."""
    members = []
    start = 0
    for table in tables:
        own = ids[start : start + len(table)]
        places = np.minimum(np.searchsorted(repeated, own), len(repeated) - 1)
        rows = np.flatnonzero(repeated[places] == own)
        members.append((rows, places[rows]))
        start += len(table)
    return members
