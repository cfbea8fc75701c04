"""How errors are shown: ours once and in one line, on a terminal; with all details on the run's page."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow, task

from datasets.errors import KaobakoError
from flows.console import ConsoleHandler
from flows.environment import QUIET
from flows.errors import is_plain, say_error
from flows.recipe import Recipe
from models.training.run import RunError
from models.training.snapshot import SnapshotError
from tasks.train import TrainingError


@pytest.mark.parametrize("kind", [KaobakoError, RunError, SnapshotError, TrainingError, OSError, httpx.ConnectError])
def test_errors_that_a_user_can_mend_are_plain(
    kind: type[Exception], environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_plain(kind("no such run"))
    assert "no such run" in say_error(kind("no such run"))
    monkeypatch.setenv("KAOBAKO_TRACEBACK", "1")
    assert not is_plain(kind("no such run"))


def test_a_bug_is_not_plain(environment: Path) -> None:
    assert not any(is_plain(error) for error in (ZeroDivisionError(), RuntimeError("CUDA"), KeyError("x")))


def test_wrong_settings_are_said_without_classes() -> None:
    with pytest.raises(ValueError, match="2 validation errors") as refused:
        Recipe.model_validate({"dataset": "A B", "crop": {"min_size": "large"}})
    said = say_error(refused.value)
    assert "dataset: String should match" in said
    assert "; crop.min_size: Input should be a valid integer" in said
    assert "pydantic" not in said


@pytest.fixture
def shown(environment: Path) -> ConsoleHandler:
    """Our console, on a stream that can be read."""
    return ConsoleHandler(io.StringIO())


def lines(handler: ConsoleHandler) -> list[str]:
    """What a console has shown."""
    assert isinstance(handler.stream, io.StringIO)
    return handler.stream.getvalue().splitlines()


def log_failure(handler: ConsoleHandler, error: Exception, run: str, name: str = "prefect.flow_runs") -> None:
    """What Prefect's engine logs of a flow or task that raised."""
    logger = logging.Logger(name)
    logger.addHandler(handler)
    extra = {"flow_run_id": run, "flow_run_name": run, "flow_name": "sample"}
    try:
        raise error
    except Exception as raised:
        logger.exception("Encountered exception during execution: %r", raised, extra=extra)
    logger.info('Finished in state Failed("Flow run encountered an exception: %s")', error, extra=extra)


def test_a_command_says_our_errors_itself(shown: ConsoleHandler) -> None:
    log_failure(shown, KaobakoError("no run x\n  train one"), "a")
    assert lines(shown) == ["Finished in state Failed"]


def test_a_served_run_says_our_errors_in_its_log(shown: ConsoleHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "a")
    log_failure(shown, KaobakoError("no run x"), "a")
    assert lines(shown) == ["no run x", "Finished in state Failed"]


def test_a_bug_keeps_its_traceback_in_the_log(shown: ConsoleHandler) -> None:
    log_failure(shown, ZeroDivisionError("a bug"), "a")
    text = "\n".join(lines(shown))
    assert "Traceback" in text
    assert "in log_failure" in text
    assert 'Failed("Flow run encountered an exception: a bug")' in text


def test_each_run_has_its_own_end(shown: ConsoleHandler) -> None:
    log_failure(shown, KaobakoError("no run x"), "a", name="prefect.task_runs")
    log_failure(shown, ZeroDivisionError("a bug"), "b", name="prefect.task_runs")
    assert lines(shown)[0] == "Finished in state Failed"
    assert lines(shown)[-1] == 'Finished in state Failed("Flow run encountered an exception: a bug")'


@pytest.mark.parametrize("served", [False, True])
def test_what_else_prefect_says_of_an_error_stays(
    shown: ConsoleHandler, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    """A hook or a cache key that failed ends no run, and nobody else says it."""
    if served:
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "a")
    logger = logging.Logger("prefect.task_runs")
    logger.addHandler(shown)
    try:
        raise KaobakoError("no run x")
    except KaobakoError:
        logger.error("An error was encountered while running hook 'tidy'", exc_info=True, extra={"task_run_id": "a"})
        logger.exception("Error encountered when computing cache key.", extra={"task_run_id": "a"})
    logger.info("Finished in state Completed(type=COMPLETED)", extra={"task_run_id": "a"})
    assert lines(shown) == [
        "An error was encountered while running hook 'tidy': no run x",
        "Error encountered when computing cache key: no run x",
        "Finished in state Completed(type=COMPLETED)",
    ]


def test_a_tasks_error_is_said_once_too(shown: ConsoleHandler) -> None:
    logger = logging.Logger("prefect.task_runs")
    logger.addHandler(shown)
    try:
        raise KaobakoError("no run x")
    except KaobakoError as error:
        logger.exception(
            f"Task run failed with exception: {error!r} - Retries are exhausted", extra={"task_run_id": "a"}
        )
    logger.error("Finished in state Failed('Task run encountered an exception: no run x')", extra={"task_run_id": "a"})
    assert lines(shown) == ["Finished in state Failed"]


@pytest.mark.prefect
def test_prefect_still_says_it_in_these_words(
    prefect_api: Any, shown: ConsoleHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine itself: of all that it logs as errors of a flow and its task, only the task's state is left."""

    @task
    def fail() -> None:
        raise KaobakoError("no run x")

    @flow
    def failing() -> None:
        fail()

    shown.setLevel(logging.ERROR)  # not the loggers: they remember what was enabled
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [shown])
    assert failing(return_state=True).is_failed()
    assert lines(shown) == ["Finished in state Failed"]


def test_other_loggers_are_left_alone(shown: ConsoleHandler) -> None:
    log_failure(shown, KaobakoError("an aside"), "a", name="models.training")
    assert any("Traceback" in line for line in lines(shown))


def test_the_record_itself_stays_whole(shown: ConsoleHandler) -> None:
    """The handler of the run's page may come after the console."""
    kept: list[logging.LogRecord] = []
    keeper = logging.Handler()
    keeper.emit = kept.append  # type: ignore[method-assign]
    logger = logging.Logger("prefect.flow_runs")
    logger.addHandler(shown)
    logger.addHandler(keeper)
    try:
        raise KaobakoError("no run x")
    except KaobakoError as error:
        logger.exception("Encountered: %r", error, extra={"flow_run_id": "a"})
    (record,) = kept
    assert record.exc_info is not None
    assert record.getMessage() == "Encountered: KaobakoError('no run x')"


@pytest.mark.prefect
def test_a_missing_run_is_one_message_and_its_page_has_the_rest(served: Any, tmp_path: Path) -> None:
    """The real command on a real server."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "KAOBAKO_"))}
    settings |= {**QUIET, "PREFECT_API_URL": served.api, "PREFECT_HOME": str(served.home)}
    script = Path(sys.executable).with_name("kaobako")
    (tmp_path / "store").mkdir()
    command = [str(script), "sample", "gone", "--store", str(tmp_path / "store")]
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("no run 'gone'") == 1, done.stderr
    assert "\nerror: no run 'gone'" in done.stderr

    run = UUID(done.stderr.partition("/runs/flow-run/")[2][:36])
    page = read_log(served.api, run)
    assert any("no run 'gone'" in line and "Traceback" in line for line in page), page


def read_log(api: str, run: UUID) -> list[str]:
    """The lines of a flow run's page."""
    answer = httpx.post(f"{api}/logs/filter", json={"logs": {"flow_run_id": {"any_": [str(run)]}}}, timeout=20)
    return [line["message"] for line in answer.raise_for_status().json()]
