"""Finding, sharing and ending mongod."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.review import database
from datasets.review.database import DatabaseError, find_mongod, mongod_status, review_environment

USE_THE_DATABASE = """
import sys
from pathlib import Path
from datasets.review.database import review_database
with review_database(Path(sys.argv[1])) as uri:
    print(uri, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(tmp_path / "config.json"))


def test_an_address_of_the_user_is_used_and_its_password_kept_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://me:secret@db.example:27017/?tls=true")
    assert mongod_status() == database.MongodStatus(True, "mongodb://db.example:27017", None)


def test_the_users_configuration_file_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"database_uri": "mongodb://db.example"}))
    assert mongod_status().where == "mongodb://db.example"


def test_without_a_program_the_ways_to_get_one_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "fiftyone"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "fiftyone", raising=False)
    with pytest.raises(DatabaseError, match="FIFTYONE_DATABASE_URI"):
        find_mongod()
    status = mongod_status()
    assert not status.found and "pip install" in (status.advice or "")


def test_without_fiftyone_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "fiftyone", raising=False)
    with pytest.raises(DatabaseError, match=r"kaobako\[review\]"):
        find_mongod()


def test_a_program_that_does_not_run_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "mongod"
    program.write_text("#!/bin/sh\necho 'libcrypto.so.3: cannot open' >&2\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.setattr(database, "find_mongod", lambda: program)
    status = mongod_status()
    assert not status.found and "libcrypto" in (status.advice or "")


def test_a_program_that_ends_at_once_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pymongo")
    program = tmp_path / "mongod"
    program.write_text("#!/bin/sh\nexit 100\n")
    program.chmod(0o755)
    monkeypatch.setattr(database, "find_mongod", lambda: program)
    monkeypatch.delenv("FIFTYONE_DATABASE_DIR", raising=False)
    with (
        pytest.raises(DatabaseError, match="ended at its start with code 100"),
        database.review_database(tmp_path / "review"),
    ):
        pytest.fail("there is no database to use")


def test_the_app_is_told_to_stay_on_loopback_and_not_to_track() -> None:
    settings = review_environment()
    assert settings["FIFTYONE_DEFAULT_APP_ADDRESS"] == "127.0.0.1"
    assert settings["FIFTYONE_DO_NOT_TRACK"] == "true"
    assert (Path(settings["FIFTYONE_PLUGINS_DIR"]) / "kaobako_review" / "fiftyone.yml").is_file()


@pytest.mark.review
@pytest.mark.usefixtures("review_folder")
def test_two_commands_share_one_mongod_and_the_last_one_ends_it(tmp_path: Path) -> None:
    import psutil

    environment = {name: value for name, value in os.environ.items() if not name.startswith("FIFTYONE_")}
    environment["PYTHONPATH"] = str(Path(database.__file__).parents[2])

    def use() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", USE_THE_DATABASE, str(tmp_path / "review")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with use() as first, use() as second:
        assert first.stdin and first.stdout and second.stdin and second.stdout
        addresses = {first.stdout.readline(), second.stdout.readline()}
        server = json.loads((tmp_path / "review" / "mongo" / "kaobako-server.json").read_text())
        assert addresses == {f"mongodb://127.0.0.1:{server['port']}\n"}
        mongod = psutil.Process(server["pid"])
        first.communicate("\n")
        assert first.returncode == 0 and mongod.is_running()
        second.communicate("\n")
        assert second.returncode == 0
    mongod.wait(5)
    assert not mongod.is_running()
