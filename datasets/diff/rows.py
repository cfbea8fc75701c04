"""The rows that a diff looks at one by one: those that changed, and those that they name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.decisions import read_decisions
from datasets.diff.items import Pairs, locate
from datasets.diff.lineage import Making
from datasets.diff.table import Change
from datasets.version import store_of

Row = dict[str, Any]  # the columns of ITEMS
Pair = tuple[int, int]  # positions in before and after, -1 for none


class Side:
    """One of the two versions: how it was made, and the rows of it that matter."""

    def __init__(self, making: Making, items: pa.Table) -> None:
        self.making = making
        self.items = items
        self.places: dict[str, int] = {}  # by item_id
        self._rows: dict[int, Row] = {}
        self._siblings: dict[str, Row] = {}
        self._files: dict[str, str] = {}

    def fetch(self, places: Iterable[int]) -> None:
        """Read the rows at these positions; -1 and known ones are skipped."""
        wanted = sorted({place for place in places if place >= 0} - self._rows.keys())
        rows = self.items.take(pa.array(wanted, pa.int64())).to_pylist()
        self._rows |= dict(zip(wanted, rows, strict=True))
        self.places |= {row["item_id"]: place for place, row in zip(wanted, rows, strict=True)}

    def fetch_named(self, column: str) -> None:
        """Read the rows that the known rows name in a column."""
        self.fetch(locate(self.items, {row[column] for row in self._rows.values()} - self.places.keys()).values())

    def fetch_siblings(self, posts: Collection[str]) -> None:
        """Read one row of each of these posts."""
        mask = pc.is_in(self.items["post_id"], value_set=pa.array(sorted(posts), pa.string()))
        for row in self.items.filter(mask).to_pylist():
            self._siblings.setdefault(row["post_id"], row)

    def learn_files(self, places: Iterable[int]) -> None:
        """Remember the posts of these rows by their files, to find what was merely moved."""
        for place in places:
            row = self._rows[place]
            if row["file_digest"]:
                self._files.setdefault(row["file_digest"], row["post_id"])

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
    """Two versions side by side: which row is which, and which pairs changed."""

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
        self._read()

    def _read(self) -> None:
        """Read every row that a cause may have to look at."""
        for side, here in enumerate((self.before, self.after)):
            here.fetch(pair[side] for pair in self.changed)
            for column in ("related", "parent_crop"):
                here.fetch_named(column)
        for side, (here, there) in enumerate(((self.before, self.after), (self.after, self.before))):
            partners = self._partners[side]
            there.fetch(int(partners[place]) for place in here.places.values())
            alone = [pair[side] for pair in self.changed if pair[1 - side] < 0]
            there.fetch_siblings({row["post_id"] for place in alone if (row := here.row(place))})
            here.learn_files(alone)

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
