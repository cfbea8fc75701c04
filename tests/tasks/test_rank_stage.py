"""Rank: percentiles of given scores, thresholds on them, and the cache key of the discriminator."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.cache import INPUT
from datasets.errors import StoreError
from datasets.store import Store
from models.gan import dcgan
from models.training.config import DatasetRef, DCGANConfig, DeviceChoice, TrainingConfig
from models.training.networks import build_discriminator
from models.training.run import RunError, RunFolder
from models.training.snapshot import save_snapshot
from tasks.rank import FACTS, RankParams, add_percentiles, decide, find_snapshot, name_weights


def ranked(scores: list[float]) -> pa.Table:
    names = [f"b{k}" for k in range(len(scores))]
    facts = pa.table({INPUT: names, "d_score": pa.array(scores, pa.float64())}, schema=FACTS)
    return add_percentiles(pa.table({INPUT: pa.array(names, pa.string())}), facts)


def test_percentiles_run_from_0_to_100_and_ties_share() -> None:
    assert ranked([3.0, 1.0, 2.0])["d_percentile"].to_pylist() == [100.0, 0.0, 50.0]
    assert ranked([1.0, 1.0, 5.0])["d_percentile"].to_pylist() == [25.0, 25.0, 100.0]
    assert ranked([2.0, 2.0])["d_percentile"].to_pylist() == [50.0, 50.0]
    assert ranked([4.0])["d_percentile"].to_pylist() == [0.0]
    assert ranked([])["d_percentile"].to_pylist() == []


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scores=st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=30))
def test_percentiles_keep_the_order_of_scores(scores: list[float]) -> None:
    percentiles = ranked(scores)["d_percentile"].to_numpy()
    assert np.all((percentiles >= 0) & (percentiles <= 100))
    assert np.mean(percentiles) == pytest.approx(50, abs=0.01)
    for i, one in enumerate(scores):
        for j, other in enumerate(scores):
            assert np.sign(one - other) == np.sign(percentiles[i] - percentiles[j])


@pytest.mark.parametrize(
    ("params", "dropped"),
    [
        ({}, {}),
        ({"drop_lowest": 20}, {0: "ranked_low", 1: "ranked_low"}),
        ({"drop_highest": 10}, {10: "ranked_high"}),
        ({"drop_lowest": 10, "drop_highest": 20}, {0: "ranked_low", 9: "ranked_high", 10: "ranked_high"}),
    ],
)
def test_both_ends_can_be_cut(params: dict[str, Any], dropped: dict[int, str]) -> None:
    reasons = decide(ranked([float(k) for k in range(11)]), RankParams(run="r", **params))["reason"].to_pylist()
    assert {k: reason for k, reason in enumerate(reasons) if reason} == dropped


def test_a_run_without_a_snapshot_is_an_error_that_names_the_runs(store: Store) -> None:
    with pytest.raises(StoreError, match="Runs in this store: none"):
        find_snapshot("absent", store)
    (store.runs / "faces-000").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"faces-000.*kaobako train"):
        find_snapshot("faces-000", store)


def test_an_early_snapshot_can_be_named_by_its_file(store: Store, tmp_path: Path) -> None:
    """By its path, or by one that begins at the store's runs; its weights are the cache's key, not its name."""
    config = TrainingConfig(algorithm=DCGANConfig(z_dim=8, width=4), resolution=16, device=DeviceChoice.CPU)
    dataset = DatasetRef("discs", 1, "0" * 64, 10)
    run = RunFolder(store.runs / "discs-000")
    run.write_config(config, dataset, torch.device("cpu"))
    for nimg in (1000, 2000):
        network = build_discriminator(config)
        dcgan.initialise(network, torch.Generator().manual_seed(nimg))
        save_snapshot(run.snapshots, nimg, config, dataset, {"D": network}, {})
    early, late = run.snapshot_records()
    inside = early.relative_to(store.runs).as_posix()
    assert find_snapshot("discs-000", store) == late
    assert find_snapshot(inside, store) == find_snapshot(str(early), store) == early

    def digest(name: str) -> str:
        (one,) = name_weights(RankParams(run=name), store).values()
        return one

    weights = early.with_suffix(".safetensors")
    copied = shutil.copyfile(weights, tmp_path / "copy.safetensors")
    assert digest(inside) == digest(str(weights)) == digest(str(copied)) != digest("discs-000")
    assert digest(str(late)) == digest("discs-000")
    with pytest.raises(RunError, match="neither a run folder nor a snapshot"):
        find_snapshot(str(shutil.copyfile(run.config_file, tmp_path / "config.toml")), store)
