"""The rows that a diff looks at one by one: those that changed, and those that they name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.decisions import read_decisions
from datasets.diff.items import Pairs
from datasets.diff.lineage import Making
from datasets.diff.table import Change
from datasets.version import store_of

Row = dict[str, Any]  # the columns of ITEMS
Pair = tuple[int, int]  # positions in before and after, -1 for none


class Side:
    """One of the two versions: how it was made, and the rows of it that matter now."""

    def __init__(self, making: Making, items: pa.Table) -> None:
        self.making = making
        self.items = items
        self.places: dict[str, int] = {}  # by item_id
        self._rows: dict[int, Row] = {}
        self._siblings: dict[str, Row] = {}
        self._files: dict[str, str] = {}
        ids = items["item_id"].combine_chunks()
        # of each item the places of its keeper and of its parent, -1 for none
        self._named = [_locate_all(items[column], ids) for column in ("related", "parent_crop")]

    def forget(self) -> None:
        """Drop the rows that were read."""
        self.places, self._rows, self._siblings = {}, {}, {}

    def find_named(self, places: np.ndarray) -> np.ndarray:
        """The places of what the items at these places name: int64, ascending."""
        found = np.unique(np.concatenate([named[places] for named in self._named]))
        return found[found >= 0]

    def fetch(self, places: np.ndarray) -> None:
        """Read the rows at these positions."""
        rows = self.items.take(pa.array(places, pa.int64())).to_pylist()
        self._rows |= dict(zip(places.tolist(), rows, strict=True))
        self.places |= {row["item_id"]: place for place, row in zip(places.tolist(), rows, strict=True)}

    def fetch_siblings(self, posts: Collection[str]) -> None:
        """Read one row of each of these posts."""
        mask = pc.is_in(self.items["post_id"], value_set=pa.array(sorted(posts), pa.string()))
        for row in self.items.filter(mask).to_pylist():
            self._siblings.setdefault(row["post_id"], row)

    def learn_files(self, posts: dict[str, str]) -> None:
        """Remember posts that the other version does not have by the digests of their files."""
        self._files = posts

    def row(self, place: int) -> Row | None:
        return self._rows[place] if place >= 0 else None

    def find(self, name: str) -> Row | None:
        """A row by its item_id, if it was read."""
        return self.row(self.places.get(name, -1))

    def sibling(self, post_id: str) -> Row | None:
        """Any row of a post; None when this version does not know the post."""
        return self._siblings.get(post_id)

    def same_file(self, row: Row) -> str | None:
        """Another post, absent from the other version, with the same file as a row."""
        return self._files.get(row["file_digest"] or "")

    def who_decided(self, pixel_digest: str | None, word: str | None) -> tuple[str | None, str | None]:
        """Who said this word of these pixels last before the version was made, and the note; None if nobody."""
        said = [row for row in self._decisions.get(pixel_digest or "", ()) if row["decision"] == word]
        made = self.making.lineage.get("created_at")
        # a build reads decisions when it starts, and its time is in whole seconds
        moment = datetime.fromisoformat(made) + timedelta(seconds=1) if made else None
        earlier = [row for row in said if moment is None or row["decided_at"] <= moment]
        newest = max(earlier or said, key=lambda row: (row["decided_at"], row["who"]), default=None)
        return (newest["who"], newest["note"]) if newest else (None, None)

    @cached_property
    def _decisions(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for row in read_decisions(store_of(self.making.version.folder).decisions).to_pylist():
            found.setdefault(row["pixel_digest"], []).append(row)
        return found


class Two:
    """Two versions side by side: which row is which, and which pairs changed.

    The rows themselves are read a few at a time: `read` before the causes of some pairs are asked for.
    """

    def __init__(self, before: Side, after: Side, pairs: Pairs, found: np.ndarray, changes: np.ndarray) -> None:
        """found: positions in `pairs` of those that changed; changes: a Change each."""
        self.before = before
        self.after = after
        places = zip(pairs.before[found].tolist(), pairs.after[found].tolist(), strict=True)
        self.changed: dict[Pair, Change] = dict(zip(places, changes, strict=True))
        self._partners = (pairs.partners(len(before.items)), pairs.partners(len(after.items), of_after=True))
        self._by_place: tuple[dict[int, Pair], ...] = ({}, {})
        for pair in self.changed:
            for side in (0, 1):
                self._by_place[side].setdefault(pair[side], pair)
        self._learn_files(pairs.before[found], pairs.after[found])

    def _learn_files(self, before: np.ndarray, after: np.ndarray) -> None:
        """Find the files of lone items that the other version has under another post."""
        sides = [
            side.items.select(["file_digest", "post_id"]).take(pa.array(places, pa.int64()))
            for side, places in ((self.before, before[after < 0]), (self.after, after[before < 0]))
        ]
        for side, here, there in ((self.before, *sides), (self.after, *sides[::-1])):
            known = pc.and_(
                pc.is_valid(here["file_digest"]),
                pc.is_in(here["file_digest"], value_set=there["file_digest"].combine_chunks()),
            )
            here = here.filter(known).sort_by([("post_id", "descending")])  # of several posts the first one is named
            side.learn_files(dict(zip(here["file_digest"].to_pylist(), here["post_id"].to_pylist(), strict=True)))

    def read(self, pairs: Sequence[Pair]) -> None:
        """Read every row that the causes of these changed pairs may have to look at, and forget the others."""
        sides = (self.before, self.after)
        known = tuple(np.zeros(len(side.items), dtype=bool) for side in sides)
        fresh = [np.unique([pair[k] for pair in pairs if pair[k] >= 0]).astype(np.int64) for k in (0, 1)]
        while any(len(places) for places in fresh):  # what they name, what that was in the other version, and so on
            for k in (0, 1):
                known[k][fresh[k]] = True
            partners = [self._partners[k][fresh[k]] for k in (0, 1)]
            named = [sides[k].find_named(fresh[k]) for k in (0, 1)]
            for k in (0, 1):
                found = np.unique(np.concatenate([named[k], partners[1 - k]]))
                found = found[found >= 0]
                fresh[k] = found[~known[k][found]]
        for side, mask in zip(sides, known, strict=True):
            side.forget()
            side.fetch(np.flatnonzero(mask))
        for k in (0, 1):
            # what others name may be lone, too
            places = [p for p in sides[k].places.values() if self._is_lone(k, p)]
            sides[1 - k].fetch_siblings({row["post_id"] for p in places if (row := sides[k].row(p))})

    def _is_lone(self, side: int, place: int) -> bool:
        pair = self._by_place[side].get(place)
        return pair is not None and pair[1 - side] < 0

    def other(self, side: Side) -> Side:
        return self.after if side is self.before else self.before

    def both(self, here: Side, name: str) -> tuple[Row | None, Row | None]:
        """An item of one side by its id, and the same item on the other side."""
        place = here.places.get(name, -1)
        if place < 0:
            return None, None
        partner = int(self._partners[0 if here is self.before else 1][place])
        return here.row(place), self.other(here).row(partner)

    def changed_pair(self, here: Side, name: str) -> Pair | None:
        """The changed pair that an item of one side belongs to; None when its state is the same in both."""
        return self._by_place[0 if here is self.before else 1].get(here.places.get(name, -2))


def _locate_all(names: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    """The place of each name among the ids, -1 for null and for strangers: int64 (N,)."""
    places = pc.index_in(names.combine_chunks(), value_set=ids, skip_nulls=True)
    found: np.ndarray = pc.fill_null(places, -1).to_numpy().astype(np.int64)
    return found
