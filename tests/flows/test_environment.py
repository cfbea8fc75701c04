"""Settings: telemetry is off, and whatever the user has set stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.environment import QUIET, default_store, prepare_environment, prepare_prefect

TELEMETRY = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "FIFTYONE_DO_NOT_TRACK": "true"}


def test_telemetry_is_off(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    prepare_environment()
    assert {name: os.environ[name] for name in TELEMETRY} == TELEMETRY
    assert os.environ["FIFTYONE_DEFAULT_APP_ADDRESS"] == "127.0.0.1"


def test_what_the_user_set_is_left_alone(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in QUIET:
        monkeypatch.setenv(name, "mine")
    prepare_environment()
    assert {os.environ[name] for name in QUIET} == {"mine"}


def test_history_lies_beside_the_store(environment: Path, tmp_path: Path) -> None:
    prepare_prefect(tmp_path / "store")
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "store" / "prefect")
    assert (tmp_path / "store" / "prefect").is_dir()


@pytest.mark.parametrize("name", ["PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE"])
def test_a_users_own_prefect_is_respected(
    environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, "mine")
    prepare_prefect(tmp_path / "store")
    assert os.environ[name] == "mine"
    assert name == "PREFECT_HOME" or "PREFECT_HOME" not in os.environ
    assert not (tmp_path / "store").exists()


def test_a_users_profiles_are_respected(environment: Path, tmp_path: Path) -> None:
    (environment / ".prefect").mkdir()
    (environment / ".prefect" / "profiles.toml").write_text('active = "work"\n', encoding="utf-8")
    prepare_prefect(tmp_path / "store")
    assert "PREFECT_HOME" not in os.environ


def test_the_store_has_a_default_and_a_variable(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_store() == Path("store")
    monkeypatch.setenv("KAOBAKO_STORE", "elsewhere/store")
    assert default_store() == Path("elsewhere/store")
    monkeypatch.setenv("KAOBAKO_STORE", "")
    assert default_store() == Path("store")
