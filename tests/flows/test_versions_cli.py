"""`kaobako versions diff` and `versions why`, on real builds of a little folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def versions(kaobako: Callable[..., Any], recipe_file: Path, store: Path) -> dict[str, float]:
    """little@v1, and little@v2 with a stricter blur; returns the blur of what fell, by crop_id."""
    said = kaobako("curate", recipe_file, "--store", store, "--no-prefect", "--json")
    assert said.code == 0, said.err
    manifest = pq.read_table(Path(json.loads(said.out)["folder"]) / "manifest.parquet")
    blurs = dict(zip(manifest["crop_id"].to_pylist(), manifest["blur"].to_pylist(), strict=True))
    limit = sorted(blurs.values())[1] + 0.001
    stricter = ("--set", f"clean.min_blur={limit}")
    said = kaobako("curate", recipe_file, "--store", store, "--no-prefect", "--json", *stricter)
    assert json.loads(said.out)["version"] == "little@v2"
    return {name: blur for name, blur in blurs.items() if blur < limit}


def test_diff_names_the_threshold_and_the_items(
    kaobako: Callable[..., Any], versions: dict[str, float], store: Path
) -> None:
    said = kaobako("versions", "diff", "little@v1", "little@v2", "--store", store)
    assert said.code == 0, said.err
    assert "little@v1 -> little@v2" in said.out
    assert "clean.min_blur" in said.out
    for name, blur in versions.items():
        assert f"  {name} removed: blur {blur:.6g} against clean.min_blur 0.3 -> " in said.out
    assert "do not say why" not in said.out
    assert kaobako("versions", "diff", "little", "--store", store).out == said.out  # the newest against its parent
    short = kaobako("versions", "diff", "little", "--store", store, "--limit", 0)
    assert "removed: blur" not in short.out


def test_examples_are_the_first_of_each_change_cause_and_parameter() -> None:
    from datasets.diff import DIFF
    from flows.cli.versions import list_examples

    said = {"post_id": "1", "before": "published", "after": "absent", "change": "removed"}
    kinds = [("threshold", "clean.min_blur"), ("source_gone", None), ("threshold", "rank.drop_lowest")]
    rows = [
        said | {"item_id": f"{k}#0", "cause": kinds[k % 3][0], "parameter": kinds[k % 3][1], "detail": f"word {k}"}
        for k in range(7)
    ]
    table = pa.Table.from_pylist(rows, schema=DIFF)
    assert list_examples(table, 2) == [
        "removed, threshold (clean.min_blur):",
        "  0#0 removed: word 0",
        "  3#0 removed: word 3",
        "  and 1 more",
        "removed, source_gone:",
        "  1#0 removed: word 1",
        "  4#0 removed: word 4",
        "removed, threshold (rank.drop_lowest):",
        "  2#0 removed: word 2",
        "  5#0 removed: word 5",
    ]
    assert list_examples(pa.concat_tables([table.slice(0, 3), table.slice(3)]), 2) == list_examples(table, 2)
    assert list_examples(table, 0) == list_examples(DIFF.empty_table(), 3) == []


def test_diff_as_json_and_as_files(
    kaobako: Callable[..., Any], versions: dict[str, float], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "diff.parquet"
    said = json.loads(kaobako("versions", "diff", "little", "--store", store, "--json", "--out", out).out)
    assert (said["before"], said["after"]) == ("little@v1", "little@v2")
    assert said["rows"] == pq.read_table(out).to_pylist()
    assert sum(row["count"] for row in said["summary"]) == said["changed"] == len(said["rows"])
    assert {row["item_id"] for row in said["rows"] if row["parameter"] == "clean.min_blur"} >= set(versions)
    back = json.loads(kaobako("versions", "diff", "little@v2", "little@v1", "--store", store, "--json").out)
    assert {row["item_id"] for row in back["rows"]} == {row["item_id"] for row in said["rows"]}
    csv = tmp_path / "diff.csv"
    assert kaobako("versions", "diff", "little", "--store", store, "--out", csv).code == 0
    assert len(pa_csv.read_csv(csv)) == said["changed"]


def test_diff_of_equal_versions_and_of_a_first_one(
    kaobako: Callable[..., Any], versions: dict[str, float], store: Path, tmp_path: Path
) -> None:
    assert "nothing differs" in kaobako("versions", "diff", "little@v1", "little@v1", "--store", store).out
    first = kaobako("versions", "diff", "little@v1", "--store", store)
    assert (first.code, first.err) == (
        1,
        "error: little@v1 is the first of its dataset: name the version to compare it with\n",
    )
    wrong = kaobako("versions", "diff", "little", "--store", store, "--out", tmp_path / "diff.xlsx")
    assert wrong.code == 1
    assert ".parquet or .csv" in wrong.err


def test_why_says_since_when(kaobako: Callable[..., Any], versions: dict[str, float], store: Path) -> None:
    name, blur = sorted(versions.items())[0]
    traces = json.loads(kaobako("versions", "why", name, "--store", store, "--json").out)
    assert [trace["verdict"] for trace in traces] == ["published", "dropped by clean: blurred"]
    assert [trace["cause"] for trace in traces] == [None, "threshold"]
    assert f"blur {blur:.6g} >= 0.3" in next(s["why"] for s in traces[0]["stages"] if s["stage"] == "clean")
    said = kaobako("versions", "why", name, "--store", store)
    assert f"changed here: {name} removed: blur {blur:.6g} against clean.min_blur 0.3 -> " in said.out


def test_why_lists_what_people_said(
    kaobako: Callable[..., Any], versions: dict[str, float], store: Path, tmp_path: Path
) -> None:
    name = sorted(versions)[0]
    digest = json.loads(kaobako("versions", "why", name, "--store", store, "--json").out)[0]["pixel_digest"]
    (tmp_path / "mine.csv").write_text(f"pixel_digest,decision,who,note\n{digest},keep,mika,soft but fine\n")
    assert kaobako("decisions", "import", tmp_path / "mine.csv", "--store", store).code == 0
    assert "decision: keep by mika, " in kaobako("versions", "why", name, "--store", store).out
    traces = json.loads(kaobako("versions", "why", name, "--store", store, "--json").out)
    assert [d["note"] for d in traces[0]["decisions"]] == ["soft but fine"]


def test_an_unknown_id_gets_near_ones(kaobako: Callable[..., Any], versions: dict[str, float], store: Path) -> None:
    name = sorted(versions)[0]
    said = kaobako("versions", "why", name.partition("#")[0] + "#99", "--store", store)
    assert said.code == 1
    assert f"Near it: {name}" in said.out
