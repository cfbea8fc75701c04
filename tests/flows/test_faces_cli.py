"""`kaobako faces`, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from flows.cli.faces import faces
from models.faces.detector import DetectorError, Face
from tasks import detection

app = typer.Typer()
app.command()(faces)


class FixedDetector:
    name = "fixed"
    weights: tuple[str, ...] = ()

    def detect(self, rgb: np.ndarray) -> list[Face]:
        return [Face(1, 2, 30, 31, 0.75, self.name)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """With what detectors were loaded."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def load(*arguments: Any, **named: Any) -> FixedDetector:
        calls.append((arguments, named))
        return FixedDetector()

    monkeypatch.setattr(detection, "load_detector", load)
    return calls


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (60, 50), (200, 120, 40)).save(folder / "a.png")
    (folder / "bad.png").write_bytes(b"")
    return folder


def test_faces_are_written_and_bad_pictures_named(pictures: Path, asked: list[Any], tmp_path: Path) -> None:
    table, sheet = tmp_path / "faces.csv", tmp_path / "faces.png"
    arguments = [str(pictures), "--detector", "lbp", "--min-size", "20", "--csv", str(table), "--sheet", str(sheet)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert table.read_text().splitlines() == ["image,x,y,w,h,score,detector", "a.png,1,2,30,31,0.75,fixed"]
    assert sheet.stat().st_size > 100
    assert "1 faces in 1 pictures" in result.output
    assert "bad.png: zero_byte" in result.output and "1 pictures could not be read" in result.output
    assert asked[0][0] == ("lbp", 20, (), 1024)


@pytest.mark.parametrize("word", ["both", "agreement"])
def test_both_means_agreement(word: str, pictures: Path, asked: list[Any], tmp_path: Path) -> None:
    arguments = [str(pictures), "--detector", word, "--csv", str(tmp_path / "f.csv"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert asked[0][0][0] == "agreement"
    values = json.loads(result.stdout)
    assert (values["pictures"], values["faces"], list(values["unreadable"])) == (2, 1, ["bad.png"])


def test_a_network_needs_its_file_and_the_other_way_round(pictures: Path, asked: list[Any], tmp_path: Path) -> None:
    base = [str(pictures), "--csv", str(tmp_path / "f.csv")]
    assert CliRunner().invoke(app, [*base, "--detector", "onnx"]).exit_code == 2
    assert CliRunner().invoke(app, [*base, "--detector", "lbp", "--model", "x.onnx"]).exit_code == 2
    assert not asked
    assert CliRunner().invoke(app, [*base, "--detector", "onnx", "--model", "x.onnx"]).exit_code == 0
    assert asked[0][1] == {"model": Path("x.onnx")}


@pytest.mark.parametrize("word", ["union", "agreement", "both"])
def test_a_network_may_stand_beside_the_other_detectors(
    word: str, pictures: Path, asked: list[Any], tmp_path: Path
) -> None:
    base = [str(pictures), "--csv", str(tmp_path / "f.csv")]
    assert CliRunner().invoke(app, [*base, "--detector", word, "--model", "x.onnx"]).exit_code == 0
    assert asked[0][0][0] == ("union" if word == "union" else "agreement")
    assert asked[0][1] == {"model": Path("x.onnx")}


def test_a_sheet_that_cannot_be_drawn_is_refused_before_the_search(
    pictures: Path, asked: list[Any], tmp_path: Path
) -> None:
    table = tmp_path / "f.csv"
    for name in ("faces.webp", "faces"):
        result = CliRunner().invoke(app, [str(pictures), "--csv", str(table), "--sheet", str(tmp_path / name)])
        assert result.exit_code == 2 and ".png" in result.output
    assert not asked and not table.exists()


def test_every_suffix_of_a_jpeg_is_read(pictures: Path, asked: list[Any], tmp_path: Path) -> None:
    for suffix in ("jpg", "jpeg", "jpe", "JFIF"):
        Image.new("RGB", (60, 50), (200, 120, 40)).save(pictures / f"b.{suffix}", "JPEG")
    result = CliRunner().invoke(app, [str(pictures), "--csv", str(tmp_path / "f.csv"), "--json"])
    assert json.loads(result.stdout)["faces"] == 5


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError(), "memory is full"), (DetectorError("OpenCV cannot run it"), "cannot run it")]
)
def test_a_picture_that_cannot_be_searched_is_named_and_the_others_are_not_lost(
    error: Exception, said: str, pictures: Path, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect(self: FixedDetector, rgb: np.ndarray) -> list[Face]:
        if rgb.shape[0] == 99:
            raise error
        return [Face(1, 2, 30, 31, 0.75, self.name)]

    Image.new("RGB", (60, 99)).save(pictures / "large.png")
    monkeypatch.setattr(FixedDetector, "detect", detect)
    table = tmp_path / "f.csv"
    result = CliRunner().invoke(app, [str(pictures), "--csv", str(table), "--json", "--sheet", str(tmp_path / "f.jpg")])
    assert result.exit_code == 0, result.output
    assert said in json.loads(result.stdout)["unreadable"]["large.png"]
    assert [line.split(",")[0] for line in table.read_text().splitlines()] == ["image", "a.png"]


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, typer; from flows.cli.faces import faces; "
        "print([n for n in ('cv2', 'torch', 'prefect', 'PIL', 'pyarrow', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
