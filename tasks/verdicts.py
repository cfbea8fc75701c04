"""Verdicts in columns: a judgement of millions of items without a Python object per item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.schema import VERDICTS

if TYPE_CHECKING:
    from tasks.stage import StageParams, Threshold

Texts: TypeAlias = "str | np.ndarray | pa.Array | pa.ChunkedArray"
_TEXTS = ("reason", "measurement", "parameter", "detail", "related")
_NUMBERS = ("value", "threshold")


class Verdicts:
    """Builds a VERDICTS table from rules; an item falls by the first rule that it breaks.

    Attributes:
        open: bool (N,): the items that no rule has dropped so far.
    """

    def __init__(self, items: pa.Table) -> None:
        self.items = items
        self.size = len(items)
        self.open = np.ones(self.size, dtype=bool)
        self._numbers = {name: np.full(self.size, np.nan) for name in _NUMBERS}
        # per column of text: what was said, in pools, and per item where in the pools its text stands (-1: nowhere)
        self._pools: dict[str, list[pa.Array]] = {name: [] for name in _TEXTS}
        self._sizes = dict.fromkeys(_TEXTS, 0)
        self._places = {name: np.full(self.size, -1, dtype=np.int64) for name in _TEXTS}

    def numbers(self, column: str) -> np.ndarray:
        """A numeric column as float64, null as NaN (which breaks no rule)."""
        values: np.ndarray = pc.cast(self.items[column], pa.float64()).to_numpy(zero_copy_only=False)
        return values

    def drop(
        self,
        mask: np.ndarray,
        reason: Texts,
        *,
        parameter: str | None = None,
        measurement: str | None = None,
        threshold: float | None = None,
        detail: Texts | None = None,
        related: Texts | None = None,
        value: np.ndarray | None = None,
    ) -> None:
        """Drop the items of a boolean mask that no earlier rule has dropped.

        reason, detail, related, value may be arrays over all items. value defaults to the measurement's column.
        """
        falls = np.flatnonzero(np.asarray(mask, dtype=bool) & self.open)
        if not len(falls):
            return
        self.open[falls] = False
        if value is None and measurement is not None:
            value = self.numbers(measurement)
        if value is not None:
            self._numbers["value"][falls] = value[falls].astype(np.float64)
        if threshold is not None:
            self._numbers["threshold"][falls] = threshold
        said: dict[str, Any] = {"reason": reason, "measurement": measurement, "parameter": parameter}
        for name, content in {**said, "detail": detail, "related": related}.items():
            if content is not None:
                self._say(name, falls, content)

    def hold(
        self,
        rule: Threshold,
        params: StageParams,
        reason: np.ndarray | None = None,
        where: np.ndarray | None = None,
    ) -> None:
        """Drop what breaks the rule.

        reason: item by item, where the rule's own word does not do. where: bool (N,), the items that it is for.
        """
        limit = rule.limit(params)
        if limit is None:
            return
        values = self.numbers(rule.column)
        with np.errstate(invalid="ignore"):
            mask = values < limit if rule.sign == ">=" else values > limit
        if where is not None:
            mask &= where
        why = rule.reason if reason is None else reason
        self.drop(mask, why, parameter=rule.parameter, measurement=rule.column, threshold=limit, value=values)

    def table(self) -> pa.Table:
        """The verdicts, row by row as the items."""
        columns = {"keep": pa.array(self.open), **{name: self._read_texts(name) for name in _TEXTS}}
        columns |= {name: pa.array(values, from_pandas=True) for name, values in self._numbers.items()}
        return pa.Table.from_arrays([columns[name] for name in VERDICTS.names], schema=VERDICTS)

    def _say(self, name: str, falls: np.ndarray, content: Texts) -> None:
        """Put texts into the column's pools: one for all, or those of the items that fall."""
        start = self._sizes[name]
        if isinstance(content, str):
            pool = pa.array([content], pa.string())
            places: np.ndarray | int = start
        else:
            if isinstance(content, np.ndarray):
                pool = pa.array(content[falls], pa.string(), from_pandas=True)
            else:
                taken = content.take(pa.array(falls)).cast(pa.string())
                pool = taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken
            places = np.arange(start, start + len(falls))
        self._pools[name].append(pool)
        self._sizes[name] += len(pool)
        self._places[name][falls] = places

    def _read_texts(self, name: str) -> pa.Array:
        if not self._pools[name]:
            return pa.nulls(self.size, pa.string())
        places = self._places[name]
        return pa.concat_arrays(self._pools[name]).take(pa.array(places, mask=places < 0))
