"""Doctor: every finding is said, a broken check does not hide the others."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets.lock import hold_lock
from datasets.store import Store
from flows import doctor
from flows.doctor import Check, examine

PARTS = {"python", "opencv", "torch", "store", "detector lbp", "detector animeface", "mongod", "prefect", "telemetry"}


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_json_says_everything_and_the_exit_code_agrees(kaobako: Callable[..., Any], tmp_path: Path) -> None:
    said = kaobako("doctor", "--store", tmp_path / "store", "--json")
    checks = json.loads(said.out)
    found = {check["name"]: check for check in checks}
    assert set(found) >= PARTS
    assert {check["state"] for check in checks} <= {"ok", "note", "bad"}
    assert said.code == int(any(check["state"] == "bad" for check in checks))
    assert all(check["mend"] for check in checks if check["state"] == "bad")
    assert found["telemetry"]["state"] == "ok"
    assert found["prefect api"]["state"] == "note"


def test_a_broken_check_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(store: Path) -> Any:
        raise RuntimeError("the driver is gone")
        yield

    broken.__name__ = "_torch"
    monkeypatch.setattr(doctor, "_torch", broken)
    monkeypatch.setattr(doctor, "_detectors", lambda store: iter(()))
    found = by_name(list(examine(tmp_path)))
    assert found["torch"].state == "bad"
    assert "the driver is gone" in found["torch"].finding
    assert "telemetry" in found


def test_opencv_without_cascades_is_bad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import cv2

    monkeypatch.delattr(cv2, "CascadeClassifier")
    found = by_name(list(doctor._python(tmp_path)))
    assert found["opencv"].state == "bad"
    assert "opencv-python-headless<5" in found["opencv"].mend
    assert "cv2" in sys.modules


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    import os

    store = Store(tmp_path / "store")
    (store.dataset("faces") / "v0001").mkdir(parents=True)
    with hold_lock(store.dataset("faces") / "lock.json", "curate faces", 0):
        found = by_name(list(doctor._store(store.root)))
    assert str(os.getpid()) in found["lock of faces"].finding
    assert found["store"].state == "ok"


def test_telemetry_that_the_user_left_on_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
    (check,) = doctor._telemetry(tmp_path)
    assert check.state == "bad"
    assert "DO_NOT_TRACK=1" in check.mend
    assert "ANALYTICS" not in check.mend


@pytest.mark.prefect
def test_a_running_server_is_examined(prefect_api: Any, tmp_path: Path) -> None:
    found = by_name(list(doctor._prefect(tmp_path)))
    assert {name: found[name].state for name in ("prefect", "prefect api", "prefect ui", "gpu limit")} == {
        "prefect": "ok",
        "prefect api": "ok",
        "prefect ui": "ok",
        "gpu limit": "ok",
    }
    assert "stuck runs" in found


def test_a_server_that_does_not_answer_is_bad(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        found = by_name(list(doctor._prefect(tmp_path)))
    assert found["prefect api"].state == "bad"
    assert "kaobako serve" in found["prefect api"].mend
