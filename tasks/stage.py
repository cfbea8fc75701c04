"""The stage contract: measure once, decide many times (DESIGN section 4).

A stage is two pure functions. `measure` opens pixels and returns facts, one row per distinct input; the engine keeps
them in the measurement cache. `decide` is a vectorised judgement of those facts by the recipe's thresholds, redone at
every build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from datasets.cache import INPUT, MeasurementCache
from datasets.digests import digest_json
from datasets.store import Store


class StageParams(BaseModel):
    """Settings and thresholds of one stage.

    `measured` names the fields that measure() reads: they are part of the cache key. All others are thresholds, which
    only decide() may read.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        field_title_generator=lambda name, _: name,  # forms show the recipe's keys
    )
    measured: ClassVar[frozenset[str]] = frozenset()

    def for_measure(self) -> Self:
        """The same model with nothing but the measured fields: reading another one raises AttributeError.

        So a threshold cannot slip into a measurement unnoticed, where a change of it would leave stale facts.
        """
        values = {name: getattr(self, name) for name in sorted(self.measured)}
        bare = type(self).model_construct(**values)
        for name in type(self).model_fields.keys() - self.measured:
            bare.__dict__.pop(name, None)
        return bare  # type: ignore[return-value]

    def measured_settings(self) -> dict[str, Any]:
        return self.model_dump(mode="json", include=set(self.measured))


# The one verdict that a person's "keep" does not beat: the same pixels are in already, as another crop.
EXACT_COPY = "exact_copy"


def ignore_pixels(pixel_digest: str, rgb: np.ndarray) -> None:
    """For shards that no later stage is measured along with."""


@dataclass(frozen=True)
class Shard:
    """Some hundreds of items that one task measures, with what it needs to open them."""

    items: pa.Table  # distinct inputs, in column `input`, and the item columns of one representative each
    store: Store
    source_root: Path
    weights: tuple[Path, ...] = ()  # folders to look for weights in
    digests: Mapping[str, str] = field(default_factory=dict)  # of the weights that the facts are kept under
    measure_along: Callable[[str, np.ndarray], None] = ignore_pixels  # takes each crop that measure() holds: its pixel
    #   digest and its pixels, uint8 (H, W, 3); so later stages need not open it again (tasks.along)

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.items.to_pylist()
        return rows


@dataclass(frozen=True)
class Facts:
    """What measure() found, and how many pictures it opened for that."""

    table: pa.Table
    opened: int


def no_weights(params: Any, store: Store) -> dict[str, str]:
    """For stages that use no weights."""
    return {}


def join_facts(items: pa.Table, facts: pa.Table) -> pa.Table:
    """Every item with the facts of its input, in item order; facts replace item columns of the same name."""
    positions = pc.index_in(items[INPUT], value_set=facts[INPUT])
    taken = facts.take(positions)
    replaced = [name for name in items.column_names if name not in taken.column_names or name == INPUT]
    joined = items.select(replaced)
    for name in taken.column_names:
        if name != INPUT:
            joined = joined.append_column(taken.schema.field(name), taken[name])
    return joined


@dataclass(frozen=True)
class Threshold:
    """A rule of the form: an item stays when a measured column is at least (or at most) what the recipe says.

    Said once, it serves the verdict, the lineage (so that `versions why` can show by how much an item passed), and
    the histograms of `kaobako tune`.
    """

    column: str  # a MANIFEST column
    parameter: str  # the recipe's key, e.g. clean.min_blur
    reason: str = ""  # what the ledger says of an item that breaks the rule
    sign: Literal[">=", "<="] = ">="
    value: Callable[[Any], float | None] | None = None  # of the parameters; None: the field itself

    def limit(self, params: StageParams) -> float | None:
        """The number that the column is compared with; None when the recipe asks for nothing."""
        if self.value is not None:
            return self.value(params)
        limit = getattr(params, self.parameter.rpartition(".")[2])
        return None if limit is None else float(limit)


@dataclass(frozen=True)
class Stage:
    """One curation step."""

    name: str
    version: int  # bump when measure() changes its meaning
    params: type[StageParams]
    decide: Callable[[pa.Table, Any], pa.Table]  # (items with facts, params) -> VERDICTS, row by row
    measure: Callable[[Shard, Any], Facts] | None = None  # (shard, params with measured fields only)
    measure_pixels: Callable[[np.ndarray, Any], dict[str, Any]] | None = None  # measure() of one crop in memory
    facts: pa.Schema | None = None  # of measure(): `input` first
    input_column: str = ""  # the item column that holds the digest of measure()'s input
    inputs: Callable[[pa.Table, Any], pa.ChunkedArray] | None = None  # (items, params) -> names of measure()'s inputs,
    #   string (N,), where what is found depends on more of an item than that digest
    expand: Callable[[pa.Table, pa.Table], pa.Table] = join_facts  # (items, facts) -> what is judged
    weights: Callable[[Any, Store], dict[str, str]] = no_weights  # name -> digest
    blobs: tuple[str, ...] = ()  # columns of facts that name blobs: without its blob a fact is measured again
    nested_blobs: Callable[[pa.Table], pa.Array] | None = None  # the same, where blobs are inside lists
    enabled: Callable[[Any], bool] = field(default=lambda params: True)
    may_lack_facts: bool = False  # an input that cannot be read gives no fact, and decide() says so
    off_because: str = ""  # said in the lineage when the recipe leaves the stage out
    thresholds: tuple[Threshold, ...] = ()
    max_shard: int = 0  # items of a shard where one takes seconds; 0: as many as shards.MAX_SHARD says
    cuts_crops: bool = False  # measure() cuts crops out, and tells `measure_along` of each
    compares: bool = False  # judges items against each other: a rejected item still stands for its copies here

    def cache(self, params: StageParams, store: Store, digests: Mapping[str, str] | None = None) -> MeasurementCache:
        """The cache of this stage's facts under these settings and weights.

        digests: of the weights, where they are known already; else they are looked up.
        """
        if self.facts is None:
            raise ValueError(f"stage {self.name} measures nothing")
        used = dict(self.weights(params, store) if digests is None else digests)
        columns = [f"{column.name} {column.type}" for column in self.facts]
        key = {"settings": params.measured_settings(), "weights": used, "columns": columns}
        folder = store.cache / f"{self.name}-{self.version}" / digest_json(key)[:24]
        return MeasurementCache(folder, self.facts)
