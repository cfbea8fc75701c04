"""Rank: how real each picture looks to the discriminator of an earlier run.

Look at both ends before cutting: the lowest scores are not only bad pictures, the highest not only good ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from datasets.cache import INPUT
from datasets.errors import StoreError
from datasets.store import Store
from models.device import best_device
from models.gan.scoring import load_discriminator
from models.training.run import RunFolder
from models.training.run import find_snapshot as find_sound_snapshot
from tasks.gpu import gpu_slot
from tasks.pictures import open_blobs
from tasks.shards import ShardRef, ShardResult, measure_shard, shard_task
from tasks.stage import Facts, Shard, Stage, StageParams, Threshold, join_facts
from tasks.verdicts import Verdicts

STAGE_VERSION = 1
_BATCH = 64

FACTS = pa.schema([pa.field(INPUT, pa.string(), nullable=False), ("d_score", pa.float64())])


class RankParams(StageParams):
    """Which discriminator scores, and what its scores may drop."""

    measured: ClassVar[frozenset[str]] = frozenset({"run"})

    run: str = Field(
        "",
        description="Run whose newest discriminator scores: its id in the store, or its folder; or a snapshot's file "
        "(an early one ranks better); empty: nothing is ranked",
    )
    drop_lowest: float = Field(0.0, ge=0, lt=100, description="Percent of the lowest scores to drop")
    drop_highest: float = Field(0.0, ge=0, lt=100, description="Percent of the highest scores to drop")


def find_snapshot(run: str, store: Store) -> Path:
    """The newest snapshot of a run, by its id in the store or its folder; or the snapshot whose file is named.

    A file's path may begin at the store's runs: `faces-000/snapshots/snapshot-000200000.json`. Raises StoreError when
    there is none, models' RunError or SnapshotError for a file that is no sound snapshot.
    """
    for file in (store.runs / run, Path(run).expanduser()):
        if file.is_file():
            return find_sound_snapshot(file)
    folder = store.runs / run if (store.runs / run).is_dir() else Path(run).expanduser()
    snapshot = RunFolder(folder).latest_snapshot() if folder.is_dir() else None
    if snapshot is None:
        known = sorted(p.name for p in store.runs.iterdir()) if store.runs.is_dir() else []
        raise StoreError(
            f"rank.run names {run!r}, which has no snapshot. Runs in this store: {', '.join(known) or 'none'}. "
            "Train one with `kaobako train NAME@V`, or leave rank.run empty."
        )
    return snapshot


def name_weights(params: RankParams, store: Store) -> dict[str, str]:
    """The discriminator by its digest: another snapshot gives other scores."""
    if not params.run:
        return {}
    return {f"discriminator of {params.run}": load_discriminator(find_snapshot(params.run, store)).digest}


def measure(pictures: Shard, params: RankParams) -> Facts:
    """The discriminator's logit for each published picture: one row of FACTS per distinct blob."""
    scorer = load_discriminator(find_snapshot(params.run, pictures.store), best_device())
    if scorer.digest not in pictures.digests.values():
        raise StoreError(f"the run {params.run} has got a new snapshot since this build began. Run the build again.")
    inputs: list[str] = []
    scores: list[float] = []
    batch: list[np.ndarray] = []
    for digest, rgb in open_blobs(pictures, "blob"):
        inputs.append(digest)
        batch.append(rgb)
        if len(batch) == _BATCH:
            scores.extend(scorer.score(batch).tolist())
            batch = []
    if batch:
        scores.extend(scorer.score(batch).tolist())
    return Facts(pa.table({INPUT: inputs, "d_score": scores}, schema=FACTS), opened=len(inputs))


def add_percentiles(items: pa.Table, facts: pa.Table) -> pa.Table:
    """Items with their score and its percentile in the set: 0 for the lowest, 100 for the highest; ties share."""
    joined = join_facts(items, facts)
    scores = joined["d_score"].to_numpy()
    ordered = np.sort(scores)
    below = (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right") - 1) / 2
    percentiles = np.round(100.0 * below / max(1, len(scores) - 1), 4)
    return joined.append_column("d_percentile", pa.array(percentiles))


THRESHOLDS = (
    Threshold("d_percentile", "rank.drop_lowest", "ranked_low"),
    Threshold("d_percentile", "rank.drop_highest", "ranked_high", "<=", lambda params: 100.0 - params.drop_highest),
)


def decide(pictures: pa.Table, params: RankParams) -> pa.Table:
    """Verdicts on pictures by their percentile."""
    verdicts = Verdicts(pictures)
    for rule in THRESHOLDS:
        verdicts.hold(rule, params)
    return verdicts.table()


STAGE = Stage(
    name="rank",
    version=STAGE_VERSION,
    params=RankParams,
    decide=decide,
    measure=measure,
    facts=FACTS,
    input_column="blob",
    expand=add_percentiles,
    weights=name_weights,
    thresholds=THRESHOLDS,
    enabled=lambda params: bool(params.run),
    off_because="rank.run names no discriminator: nothing was ranked",
)


@shard_task("rank")
def rank_shard(shard: ShardRef) -> ShardResult:
    with gpu_slot():
        return measure_shard(STAGE, shard)
