"""The chain: items on their way through the stages, what is still in, and what fell where and why.

Judging opens no picture. A build fills in missing facts by measuring, `kaobako tune` by setting the items aside; both
judge here, so that what tune foretells is what a build does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.schema import LEDGER, MANIFEST, VERDICTS, conform
from tasks.stage import EXACT_COPY, Stage, StageParams

REJECTED = "rejected_by_person"


class Chain:
    """One pass of items through the stages.

    Attributes:
        counts: the accounts of each stage judged so far (`count_verdicts`).
    """

    def __init__(self, decisions: pa.Table) -> None:
        """decisions: what holds now, one row per pixel digest (datasets.decisions.current_decisions)."""
        self.counts: dict[str, dict[str, Any]] = {}
        self._decisions = decisions
        self._fallen: list[pa.Table] = []

    def judge(self, stage: Stage, params: StageParams, inputs: int, items: pa.Table) -> pa.Table:
        """What of the items stays in; the others go into the ledger.

        inputs: how many items came in, before the stage split them. items: with the stage's facts.
        """
        items = self._add_decisions(items)
        verdicts = overrule(items, stage.decide(items, params), stage.compares)
        self.counts[stage.name] = count_verdicts(inputs, verdicts)
        self._fallen.append(make_ledger(stage.name, items, verdicts))
        return items.filter(verdicts["keep"])

    def ledger(self) -> pa.Table:
        """Everything that fell so far (schema LEDGER), stage by stage."""
        return pa.concat_tables([LEDGER.empty_table(), *self._fallen])

    def _add_decisions(self, items: pa.Table) -> pa.Table:
        """Items with the newest human decision on their pixels, where they have pixels yet."""
        if "pixel_digest" not in items.column_names:
            return items
        rows = pc.index_in(items["pixel_digest"], value_set=self._decisions["pixel_digest"].combine_chunks())
        items = items.select([name for name in items.column_names if name not in ("decision", "decided_by")])
        items = items.append_column("decision", self._decisions["decision"].take(rows))
        return items.append_column("decided_by", self._decisions["who"].take(rows))


def overrule(items: pa.Table, verdicts: pa.Table, compared: bool) -> pa.Table:
    """Verdicts after human decisions.

    Keep beats every automatic verdict but one: it is said of pixels, and an exact copy falls because the same pixels
    are in already. Reject drops a crop once the crops were compared with each other (`compared`): until then nothing
    else drops it, for it stands for its copies, or the next one would be published in its place.
    """
    if "decision" not in items.column_names:
        return verdicts
    decision = pc.fill_null(items["decision"], "").combine_chunks()
    is_copy = pc.fill_null(pc.equal(verdicts["reason"].combine_chunks(), EXACT_COPY), False)
    kept = pc.and_(pc.equal(decision, "keep"), pc.invert(is_copy))
    rejected = pc.equal(decision, "reject")
    if not compared:
        kept, rejected = pc.or_(kept, rejected), pc.and_(rejected, pa.scalar(False))
    if not pc.or_(pc.any(kept), pc.any(rejected)).as_py():
        return verdicts
    spoken = pc.or_(kept, rejected)
    columns = {"keep": pc.if_else(spoken, kept, verdicts["keep"].combine_chunks())}
    for name in VERDICTS.names[1:]:
        nothing = pa.nulls(len(items), VERDICTS.field(name).type)
        columns[name] = pc.if_else(spoken, nothing, verdicts[name].combine_chunks())
    columns["reason"] = pc.if_else(rejected, REJECTED, columns["reason"])
    columns["detail"] = pc.if_else(rejected, items["decided_by"].combine_chunks(), columns["detail"])
    return pa.table(columns, schema=VERDICTS)


def count_verdicts(inputs: int, verdicts: pa.Table) -> dict[str, Any]:
    """The accounts of a stage.

    inputs: items that came in. in: items judged; more than inputs where a stage splits items (crop) or adds some
    (augment). in = kept + the sum of dropped, always.
    """
    dropped = verdicts.filter(pc.invert(verdicts["keep"]))["reason"].value_counts()
    by_reason = sorted((entry["values"].as_py(), entry["counts"].as_py()) for entry in dropped)
    kept = int(np.count_nonzero(verdicts["keep"].to_numpy()))
    return {"inputs": inputs, "in": len(verdicts), "kept": kept, "dropped": dict(by_reason)}


def make_ledger(stage: str, items: pa.Table, verdicts: pa.Table) -> pa.Table:
    """LEDGER rows of what a stage dropped, with all that was known of it by then."""
    out = pc.invert(verdicts["keep"])
    dropped, why = items.filter(out), verdicts.filter(out)
    names = dropped["post_id"]
    if "crop_id" in dropped.column_names:
        names = pc.coalesce(dropped["crop_id"], names)
    table = dropped.append_column("stage", pa.array([stage] * len(dropped), pa.string())).append_column(
        "item_id", names
    )
    for name in VERDICTS.names[1:]:
        table = table.append_column(name, why[name])
    return conform(table, LEDGER)


def make_manifest(items: pa.Table) -> pa.Table:
    """MANIFEST rows of what is still in at the end."""
    return conform(items, MANIFEST)
