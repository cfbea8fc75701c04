"""Doctor: every finding is said, a broken check does not hide the others."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import sqlite3
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets.lock import hold_lock, hold_store
from datasets.store import Store
from flows import doctor
from flows.doctor import Check, examine
from models.weights import WeightStatus

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
    store = Store(tmp_path / "store")
    (store.dataset("faces") / "v0001").mkdir(parents=True)
    with hold_lock(store.dataset("faces") / "lock.json", "curate faces", 0):
        found = by_name(list(doctor._store(store.root)))
    assert str(os.getpid()) in found["lock of faces"].finding
    assert "curate faces" in found["lock of faces"].finding
    assert "lock of store" not in found
    assert found["store"].state == "ok"


def test_a_gc_at_work_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (store.dataset("faces") / "v0001").mkdir(parents=True)
    with hold_store(store, "gc"):
        found = by_name(list(doctor._store(store.root)))
    assert found["lock of store"].state == "note"
    assert "(gc)" in found["lock of store"].finding
    assert "lock of store" not in by_name(list(doctor._store(store.root)))


def test_the_lock_of_one_that_died_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.root.mkdir()
    (store.root / "gc.lock.json").write_text("{}", encoding="utf-8")
    os.utime(store.root / "gc.lock.json", (1e9, 1e9))
    found = by_name(list(doctor._store(store.root)))
    assert found["lock of store"].finding.startswith("stale: the next gc or build")


@pytest.mark.parametrize(("state", "shown"), [("missing", "note"), ("wrong", "bad"), ("ok", "ok")])
def test_weights_that_metrics_alone_need_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, shown: str
) -> None:
    import models.weights

    monkeypatch.setattr(models.weights, "weight_status", lambda name, folders: WeightStatus(name, state, None, "said"))
    found = by_name(list(doctor._weights(tmp_path)))
    assert found["hed-vgg4"].state == shown
    assert ("kaobako weights fetch hed-vgg4" in found["hed-vgg4"].mend) == (state != "ok")
    needed = found["lbpcascade-animeface"]
    assert needed.state == ("ok" if state == "ok" else "bad")


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
    assert {"stuck runs", "lost runs"} <= set(found)


@pytest.mark.prefect
def test_a_run_whose_process_is_gone_is_lost(prefect_api: Any, tmp_path: Path) -> None:
    """Three runs that say they are running: one just began, one is silent, one gave a sign of life a minute ago."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    @flow(name="doctored")
    def doctored() -> None: ...

    now = dt.datetime.now(dt.UTC)
    long_ago = now - dt.timedelta(hours=3)
    with get_client(sync_client=True) as client:
        runs = {
            name: client.create_flow_run(doctored, name=name, state=Running()) for name in ("young", "silent", "alive")
        }
        for name in ("silent", "alive"):
            begin_at(prefect_api.home, name, long_ago)
        try:
            send_heartbeat(prefect_api.api, str(runs["alive"].id), now - dt.timedelta(minutes=1))
            send_heartbeat(prefect_api.api, str(runs["silent"].id), long_ago + dt.timedelta(minutes=3))
            deadline = time.monotonic() + 30  # the server stores events a moment later
            while "alive" in (lost := by_name(list(doctor._prefect_leftovers()))["lost runs"]).finding:
                assert time.monotonic() < deadline, lost
                time.sleep(0.2)
        finally:
            for run in runs.values():
                client.delete_flow_run(run.id)
    assert lost.state == "note"
    assert "silent since " in lost.finding
    assert "young" not in lost.finding
    assert f"prefect flow-run delete {runs['silent'].id}" in lost.mend
    assert by_name(list(doctor._prefect_leftovers()))["lost runs"].finding == "none"


def begin_at(home: Path, run: str, when: dt.datetime) -> None:
    """Let a flow run have begun in the past; the server itself takes no such time from a client."""
    of_run = "WHERE id = (SELECT state_id FROM flow_run WHERE name = ?)"
    with contextlib.closing(sqlite3.connect(home / "prefect.db", timeout=60)) as database, database:
        text = when.strftime("%Y-%m-%d %H:%M:%S.%f")
        changed = database.execute(f"UPDATE flow_run_state SET timestamp = ? {of_run}", (text, run)).rowcount
    assert changed == 1


def send_heartbeat(api: str, run: str, occurred: dt.datetime) -> None:
    """The event that a flow run's process sends every three minutes."""
    resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
    event = {"event": "prefect.flow-run.heartbeat", "occurred": occurred.isoformat(), "resource": resource}
    event |= {"id": str(uuid.uuid4()), "related": [], "payload": {}}
    request = urllib.request.Request(
        f"{api}/events", json.dumps([event]).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20):
        pass


def test_a_server_that_does_not_answer_is_bad(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        found = by_name(list(doctor._prefect(tmp_path)))
    assert found["prefect api"].state == "bad"
    assert "kaobako serve" in found["prefect api"].mend
