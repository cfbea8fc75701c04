"""Deployments: prefect.yaml and `kaobako serve` offer the same, and deploying starts nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import flows.deployments
from flows.deployments import close_lost_runs, make_deployments, serve_all
from flows.recipe import Recipe, load_recipe, make_recipe
from tasks.train import TrainParams

PROJECT = Path(__file__).parents[2]
NAMES = {"curate/full-rebuild", "curate/nightly", "train/on-demand", "sample/on-demand", "metrics/on-demand"}


@pytest.fixture(scope="module")
def lasting() -> dict[str, dict[str, Any]]:
    """The deployments of prefect.yaml by full name."""
    text = (PROJECT / "prefect.yaml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)["deployments"]
    return {f"{entry['entrypoint'].split('.')[1]}/{entry['name']}": entry for entry in entries}


@pytest.fixture
def trial(tmp_path: Path) -> dict[str, Any]:
    """The deployments of `kaobako serve` by full name."""
    made = make_deployments(tmp_path, Recipe())
    return {f"{deployment.flow_name}/{deployment.name}": deployment for deployment in made}


def test_both_offer_the_same(lasting: dict[str, Any], trial: dict[str, Any]) -> None:
    assert set(lasting) == set(trial) == NAMES
    for name, entry in lasting.items():
        served = trial[name]
        assert served.entrypoint == entry["entrypoint"]
        assert served.description == entry["description"]
        assert served.tags == entry["tags"]
        limit = entry.get("concurrency_limit", {})
        assert served.concurrency_limit == limit.get("limit")
        strategy = served.concurrency_options and served.concurrency_options.collision_strategy.value
        assert strategy == limit.get("collision_strategy")
        assert set(entry["parameters"]) <= set(served.parameters)
        assert entry["parameters"].get("wait_minutes") == served.parameters.get("wait_minutes")


def test_the_nightly_schedule_is_off_until_somebody_wants_it(lasting: dict[str, Any], trial: dict[str, Any]) -> None:
    (written,) = lasting["curate/nightly"]["schedules"]
    (served,) = trial["curate/nightly"].schedules
    assert (written["active"], served.active) == (False, False)
    assert (written["slug"], served.slug) == ("nightly", "nightly")
    assert (written["cron"], written["timezone"]) == (served.schedule.cron, served.schedule.timezone)
    assert all(not entry.get("schedules") for name, entry in lasting.items() if name != "curate/nightly")
    assert all(not deployment.schedules for name, deployment in trial.items() if name != "curate/nightly")


def test_a_second_rebuild_is_cancelled(lasting: dict[str, Any]) -> None:
    for name in ("curate/full-rebuild", "curate/nightly"):
        assert lasting[name]["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}


def test_its_recipe_is_the_shipped_one(lasting: dict[str, Any]) -> None:
    shipped = load_recipe(PROJECT / "recipes" / "anime-faces.toml")
    for name in ("curate/full-rebuild", "curate/nightly"):
        written = make_recipe(lasting[name]["parameters"]["recipe"], "in prefect.yaml")
        same = {"source": shipped.source, "training": shipped.training}
        assert written.model_copy(update=same) == shipped
    training = lasting["train/on-demand"]["parameters"]
    assert training["dataset"] == shipped.dataset
    assert TrainParams.model_validate(training["params"]) == shipped.training


@pytest.mark.prefect
def test_deploying_makes_all_of_them_and_starts_nothing(served: Any, tmp_path: Path) -> None:
    """The real command on a real server; names are changed, so that the served deployments stay as they are."""
    text = (PROJECT / "prefect.yaml").read_text(encoding="utf-8")
    settings = tmp_path / "prefect.yaml"
    settings.write_text(text.replace("  - name: ", "  - name: lasting-"), encoding="utf-8")
    environment = {
        **os.environ,
        "PREFECT_API_URL": served.api,
        "PREFECT_HOME": str(tmp_path / "home"),
        "KAOBAKO_HOME": str(PROJECT),
        "KAOBAKO_STORE": str(tmp_path / "store"),
        "KAOBAKO_SOURCE": str(served.board),
    }

    call(f"{served.api}/work_pools/", {"name": "kaobako", "type": "process"})
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(settings)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: call(f"{served.api}/deployments/name/{name.replace('/', '/lasting-')}") for name in NAMES}
    for deployment in found.values():
        assert deployment["work_pool_name"] == "kaobako"
        assert deployment["parameters"]["store"] == str(tmp_path / "store")
        (step,) = deployment["pull_steps"]
        assert step["prefect.deployments.steps.set_working_directory"] == {"directory": str(PROJECT)}
        assert all(not schedule["active"] for schedule in deployment["schedules"])
    assert found["curate/nightly"]["schedules"][0]["slug"] == "nightly"
    assert found["curate/nightly"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert found["curate/full-rebuild"]["parameters"]["recipe"]["source"]["root"] == str(served.board)


@pytest.mark.prefect
def test_a_run_that_was_cut_off_does_not_block_the_next_one(prefect_api: Any) -> None:
    """A run that nobody works on any more keeps the only slot, and CANCEL_NEW cancels every run after it."""
    from datetime import UTC, datetime, timedelta

    from prefect.client.orchestration import get_client
    from prefect.states import Pending, Running, Scheduled

    later = datetime.now(UTC) + timedelta(days=1)  # so that `kaobako serve` leaves it to this test
    with get_client(sync_client=True) as client:
        nightly = client.read_deployment_by_name("curate/nightly").id

        def start() -> tuple[Any, str]:
            run = client.create_flow_run_from_deployment(nightly, state=Scheduled(scheduled_time=later))
            client.set_flow_run_state(run.id, Pending())
            return run, str(client.read_flow_run(run.id).state_name)

        lost, state = start()
        assert state == "Pending"
        client.set_flow_run_state(lost.id, Running())
        assert start()[1] == "Cancelled"
        assert close_lost_runs() == [lost.name]
        assert client.read_flow_run(lost.id).state_name == "Crashed"
        following, state = start()
        assert state == "Pending"
        assert close_lost_runs() == [following.name]
        assert close_lost_runs() == []


@pytest.mark.prefect
def test_the_address_is_said_once_all_deployments_are_there(
    prefect_api: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The UI asks for deployments once: a page that is opened before them stays empty."""
    from prefect.client.orchestration import get_client

    made = make_deployments(tmp_path, Recipe())
    for deployment in made:  # the session's own ones stay as they are
        deployment.name = f"mine-{deployment.name}"
    names = {f"{deployment.flow_name}/{deployment.name}" for deployment in made}
    steps: list[str] = []

    def look() -> None:
        with get_client(sync_client=True) as client:
            there = [client.read_deployment_by_name(name).id for name in names]  # raises where one is missing
            for deployment in there:
                client.delete_deployment(deployment)
        steps.append("said")

    async def start(runner: Any) -> None:
        steps.append("served")

    monkeypatch.setattr(flows.deployments, "make_deployments", lambda store, recipe: made)
    monkeypatch.setattr(flows.deployments.Runner, "start", start)
    serve_all(tmp_path, Recipe(), look, threading.Event())
    assert steps == ["said", "served"]


def call(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the server answers to a GET, or to a POST of `body`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
