"""`kaobako export`: every format from one version, refusals before anything is written, JSON that parses."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FORMATS = ("stylegan", "tfrecord", "webdataset", "imagefolder", "parquet", "folder")


@pytest.fixture
def export(kaobako: Callable[..., Any], recipe_file: Path, tmp_path: Path) -> Callable[..., Any]:
    """export(*arguments) -> what the command said, on a store with a version of the little folder."""
    store = tmp_path / "store"
    said = kaobako("curate", recipe_file, "--store", store, "--no-prefect", "--json")
    assert said.code == 0, said.err

    def run(*arguments: str | Path) -> Any:
        return kaobako("export", "little", "--store", store, *arguments)

    return run


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format(export: Callable[..., Any], tmp_path: Path, file_format: str) -> None:
    out = tmp_path / "exports" / ("little.zip" if file_format == "stylegan" else "little")
    arguments = ("--format", file_format, "--out", out, "--json")
    looked = export(*arguments, "--dry-run")
    assert looked.code == 0, looked.err
    assert json.loads(looked.out)["problems"] == []
    assert not out.parent.exists()
    said = json.loads(export(*arguments).out)
    assert (said["pictures"], said["written"], said["version"]) == (24, True, "little@v1")
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    again = json.loads(export(*arguments).out)
    assert (again["written"], again["already_there"]) == (False, True)


def test_what_it_says_to_people(export: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "faces.zip"
    looked = export("--format", "stylegan", "--out", out, "--dry-run")
    assert looked.out.startswith("Nothing is wrong: 24 pictures of little@v1 as stylegan would take about 0.3 MB")
    assert "24 pictures of little@v1 as stylegan." in export("--format", "stylegan", "--out", out).out
    assert "already is" in export("--format", "stylegan", "--out", out).out
    assert zipfile.is_zipfile(out)
    plain = export("--format", "folder", "--out", tmp_path / "plain")
    assert "24 are hard links" in plain.out or "24 are copies" in plain.out


def test_a_refusal_lists_everything_and_writes_nothing(export: Callable[..., Any], tmp_path: Path) -> None:
    listed = tmp_path / "problems.csv"
    arguments = ("--format", "stylegan", "--out", tmp_path / "out.zip", "--classes", "smile, hat")
    said = export(*arguments, "--problems", listed)
    assert said.code == 1
    assert "26 problems: nothing was written" in said.err
    assert "no_label: 24" in said.out
    rows = list(csv.DictReader(listed.open(encoding="utf-8")))
    assert [row["kind"] for row in rows] == ["unused_label"] * 2 + ["no_label"] * 24
    assert all(row["crop_id"] for row in rows[2:])
    assert not (tmp_path / "out.zip").exists()
    as_json = export(*arguments, "--json")
    assert as_json.code == 1
    assert len(json.loads(as_json.out)["problems"]) == 26


def test_long_lists_are_cut_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from datasets.exports.preflight import Kind, Problem
    from flows.cli.export import _print_problems

    _print_problems([Problem(f"{k}#0", Kind.NOT_SQUARE, "8x9") for k in range(1234)])
    said = capsys.readouterr().out
    assert "not_square: 1234" in said
    assert "49#0" in said
    assert "50#0" not in said
    assert "and 1184 more" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--labels-tag", "a", "--classes", "b"), "not both"),
        (("--classes", "a", "--classes-from", "rating"), "not both"),
        (("--classes-from", "mood"), "is not in the manifest"),
        (("--out", "/"), "no name for something new"),
        (("--labels-tag", "a", "--labels-tag", "a"), "more than once"),
    ],
)
def test_errors_are_one_line(
    export: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    said = export("--format", "folder", "--out", tmp_path / "out", *arguments)
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert not (tmp_path / "out").exists()


def test_classes_from_a_column(export: Callable[..., Any], tmp_path: Path) -> None:
    said = export("--format", "imagefolder", "--out", tmp_path / "out", "--classes-from", "post_id", "--json")
    assert said.code == 0, said.out
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 24
    nothing = export("--format", "imagefolder", "--out", tmp_path / "other", "--classes-from", "detector")
    assert nothing.code == 1
    assert "no_label: 24" in nothing.out


def test_verify_lists_what_a_look_does_not_see(export: Callable[..., Any], tmp_path: Path) -> None:
    blobs = sorted((tmp_path / "store" / "blobs").rglob("*.png"))
    for blob in blobs:
        data = bytearray(blob.read_bytes())
        data[-20] ^= 1
        blob.write_bytes(data)
    arguments = ("--format", "parquet", "--out", tmp_path / "out", "--dry-run", "--json")
    assert json.loads(export(*arguments).out)["problems"] == []
    verified = export(*arguments, "--verify")
    assert verified.code == 1
    assert [problem["kind"] for problem in json.loads(verified.out)["problems"]] == ["damaged_blob"] * 24


def test_help_teaches_every_format(kaobako: Callable[..., Any]) -> None:
    said = kaobako("export", "--help")
    assert said.code == 0
    for file_format in FORMATS:
        assert f"--format {file_format} --out" in said.out


def test_a_split_is_one_export_per_part_with_nothing_on_two_sides(export: Callable[..., Any], tmp_path: Path) -> None:
    arguments = ("--format", "folder", "--out", tmp_path / "pictures", "--json")
    said = json.loads(export(*arguments, "--split", "train=.7,test=.3").out)
    assert [Path(row["out"]).name for row in said] == ["pictures-train", "pictures-test"]
    names = [{row["crop_id"] for row in read_csv(Path(row["out"]) / "manifest.csv")} for row in said]
    assert all(names)
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 24
    again = json.loads(export(*arguments, "--split", "train=.7,test=.3").out)
    assert [row["already_there"] for row in again] == [True, True]
    other = export(*arguments, "--split", "train=.7,test=.3", "--split-seed", "1")
    assert other.code == 1  # another draw does not silently stand for this one
    assert "add up to 1" in export(*arguments, "--split", "train=.7,test=.2").err


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_class_that_one_part_lacks_is_no_mistake(export: Callable[..., Any], tmp_path: Path) -> None:
    arguments = ("--format", "stylegan", "--out", tmp_path / "p.zip", "--classes-from", "source_path", "--json")
    said = export(*arguments, "--split", "train=.7,test=.3")
    assert said.code == 0, said.out
    with zipfile.ZipFile(tmp_path / "p-train.zip") as train, zipfile.ZipFile(tmp_path / "p-test.zip") as test:
        classes = [{label for _, label in json.loads(z.read("dataset.json"))["labels"]} for z in (train, test)]
    assert classes[0] | classes[1] == set(range(24))  # numbers of the whole version, not of a part
    assert not classes[0] & classes[1]


def test_the_parts_of_a_split_must_fit_together(
    export: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets.exports import preflight

    arguments = ("--format", "stylegan", "--out", tmp_path / "p.zip", "--split", "train=.7,test=.3", "--json")
    needed = [row["estimated_bytes"] for row in json.loads(export(*arguments, "--dry-run").out)]
    usage = type("usage", (), {"free": preflight._MARGIN + max(needed) + min(needed) // 2})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: usage)
    said = export(*arguments)
    assert said.code == 1
    assert [[p["kind"] for p in row["problems"]] for row in json.loads(said.out)] == [[], ["no_space"]]
    assert not list(tmp_path.glob("*.zip"))
