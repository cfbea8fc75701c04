"""Items of a version, and which item of one version is which of another: matched without a loop over what is equal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.diff.table import Change
from datasets.schema import LEDGER, conform
from datasets.version import LEDGER_FILE, MANIFEST_FILE, Version

# A ledger row says all that a manifest row says, and where it fell. Landmarks are never compared.
ITEMS = pa.schema([field.with_nullable(True) for field in LEDGER if field.name != "landmarks"])

# What is said of a published picture. Measurements are left out: a change of one that moves nothing is no change.
METADATA_COLUMNS = (
    *("rating", "score", "tags", "source_path", "decision"),
    *("item_id", "parent_crop", "box_x", "box_y", "box_w", "box_h"),
)
_NONE = -1
_BOX = ("box_x", "box_y", "box_w", "box_h")
_LOOKED_AT = ["item_id", "post_id", "crop_id", "augmentation", "pixel_digest", "file_digest", "parent_crop", *_BOX]
_POSTS = 5_000  # looked at together, one by one: rows as Python objects take far more than in tables
_SAME_PLACE = 0.3  # overlap of two boxes, intersection over union, from which on they are of one face


def read_items(version: Version, posts: Collection[str] | None = None) -> pa.Table:
    """Every item of a version, published ones first: schema ITEMS, `stage` is null for what was published.

    posts: only items of these posts. Columns that an older version does not have are null.
    """
    tables = []
    for name in (MANIFEST_FILE, LEDGER_FILE):
        path = version.folder / name
        columns = [column for column in pq.read_schema(path).names if column in ITEMS.names]
        wanted = None if posts is None else [("post_id", "in", sorted(posts))]
        table = pq.read_table(path, columns=columns, filters=wanted)
        if name == MANIFEST_FILE:
            table = table.append_column("item_id", table["crop_id"])
        tables.append(conform(table, ITEMS))
    return pa.concat_tables(tables)


@dataclass(frozen=True)
class Pairs:
    """Which item of `before` is which of `after`. Positions, int64 (P,); -1 where there is none.

    A post that gave no crop is paired with every crop that the other version has of it.
    """

    before: np.ndarray
    after: np.ndarray

    def partners(self, size: int, of_after: bool = False) -> np.ndarray:
        """For each of `size` items of before (or after) its first partner in the other, -1 for none: int64 (size,)."""
        here, there = (self.after, self.before) if of_after else (self.before, self.after)
        both = np.flatnonzero((here >= 0) & (there >= 0))[::-1]
        found = np.full(size, _NONE, np.int64)
        found[here[both]] = there[both]
        return found


def match_items(before: pa.Table, after: pa.Table) -> Pairs:
    """Pair the items of two versions.

    First by post and pixels, so that a detector that finds one more face and counts anew moves nothing; then by place,
    because one that draws its boxes a little larger still finds the same faces; then by id; then a post that gave no
    crop with the crops of the other version, and a derived picture with what its parent became. Crops of equal pixels
    in one post are paired in order of their ids.
    """
    first, second = _match_equal(before, after)
    found = [(first, second)]
    for places in _split_by_post(before, after, _others(len(before), first), _others(len(after), second)):
        rest = _Rest(before, after, *places)
        rest.pair_by(("post_id", "augmentation", "pixel_digest"))
        rest.pair_places()
        rest.pair_by(("item_id",), _may_be_one)
        rest.pair_posts()
        lone_before, lone_after = rest.pair_children(first, second)
        pairs = [*rest.pairs, *((place, _NONE) for place in lone_before), *((_NONE, place) for place in lone_after)]
        both = np.asarray(pairs, np.int64).reshape(-1, 2)
        found.append((both[:, 0], both[:, 1]))
    return Pairs(*(np.concatenate(places).astype(np.int64) for places in zip(*found, strict=True)))


def _split_by_post(
    before: pa.Table, after: pa.Table, open_before: np.ndarray, open_after: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The places of both, of some posts at a time: no item is ever paired with one of another post."""
    posts = [_take(before, "post_id", open_before), _take(after, "post_id", open_after)]
    known = pc.unique(pa.chunked_array(posts, pa.string()))
    numbers = [pc.index_in(names, value_set=known).to_numpy(zero_copy_only=False) for names in posts]
    for start in range(0, len(known), _POSTS):
        masks = [(some >= start) & (some < start + _POSTS) for some in numbers]
        yield open_before[masks[0]], open_after[masks[1]]


