"""`kaobako models import` and `show`, and what the other commands make of the result."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.training.run import RunFolder
from models.training.snapshot import read_record


@pytest.fixture
def file(published: Any, tmp_path: Path) -> Path:
    """A StyleGAN2 of 16 px as others save it."""
    sizes = {"resolution": 16, "base": 64, "most": 8, "clamp": None}
    networks = {"G": published.generator(1, **sizes), "D": published.discriminator(2, **sizes)}
    return published.snapshot(
        tmp_path / "network-snapshot-000100.pkl", **networks, G_ema=published.generator(3, **sizes)
    )


def test_import_then_sample_rank_and_train(kaobako: Callable[..., Any], file: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    said = kaobako("models", "import", file, "--out", run)
    assert said.code == 0, said.err
    go_on = next(line for line in said.out.splitlines() if line.startswith("Go on:"))
    assert "non-commercial" in said.out

    sampled = kaobako(
        "sample", run, "--store", tmp_path / "store", "--no-prefect", "--no-walk", "--out", out, "--seeds", "0-3"
    )
    assert sampled.code == 0, sampled.err
    assert cv2.imread(str(out / "grid.png")).std() > 10

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k in range(8):
        cv2.imwrite(str(pictures / f"{k}.png"), np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    options = go_on.split(f"--transfer {run} ")[1].split()
    trained = kaobako(
        *("train", "--data", pictures, "--out", tmp_path / "second", "--transfer", run, *options, "--no-prefect"),
        *("--kimg", "0.008", "--batch", "8", "--set", "tick_kimg=0.008", "--set", "device=cpu"),
    )
    assert trained.code == 0, trained.err
    records = RunFolder(tmp_path / "second").snapshot_records()
    first = read_record(RunFolder(run).snapshot_records()[0])
    assert [read_record(path).config.transfer for path in records] == [first.weights_sha256] * len(records)
    assert "of another shape" not in trained.err
    assert "not in the snapshot" not in trained.err

    resumed = kaobako("train", "--resume", "--out", run, "--no-prefect")
    assert resumed.code == 1
    assert "was imported" in resumed.err
    assert f"--transfer {run}" in resumed.err


def test_show_a_file_a_run_and_a_snapshot(kaobako: Callable[..., Any], file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert kaobako("models", "import", file, "--out", run).code == 0
    told = json.loads(kaobako("models", "show", file, "--json").out)
    assert told["problem"] is None
    assert all(told["asks_for"].values())
    assert {network["name"]: network["kind"] for network in told["networks"]} == {
        "G": "Generator", "D": "Discriminator", "G_ema": "Generator"
    }  # fmt: skip
    assert told["settings"]["z_dim"] == 8
    assert told["networks"][0]["source_length"] > 0
    for what in (run, run / "snapshots" / "snapshot-000000000.safetensors"):
        snapshot = json.loads(kaobako("models", "show", what, "--json").out)
        assert snapshot["about"]["origin"]["file"] == file.name
        assert [network["name"] for network in snapshot["networks"]] == ["D", "G", "G_ema"]
    table = kaobako("models", "show", file, "--tensors")
    assert table.code == 0
    assert "synthesis.b4.const" in table.out


def test_what_is_not_there_or_damaged_is_told_in_one_line(
    kaobako: Callable[..., Any], file: Path, tmp_path: Path
) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    assert kaobako("models", "import", file, "--out", run).code == 0
    (run / "origin.json").write_text("{", encoding="utf-8")
    out = tmp_path / "out"
    for words, message in (
        (("show", "nope.pkl"), "there is no file or run nope.pkl"),
        (("show", "nope"), "no run 'nope'"),
        (("show", run), "cannot read where the imported networks come from"),
        (("export", run, "--out", out, "--format", "safetensors"), "cannot read where the imported networks come from"),
        (("export", file, "--out", out), f"import it first, kaobako models import {file}"),
    ):
        said = kaobako("models", words[0], "--store", store, *words[1:])
        assert (said.code, len(said.err.strip().splitlines())) == (1, 1), said.err
        assert message in said.err


def test_a_refused_file_is_told_in_one_line_and_shown(kaobako: Callable[..., Any], tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return eval, (f"open({str(marker)!r}, 'w')",)

    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps({"G_ema": Evil()}, 4))
    refused = kaobako("models", "import", evil, "--out", tmp_path / "run")
    assert (refused.code, len(refused.err.strip().splitlines())) == (1, 1)
    assert "asks for builtins.eval" in refused.err
    shown = kaobako("models", "show", evil, "--json")
    assert shown.code == 1
    assert json.loads(shown.out)["asks_for"] == {"builtins.eval": False}
    shown = kaobako("models", "show", evil)
    assert "builtins.eval" in shown.out
    assert not marker.exists()
    assert not (tmp_path / "run").exists()
