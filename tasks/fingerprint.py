"""Fingerprint: the digest of each source file that the filter let pass, read once for each change of the file.

Not a stage: it judges nothing. It gives the crop stage its input digests, so that a file that was moved, renamed or
merely touched is never decoded again.
"""

from __future__ import annotations

import logging
from typing import ClassVar

import pyarrow as pa

from datasets.cache import INPUT
from datasets.digests import digest_file
from datasets.sources.read import locate
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams
from tasks.verdicts import Verdicts

STAGE_VERSION = 1
log = logging.getLogger(__name__)

FACTS = pa.schema([pa.field(INPUT, pa.string(), nullable=False), ("file_digest", pa.string())])


class FingerprintParams(StageParams):
    """Nothing to set."""

    measured: ClassVar[frozenset[str]] = frozenset()


def measure(posts: Shard, params: FingerprintParams) -> Facts:
    """SHA-256 of each file: one row of FACTS per file stamp.

    A file that cannot be read gets no row, so that the next build tries again; this one drops the post.
    """
    rows = []
    for row in posts.rows():
        path = locate(posts.source_root, row["source_path"])
        try:
            rows.append({INPUT: row[INPUT], "file_digest": digest_file(path)})
        except OSError as error:
            log.warning("%s cannot be read: %s", row["source_path"], error)
    return Facts(pa.Table.from_pylist(rows, schema=FACTS), opened=0)


def decide(posts: pa.Table, params: FingerprintParams) -> pa.Table:
    """Judges nothing."""
    return Verdicts(posts).table()


STAGE = Stage(
    name="fingerprint",
    version=STAGE_VERSION,
    params=FingerprintParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    input_column="file_stamp",
    may_lack_facts=True,
)


@shard_task("fingerprint")
def fingerprint_shard(shard: ShardRef) -> ShardResult:
    return measure_shard(STAGE, shard)
