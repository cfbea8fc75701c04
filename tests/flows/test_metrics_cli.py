"""`kaobako metrics` on the command line without Prefect, and its flow's artifacts on a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import flows.sample
import tasks.metrics
from models.gan.dcgan import initialise
from models.training.config import DatasetRef, DCGANConfig, DeviceChoice, TrainingConfig
from models.training.networks import build_generator
from models.training.run import RunFolder
from models.training.snapshot import save_snapshot


class Colours:
    """An extractor of sorts: mean colours of the quarters of a picture."""

    name, digest, features = "colours", "c" * 64, 12

    def extract(self, pictures: np.ndarray) -> np.ndarray:
        small = [cv2.resize(picture, (2, 2), interpolation=cv2.INTER_AREA).reshape(-1) for picture in pictures]
        return np.asarray(small, np.float32) / 255


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    """A folder of 20 pictures."""
    folder = tmp_path / "reals"
    folder.mkdir()
    for number in range(20):
        coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:02d}.png"), cv2.resize(coarse, (16, 16), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture
def run(tmp_path: Path, reals: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder outside any store: a DCGAN of 16 pixels that was never trained, on those pictures."""
    monkeypatch.setattr(tasks.metrics, "load_extractor", lambda spec, device, folders: Colours())
    config = TrainingConfig(algorithm=DCGANConfig(z_dim=8, width=4), resolution=16, device=DeviceChoice.CPU)
    network = build_generator(config)
    initialise(network, torch.Generator().manual_seed(0))
    dataset = DatasetRef("reals", 0, "0" * 64, 20)
    folder = RunFolder(tmp_path / "elsewhere")
    folder.write_config(config, dataset, torch.device("cpu"))
    save_snapshot(folder.snapshots, 0, config, dataset, {"G_ema": network}, {})
    (folder.path / "data.json").write_text(json.dumps({"kind": "folder", "path": str(reals)}), encoding="utf-8")
    return folder.path


def test_a_table_for_people(kaobako: Callable[..., Any], run: Path, reals: Path, tmp_path: Path) -> None:
    said = kaobako(
        *("metrics", run, "--store", tmp_path / "store", "--no-prefect", "--samples", "32", "--all-snapshots"),
        *("--against", reals),
    )
    assert said.code == 0, said.err
    for part in ("KID x 1000", "FID", "precision", "recall", "±", "32 fakes against 20 reals"):
        assert part in said.out.replace("\n", " "), part
    assert "reals against reals, 10 each" in said.out
    assert "FID, precision and recall depend on the counts, here 20 reals and 32 fakes" in said.out
    rows = [line for line in said.out.splitlines() if line.startswith("│")]
    assert [len([cell for cell in row.split("│") if cell.strip()]) for row in rows] == [
        5,
        2,
    ]  # KID alone has a baseline
    assert "no generator can do better" not in said.out
    for what in ("files of reals: 20 of 20", "reals: 20 of 20", "fakes: 32 of 32"):
        assert what in said.err.splitlines()
    assert "By features, " in said.out
    assert "were changed" in said.out  # the run says another digest
    drawn = sorted(path.name for path in (run / "metrics").iterdir())
    assert [re.sub("-[0-9a-f]{8}[.]", "-DIGEST.", name) for name in drawn] == [
        "kid.png",
        "neighbours-000000000-DIGEST.png",
        "neighbours-histogram-000000000-DIGEST.png",
    ]
    assert all(f"{run}/metrics/{name}" in said.out for name in drawn)
    assert not (tmp_path / "store").exists()


def test_json(kaobako: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    command = (
        "metrics",
        run,
        "--store",
        tmp_path / "store",
        "--no-prefect",
        "--samples",
        "32",
        "--json",
        "--seed",
        "7",
    )
    said = kaobako(*command, "--no-neighbours")
    assert said.code == 0, said.err
    made = json.loads(said.out)
    assert [line["figure"] for line in made["metrics"]] == ["kid", "fid", "precision", "recall"]
    assert made["metrics"][0]["seeds"] == "7-38"
    assert made["metrics"][0]["name"].startswith("kid32_colours_16x16_reals-")
    assert made["pictures"] == {}
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == made["metrics"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--psi", ".7"), "truncation (--psi) needs a network with styles"),
        (("--against", "faces@v1"), "no dataset 'faces'"),
        (("--against", "no/where"), "there is no folder no/where"),
        (("--held-out", "faces"), "no dataset 'faces'"),
    ],
)
def test_refusals_are_one_line(
    kaobako: Callable[..., Any], run: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    told = kaobako("metrics", run, "--store", tmp_path / "store", "--no-prefect", *options)
    assert told.code == 1
    assert told.err.startswith("error: ")
    assert said in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not (run / "metrics.jsonl").exists()


def test_missing_weights_name_the_command(
    kaobako: Callable[..., Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.metrics.extractors import load_extractor

    monkeypatch.setattr(tasks.metrics, "load_extractor", load_extractor)
    monkeypatch.delenv("KAOBAKO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    told = kaobako("metrics", run, "--store", tmp_path / "store", "--no-prefect")
    assert told.code == 1
    assert "kaobako weights fetch hed-vgg4" in told.err


@pytest.mark.prefect
def test_figures_and_pictures_are_artifacts(
    run: Path,
    tmp_path: Path,
    prefect_api: Any,
    read_artifacts: Callable[[Any], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.metrics import SHOWN_BYTES, metrics
    from tasks.metrics import MetricsParams, MetricsReport

    monkeypatch.setattr(flows.sample, "SECONDS_BETWEEN_REPORTS", 0.0)
    params = MetricsParams(samples=32, all_snapshots=True)
    state = metrics(str(run), "", params, tmp_path / "store", return_state=True)
    report = MetricsReport.from_summary(state.result())
    artifacts = read_artifacts(state)
    rows = json.loads(artifacts["metrics"].data)
    assert [row[""] for row in rows] == ["32 fakes against 20 reals", "reals against reals, 10 each"]
    assert list(rows[0]) == ["", "KID x 1000", "FID", "precision", "recall"]
    assert all("±" in row["KID x 1000"] for row in rows)
    assert [row["FID"] == "" for row in rows] == [False, True]
    shown = artifacts["metrics-pictures"].data
    assert set(report.pictures) == {"neighbours", "neighbours-histogram", "curve"}
    for name, path in report.pictures.items():
        assert f"![{name}](data:image/jpeg;base64," in shown
        assert f"`{path}`" in shown
    assert all(verdict in shown for verdict in report.verdicts)
    assert len(shown) < 1.5 * SHOWN_BYTES
    assert float(artifacts["sampling"].data) == 100.0
