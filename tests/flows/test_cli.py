"""The command line: quick help, one-line errors, JSON that parses, and a build without Prefect."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flows.cli.app

HEAVY = (
    "torch",
    "cv2",
    "prefect",
    "fiftyone",
    "pandas",
    "pyarrow",
    "numpy",
    "av",
    "animeface",
    "h5py",
    "onnx",
    "httpx",
)
LOOK = """
import contextlib, io, sys
from flows.cli import main
for arguments in (
    "--help", "curate --help", "train --help", "versions show --help", "doctor -h", "models import --help",
    "models export --help", "metrics --help",
):
    sys.argv = ["kaobako", *arguments.split()]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:
        main()
    assert "Usage" in said.getvalue(), arguments
print(" ".join(name for name in sys.argv_heavy if name in sys.modules))
"""


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys; sys.argv_heavy = {HEAVY!r}\n{LOOK}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_script_is_installed() -> None:
    script = Path(sys.executable).with_name("kaobako")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "curate" in done.stdout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def built(kaobako: Callable[..., Any], recipe_file: Path, store: Path) -> dict[str, Any]:
    """A version of the little folder in `store`."""
    said = kaobako("curate", recipe_file, "--store", store, "--no-prefect", "--json")
    assert said.code == 0, said.err
    made: dict[str, Any] = json.loads(said.out)
    return made


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("curate", "none.toml", "--no-prefect"), "there is no recipe none.toml"),
        (("curate", "none.toml", "--no-prefect", "--json"), "there is no recipe none.toml"),
        (("versions", "show", "faces"), "faces"),
        (("versions", "show", "faces@v3"), "faces"),
        (("versions", "verify", "../faces"), "faces"),
        (("train", "faces", "--no-prefect"), "faces"),
        (("sample", "--no-prefect"), "kaobako train"),
        (("sample", "no-such-run", "--no-prefect"), "no-such-run"),
        (("decisions", "import", "none.csv"), "none.csv"),
    ],
)
def test_errors_are_one_line(
    kaobako: Callable[..., Any], store: Path, arguments: tuple[str, ...], expected: str
) -> None:
    said = kaobako(*arguments, "--store", store)
    assert said.code == 1
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert expected in said.err


def test_a_bad_setting_is_named_before_any_work(kaobako: Callable[..., Any], recipe_file: Path, store: Path) -> None:
    said = kaobako("curate", recipe_file, "--store", store, "--no-prefect", "--set", "crop.min_sise=3")
    assert said.code == 1
    assert "crop.min_sise" in said.err
    assert "Traceback" not in said.err
    assert not (store / "datasets").exists()


def test_a_bug_keeps_its_traceback(kaobako: Callable[..., Any], store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("datasets.version.list_versions", broken)
    with pytest.raises(ZeroDivisionError):
        kaobako("versions", "list", "--store", store)


def test_a_second_build_opens_nothing_and_publishes_nothing(
    kaobako: Callable[..., Any], built: dict[str, Any], recipe_file: Path, store: Path, pictures: Path
) -> None:
    assert built["version"] == "little@v1"
    assert built["published"] is True
    assert built["counts"]["filter"]["in"] == len(list(pictures.iterdir()))
    dropped = [reason for row in built["counts"].values() for reason in row["dropped"]]
    assert "exact_copy" in dropped
    assert sum(built["opened"].values()) > 0
    said = kaobako("curate", recipe_file, "--store", store, "--no-prefect", "--json")
    again = json.loads(said.out)
    assert again["published"] is False
    assert (again["version"], again["content_digest"]) == (built["version"], built["content_digest"])
    assert again["opened"] == {}
    assert again["counts"] == built["counts"]


def test_a_build_tells_people_what_to_do_next(kaobako: Callable[..., Any], recipe_file: Path, store: Path) -> None:
    said = kaobako("curate", recipe_file, "--store", store, "--no-prefect")
    assert said.code == 0
    for word in ("little@v1", "exact_copy", "kaobako review little@v1", "kaobako train little@v1"):
        assert word in said.out
    assert Path(said.out.split("Card:")[1].split("\n")[0].strip()).is_file()


def test_versions_are_listed_shown_and_verified(
    kaobako: Callable[..., Any], built: dict[str, Any], store: Path
) -> None:
    (listed,) = json.loads(kaobako("versions", "list", "--store", store, "--json").out)
    kept = list(built["counts"].values())[-1]["kept"]
    assert (listed["version"], listed["published"], listed["parent"]) == ("little@v1", kept, None)
    shown = json.loads(kaobako("versions", "show", "little", "--store", store, "--json").out)
    assert shown["content_digest"] == built["content_digest"]
    assert shown["recipe"]["crop"]["method"] == "whole"
    assert "exact_copy" in kaobako("versions", "show", "little@v1", "--store", store).out
    verified = json.loads(kaobako("versions", "verify", "little", "--store", store, "--json").out)
    assert verified == {"version": "little@v1", "sound": True, "problems": []}


def test_a_damaged_blob_is_found(kaobako: Callable[..., Any], built: dict[str, Any], store: Path) -> None:
    import pyarrow.parquet as pq

    blob = pq.read_table(Path(built["folder"]) / "manifest.parquet")["blob"][0].as_py()
    (path,) = (store / "blobs").rglob(f"{blob}*")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    said = kaobako("versions", "verify", "little", "--store", store, "--json")
    assert said.code == 1
    assert json.loads(said.out)["sound"] is False
    assert blob[:12] in said.out


def test_every_item_has_a_why(kaobako: Callable[..., Any], built: dict[str, Any], store: Path) -> None:
    import pyarrow.parquet as pq

    folder = Path(built["folder"])
    kept = pq.read_table(folder / "manifest.parquet")["crop_id"][0].as_py()
    (trace,) = json.loads(kaobako("versions", "why", kept, "--store", store, "--json").out)
    assert (trace["item_id"], trace["verdict"]) == (kept, "published")
    for row in pq.read_table(folder / "ledger.parquet").select(["item_id", "stage", "reason"]).to_pylist():
        traces = json.loads(kaobako("versions", "why", row["item_id"], "--store", store, "--json").out)
        (end,) = (step for step in traces[0]["stages"] if step["stage"] == row["stage"])
        assert row["reason"] in end["why"] or row["reason"].replace("_", " ") in end["why"]
    said = kaobako("versions", "why", "nobody", "--store", store)
    assert said.code == 1
    assert "nobody" in said.out


def test_decisions_travel_as_csv(
    kaobako: Callable[..., Any], built: dict[str, Any], recipe_file: Path, store: Path, tmp_path: Path
) -> None:
    """A rejection, imported from a CSV, drops the picture from the next version."""
    import pyarrow.parquet as pq

    row = pq.read_table(Path(built["folder"]) / "manifest.parquet").slice(0, 1).to_pylist()[0]
    (tmp_path / "mine.csv").write_text(f"pixel_digest,decision\n{row['pixel_digest']},reject\n", encoding="utf-8")
    said = kaobako("decisions", "import", tmp_path / "mine.csv", "--store", store, "--who", "mai")
    assert "1 decisions added" in said.out
    (listed,) = json.loads(kaobako("decisions", "list", "--store", store, "--json").out)
    assert (listed["decision"], listed["who"]) == ("reject", "mai")
    made = json.loads(kaobako("curate", recipe_file, "--store", store, "--no-prefect", "--json").out)
    assert made["version"] == "little@v2"
    assert "rejected_by_person" in {reason for stage in made["counts"].values() for reason in stage["dropped"]}
    kaobako("decisions", "export", tmp_path / "all.csv", "--store", store)
    assert row["pixel_digest"] in (tmp_path / "all.csv").read_text(encoding="utf-8")


def test_training_and_sampling_without_prefect(
    kaobako: Callable[..., Any], built: dict[str, Any], recipe_file: Path, store: Path
) -> None:
    said = kaobako("train", "little", "--recipe", recipe_file, "--store", store, "--no-prefect", "--json")
    assert said.code == 0, said.err
    trained = json.loads(said.out)
    assert (trained["dataset"], trained["images"], trained["stopped"]) == ("little@v1", 32, False)
    assert Path(trained["snapshot"]).exists()
    said = kaobako("sample", "--store", store, "--no-prefect", "--no-walk", "--seeds", "0-3", "--images", "--json")
    made = json.loads(said.out)
    assert Path(made["grid"]).is_file()
    assert len(list(Path(made["images"]).glob("*.png"))) == 4
    assert "walk" not in made


def test_known_weights_are_listed(kaobako: Callable[..., Any]) -> None:
    rows = json.loads(kaobako("weights", "list", "--json").out)
    assert all(len(row["sha256"]) == 64 and row["licence"] and row["bytes"] > 0 for row in rows)
    assert len(rows) == len({row["name"] for row in rows}) > 0


def test_a_drawn_board_says_what_it_is(kaobako: Callable[..., Any], tmp_path: Path) -> None:
    said = kaobako("booru", tmp_path / "board", "--posts", "4", "--seed", "5", "--workers", "1", "--json")
    assert said.code == 0, said.err
    drawn = json.loads(said.out)
    assert drawn["posts"] == 4
    assert (tmp_path / "board" / "truth.parquet").is_file()
    said = kaobako("booru", tmp_path / "board", "--posts", "4", "--workers", "1")
    assert (said.code, said.err[:7]) == (1, "error: ")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("train", "--data", "absent", "--no-prefect"), "kaobako train --resume latest --out RUN (or --run ID)."),
        (("versions", "list"), "run the same command again: it goes on where it was."),
    ],
)
def test_a_full_disk_is_said_with_how_to_go_on(
    kaobako: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], advice: str
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(flows.cli.app, "app", fail)
    said = kaobako(*arguments)
    assert said.code == 1
    assert "No space left on device. Free some space and " in said.err
    assert said.err.strip().endswith(advice)
