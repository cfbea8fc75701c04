"""Augment: derived pictures beside their parents. Off by default: trainers mirror and augment while they train."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from datasets.cache import INPUT
from datasets.pictures import encode_png
from models.hashing import mirrored
from tasks.pictures import open_blobs
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, Verdicts, join_facts

STAGE_VERSION = 1
MIRROR = "mirror"

FACTS = pa.schema([pa.field(INPUT, pa.string(), nullable=False), ("mirror_blob", pa.string())])


class AugmentParams(StageParams):
    """Which derived pictures are published beside each picture."""

    measured: ClassVar[frozenset[str]] = frozenset()

    mirror: bool = Field(False, description="Publish the mirror image of each picture too")


def measure(pictures: Shard, params: AugmentParams) -> Facts:
    """The mirror image of each published picture, as a PNG blob: one row of FACTS per distinct blob."""
    rows = [
        {INPUT: digest, "mirror_blob": pictures.store.blobs.put(encode_png(mirrored(rgb)))}
        for digest, rgb in open_blobs(pictures, "blob")
    ]
    return Facts(pa.Table.from_pylist(rows, schema=FACTS), opened=len(rows))


def add_children(items: pa.Table, facts: pa.Table) -> pa.Table:
    """Items and, after all of them, their children: `<crop_id>+mirror`, with the crop they are derived from."""
    joined = join_facts(items, facts)
    nothing = pa.nulls(len(joined), pa.string())
    parents = joined.drop_columns(["mirror_blob"])
    parents = parents.append_column("augmentation", nothing).append_column("parent_crop", nothing)
    children = parents
    changed = {
        "crop_id": pc.binary_join_element_wise(joined["crop_id"], MIRROR, "+"),
        "blob": joined["mirror_blob"],
        "augmentation": pa.array([MIRROR] * len(joined), pa.string()),
        "parent_crop": joined["crop_id"],
    }
    for name, column in changed.items():
        children = children.set_column(children.column_names.index(name), name, column)
    return pa.concat_tables([parents, children]).combine_chunks()


def decide(pictures: pa.Table, params: AugmentParams) -> pa.Table:
    """Everything stays."""
    return Verdicts(pictures).table()


STAGE = Stage(
    name="augment",
    version=STAGE_VERSION,
    params=AugmentParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    input_column="blob",
    expand=add_children,
    blobs=("mirror_blob",),
    enabled=lambda params: params.mirror,
    off_because="augment.mirror is false: training mirrors on the fly",
)


@shard_task("augment")
def augment_shard(shard: ShardRef) -> ShardResult:
    return measure_shard(STAGE, shard)