def _match_equal(before: pa.Table, after: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the items that have one id and equal pixels in both (or no pixels in both)."""
    ids = before["item_id"].combine_chunks()
    found = pc.fill_null(pc.index_in(after["item_id"], value_set=ids), _NONE).to_numpy().astype(np.int64)
    second = np.flatnonzero(found >= 0)
    first = found[second]
    same = _equal(_take(before, "pixel_digest", first), _take(after, "pixel_digest", second))
    first, second = first[same], second[same]
    owner = np.full(len(before), _NONE, np.int64)
    owner[first[::-1]] = second[::-1]
    once = owner[first] == second  # an id that a broken source names twice counts once
    return first[once], second[once]


def _others(size: int, places: np.ndarray) -> np.ndarray:
    """The positions below `size` that are not among `places`, ascending."""
    free = np.ones(size, dtype=bool)
    free[places] = False
    return np.flatnonzero(free)


_Known = dict[str, Any]  # the columns of _LOOKED_AT


def _has_box(row: _Known) -> bool:
    return all(row[name] is not None for name in _BOX)


def _overlap(old: _Known, new: _Known) -> float:
    """Intersection over union of two boxes, 0..1."""
    sides = []
    for start, size in (("box_x", "box_w"), ("box_y", "box_h")):
        ends = min(old[start] + old[size], new[start] + new[size])
        sides.append(max(0, ends - max(old[start], new[start])))
    shared = sides[0] * sides[1]
    union = old["box_w"] * old["box_h"] + new["box_w"] * new["box_h"] - shared
    return float(shared / union) if union > 0 else 0.0


def _may_be_one(old: _Known, new: _Known) -> bool:
    """Whether two items of one id may be one: not if they are known to be two places of the same picture."""
    if not (_has_box(old) and _has_box(new)):
        return True
    files = old["file_digest"], new["file_digest"]
    return all(name is not None for name in files) and files[0] != files[1]


class _Rest:
    """Items without a partner yet. They are few, and looked at one by one."""

    def __init__(self, before: pa.Table, after: pa.Table, open_before: np.ndarray, open_after: np.ndarray) -> None:
        self.tables = (before, after)
        self.pairs: list[tuple[int, int]] = []
        self.rows: tuple[dict[int, _Known], ...] = tuple(
            dict(zip(places.tolist(), table.select(_LOOKED_AT).take(pa.array(places)).to_pylist(), strict=True))
            for table, places in ((before, open_before), (after, open_after))
        )

    def take(self, first: int, second: int) -> None:
        self.pairs.append((first, second))
        self.rows[0].pop(first, None)
        self.rows[1].pop(second, None)

    def pair_by(self, columns: tuple[str, ...], may: Callable[[_Known, _Known], bool] = lambda *rows: True) -> None:
        """Pair items whose columns are equal and not null in the last one, in order of their ids.

        may(before, after): whether two such items may be one.
        """
        found: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
        for place in self._in_order(0, columns[-1]):
            found[tuple(self.rows[0][place][name] for name in columns)].append(place)
        for waiting in found.values():
            waiting.reverse()
        for place in self._in_order(1, columns[-1]):
            row = self.rows[1][place]
            waiting = found.get(tuple(row[name] for name in columns), [])
            if waiting and may(self.rows[0][waiting[-1]], row):
                self.take(waiting.pop(), place)

    def pair_places(self) -> None:
        """Pair crops of one post whose boxes overlap: the best overlap first, of equal ones by their ids.

        A derived picture has its parent's box, and is paired with one that was derived in the same way.
        """
        crops: tuple[dict[tuple[str, str | None], list[int]], ...] = (defaultdict(list), defaultdict(list))
        for side in (0, 1):
            for place, row in self.rows[side].items():
                if row["crop_id"] is not None and _has_box(row):
                    crops[side][row["post_id"], row["augmentation"]].append(place)
        for key, members in crops[0].items():
            found = []
            for first in members:
                old = self.rows[0][first]
                for second in crops[1].get(key, ()):
                    new = self.rows[1][second]
                    if (overlap := _overlap(old, new)) >= _SAME_PLACE:
                        found.append((-overlap, old["item_id"], new["item_id"], first, second))
            for *_, first, second in sorted(found):
                if first in self.rows[0] and second in self.rows[1]:
                    self.take(first, second)

    def pair_posts(self) -> None:
        """Pair a post that gave no crop with each crop that the other version has of it."""
        for here, there in ((0, 1), (1, 0)):
            crops: dict[str | None, list[int]] = defaultdict(list)
            for place in self._in_order(there, "crop_id"):
                crops[self.rows[there][place]["post_id"]].append(place)
            for place, row in list(self.rows[here].items()):
                if row["crop_id"] is None:
                    for crop in crops.get(row["post_id"], ()):
                        self.take(*((place, crop) if here == 0 else (crop, place)))

    def pair_children(self, first: np.ndarray, second: np.ndarray) -> tuple[list[int], list[int]]:
        """Pair a derived picture with what its parent became, if that is out; returns who is alone in each version."""
        for here in (0, 1):
            children = {place: row["parent_crop"] for place, row in self.rows[here].items() if row["parent_crop"]}
            if not children:
                continue
            parents = locate(self.tables[here], children.values())
            known = np.full(len(self.tables[here]), _NONE, np.int64)
            known[first if here == 0 else second] = second if here == 0 else first
            for pair in self.pairs:
                known[pair[here]] = pair[1 - here]
            fallen = self.tables[1 - here]["stage"]
            for place, parent in children.items():
                partner = int(known[parents[parent]]) if parent in parents else _NONE
                if partner >= 0 and fallen[partner].is_valid:
                    self.take(*((place, partner) if here == 0 else (partner, place)))
        return sorted(self.rows[0]), sorted(self.rows[1])

    def _in_order(self, side: int, column: str) -> list[int]:
        rows = self.rows[side]
        return sorted((p for p in rows if rows[p][column] is not None), key=lambda p: (str(rows[p]["item_id"]), p))


def locate(table: pa.Table, ids: Iterable[str | None]) -> dict[str, int]:
    """Where items lie in a table, by their ids; those that it does not have are left out."""
    wanted = sorted({name for name in ids if name})
    found = pc.index_in(pa.array(wanted, pa.string()), value_set=table["item_id"].combine_chunks()).to_pylist()
    return {name: place for name, place in zip(wanted, found, strict=True) if place is not None}


def find_changes(before: pa.Table, after: pa.Table, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs differ, and how: positions in `pairs` int64 (C,), and a Change each, object (C,)."""
    change = np.full(len(pairs.before), None, dtype=object)
    was, now = _published(before, pairs.before), _published(after, pairs.after)
    change[now & ~was] = Change.ADDED
    change[was & ~now] = Change.REMOVED
    change[~was & ~now & ((pairs.before < 0) | (pairs.after < 0))] = Change.VERDICT
    both = (pairs.before >= 0) & (pairs.after >= 0)
    for places, columns, word in (
        (np.flatnonzero(both & ~was & ~now), ("stage", "reason"), Change.VERDICT),
        (np.flatnonzero(was & now), METADATA_COLUMNS, Change.METADATA),
        (np.flatnonzero(was & now), ("blob", "pixel_digest"), Change.PIXELS),  # says more than metadata: last
    ):
        differs = np.zeros(len(places), dtype=bool)
        for name in columns:
            old, new = _take(before, name, pairs.before[places]), _take(after, name, pairs.after[places])
            differs |= ~(_equal_lists(old, new) if pa.types.is_list(old.type) else _equal(old, new))
        change[places[differs]] = word
    found = np.flatnonzero(change != None)  # noqa: E711 - element by element
    return found, change[found]


def _published(items: pa.Table, places: np.ndarray) -> np.ndarray:
    """Whether the item at each place was published; False where there is none (-1)."""
    published = pc.is_null(items["stage"]).to_numpy(zero_copy_only=False)
    return np.append(published, False)[places]  # -1 is the last


def _take(table: pa.Table, name: str, places: np.ndarray) -> pa.Array:
    column = table[name].combine_chunks()
    if len(places) and len(places) == places[-1] - places[0] + 1 and bool((np.diff(places) == 1).all()):
        return column.slice(int(places[0]), len(places))  # copies nothing
    return column.take(pa.array(places))


def _equal(old: pa.Array, new: pa.Array) -> np.ndarray:
    """Row by row, null equal to null: bool (N,)."""
    same = pc.fill_null(pc.equal(old, new), False)
    if old.null_count and new.null_count:
        same = pc.or_(same, pc.and_(pc.is_null(old), pc.is_null(new)))
    answer: np.ndarray = same.to_numpy(zero_copy_only=False)
    return answer


def _equal_lists(old: pa.Array, new: pa.Array) -> np.ndarray:
    """Row by row, null equal to empty: bool (N,)."""
    sizes = [pc.fill_null(pc.list_value_length(lists), 0).to_numpy() for lists in (old, new)]
    same: np.ndarray = sizes[0] == sizes[1]
    if not same.all():
        old, new = old.filter(pa.array(same)), new.filter(pa.array(same))
    other = np.flatnonzero(~_equal(pc.list_flatten(old), pc.list_flatten(new)))
    owners = np.searchsorted(np.cumsum(sizes[0][same]), other, side="right")
    same[np.flatnonzero(same)[owners]] = False
    return same
