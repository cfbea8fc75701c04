"""The curate flow on a real server: same version as without Prefect, and everything a person wants to see."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets.review.records import review_name
from flows.curate import curate, curate_without_prefect
from flows.observers import ConsoleObserver
from flows.recipe import Recipe, load_recipe
from flows.runners import Runner
from tasks.build import BuildResult

pytestmark = pytest.mark.prefect
MAX_SHEET = 150_000  # bytes of a data URI: they lie in Prefect's database


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


@pytest.fixture(scope="module")
def plain(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """The version as it is without Prefect."""
    store = tmp_path_factory.mktemp("plain")
    with ConsoleObserver() as observer:
        return curate_without_prefect(recipe, store, observer, workers=1)


@pytest.fixture
def built(recipe: Recipe, tmp_path: Path, prefect_api: Any) -> Any:
    """A flow run of the threads runner, as the state that it ended with."""
    return curate(recipe, tmp_path / "store", workers=2, return_state=True)


def test_a_build_leaves_the_same_version_and_its_artifacts(
    built: Any, plain: BuildResult, read_artifacts: Callable[[Any], dict[str, Any]]
) -> None:
    made = built.result()
    assert built.is_completed()
    assert made["content_digest"] == plain.version.content_digest
    assert made["counts"] == plain.counts
    artifacts = read_artifacts(built)
    assert {"stages", "sheet-kept", "sheet-dropped", "version-card", "review"} <= set(artifacts)

    rows = json.loads(artifacts["stages"].data)
    assert artifacts["stages"].type == "table"
    assert [row["stage"] for row in rows if row["stage"]] == list(plain.counts)
    for row in rows:
        if row["stage"]:
            assert row["in"] == row["kept"] + row["dropped"]
    assert sum(row["dropped"] for row in rows if row["reason"]) == sum(row["dropped"] for row in rows if row["stage"])

    for key in ("sheet-kept", "sheet-dropped"):
        assert "](data:image/" in artifacts[key].data
        assert len(artifacts[key].data) < MAX_SHEET
    assert f"kaobako review {made['version']}" in artifacts["version-card"].data
    assert made["content_digest"][:16] in artifacts["version-card"].data
    name = review_name("little", 1)
    assert f"/datasets/{name})" in artifacts["review"].data
    assert "127.0.0.1" in artifacts["review"].data

    progress = {key: artifact for key, artifact in artifacts.items() if key.startswith("progress-")}
    assert set(progress) == {"progress-fingerprint", "progress-crop"}  # what was measured by itself
    assert {float(artifact.data) for artifact in progress.values()} == {100.0}


def test_the_run_is_named_and_its_log_tells_the_accounts(built: Any, prefect_api: Any) -> None:
    import time

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter

    run_id = built.state_details.flow_run_id
    logs = LogFilter.model_validate({"flow_run_id": {"any_": [run_id]}})
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(run_id).name == "curate-little"
        for _ in range(40):  # logs are sent in batches, after the run
            lines = [log.message for log in client.read_logs(logs)]
            if any(line.startswith("dedup: in") for line in lines):
                break
            time.sleep(0.25)
    for stage in ("filter", "crop", "clean", "dedup"):
        assert any(line.startswith(f"{stage}: in ") for line in lines), lines


def test_processes_give_the_same_version(recipe: Recipe, plain: BuildResult, tmp_path: Path, prefect_api: Any) -> None:
    made = curate(recipe, tmp_path / "store", runner=Runner.PROCESSES, workers=2)
    assert made["content_digest"] == plain.version.content_digest
    assert made["counts"] == plain.counts
    assert made["opened"] == plain.opened


def test_the_command_prints_json_alone(recipe_file: Path, plain: BuildResult, tmp_path: Path, prefect_api: Any) -> None:
    """Prefect's own lines go elsewhere, so that a script can read the answer."""
    command = [
        Path(sys.executable).with_name("kaobako"),
        "curate",
        recipe_file,
        "--json",
        "--store",
        tmp_path / "store",
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["content_digest"] == plain.version.content_digest


def test_a_second_run_ends_after_its_first_task(
    recipe: Recipe, plain: BuildResult, prefect_api: Any, read_artifacts: Callable[[Any], dict[str, Any]]
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    store = plain.version.folder.parents[2]
    state = curate(recipe, store, return_state=True)
    made = state.result()
    assert (made["published"], made["version"], made["opened"]) == (False, "little@v1", {})
    assert made["counts"] == plain.counts
    artifacts = read_artifacts(state)
    assert not [key for key in artifacts if key.startswith("progress-")]
    assert {"stages", "version-card"} <= set(artifacts)
    this_run = FlowRunFilter.model_validate({"id": {"any_": [state.state_details.flow_run_id]}})
    with get_client(sync_client=True) as client:
        names = [run.name.rsplit("-", 1)[0] for run in client.read_task_runs(flow_run_filter=this_run)]
    assert names == ["look-for-changes"]


def test_looking_at_everything_again_measures_nothing(recipe: Recipe, plain: BuildResult, prefect_api: Any) -> None:
    made = curate(recipe, plain.version.folder.parents[2], look_at_everything=True)
    assert made["published"] is False
    assert set(made["opened"].values()) == {0}


def test_an_unusable_source_fails_the_run_with_one_clear_sentence(
    recipe: Recipe, tmp_path: Path, prefect_api: Any
) -> None:
    lost = recipe.model_copy(update={"source": recipe.source.model_copy(update={"root": tmp_path / "nowhere"})})
    state = curate(lost, tmp_path / "store", return_state=True)
    assert state.is_failed()
    assert "nowhere" in str(state.message)
    assert not list((tmp_path / "store").rglob("version.json"))


def test_the_server_refuses_a_bad_value_before_a_run_exists(prefect_api: Any) -> None:
    import urllib.error
    import urllib.request

    deployment = f"{prefect_api.api}/deployments/name/curate/full-rebuild"
    with urllib.request.urlopen(deployment, timeout=20) as answer:
        found = json.load(answer)
    body = json.dumps({"parameters": {**found["parameters"], "recipe": {"crop": {"min_size": 0}}}}).encode()
    request = urllib.request.Request(
        f"{prefect_api.api}/deployments/{found['id']}/create_flow_run", body, {"content-type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 409
    assert "min_size" in refused.value.read().decode()
