"""The deployments for a five-minute trial: all flows served by one process. prefect.yaml is the lasting set-up.

Names, limits and the schedule are the same in both, so that moving from one to the other replaces a deployment.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType
from prefect.exceptions import TerminationSignal
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.states import Crashed, State

from flows.curate import curate
from flows.metrics import metrics
from flows.recipe import Recipe
from flows.sample import sample
from flows.train import train

POLL_SECONDS = 2  # the default of 10 feels like nothing happens after Submit
NIGHTLY_CRON = "30 2 * * *"
NIGHTLY_WAIT_MINUTES = 120  # for a rebuild by hand that still holds the dataset's lock
ONE_REBUILD = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
ONE_TRAINING = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)


def make_deployments(store: Path, recipe: Recipe) -> list[Any]:
    """All deployments, with the store filled in. A second rebuild is cancelled, a second training waits its turn."""
    place = store.resolve().as_posix()
    build = {"store": place, "recipe": recipe.model_dump(mode="json")}
    modules = EntrypointType.MODULE_PATH  # with file paths, flows/ itself would come first on sys.path of every run
    return [
        curate.to_deployment(
            name="full-rebuild",
            description="Build the next version of a dataset; judges everything, even when nothing is new.",
            parameters={**build, "look_at_everything": True},
            tags=["curate"],
            concurrency_limit=ONE_REBUILD,
            entrypoint_type=modules,
        ),
        curate.to_deployment(
            name="nightly",
            description="The same build every night, for new posts; switch its schedule on to start it.",
            parameters={**build, "wait_minutes": NIGHTLY_WAIT_MINUTES},
            tags=["curate"],
            schedule=Cron(NIGHTLY_CRON, timezone="UTC", slug="nightly", active=False),
            concurrency_limit=ONE_REBUILD,
            entrypoint_type=modules,
        ),
        train.to_deployment(
            name="on-demand",
            description="Train a GAN on a version.",
            parameters={"store": place, "dataset": recipe.dataset, "params": recipe.training.model_dump(mode="json")},
            tags=["train"],
            concurrency_limit=ONE_TRAINING,
            entrypoint_type=modules,
        ),
        sample.to_deployment(
            name="on-demand",
            description="Sample a trained generator.",
            parameters={"store": place},
            tags=["sample"],
            entrypoint_type=modules,
        ),
        metrics.to_deployment(
            name="on-demand",
            description="Measure a trained generator: KID, FID, and what it learned by heart.",
            parameters={"store": place},
            tags=["metrics"],
            entrypoint_type=modules,
        ),
    ]


def serve_all(store: Path, recipe: Recipe, ready: Callable[[], None], lost: threading.Event) -> None:
    """Serve all deployments until Ctrl-C or SIGTERM, or until the server is lost for good, which ends their runs, too.

    ready: called once the server knows all of them.

    Prefect's UI asks for deployments when a page opens, and not again for a while: a page that is opened before they
    are there stays empty.
    """
    runner = Runner(query_seconds=POLL_SECONDS)
    for deployment in make_deployments(store, recipe):
        runner.add_deployment(deployment)
    ready()
    with contextlib.suppress(KeyboardInterrupt, TerminationSignal):
        asyncio.run(_serve_until(lost, runner))


async def _serve_until(lost: threading.Event, runner: Runner) -> None:
    """Ask for runs and start them. Once the server is lost, stop as on Ctrl-C: Prefect's runner would ask for ever."""
    serving = asyncio.current_task()
    assert serving is not None

    async def watch() -> None:
        while not lost.is_set():
            await asyncio.sleep(POLL_SECONDS)
        runner.pause_on_shutdown = False  # no server is there to do it on: the runner's tidying-up would fail
        serving.cancel()

    watcher = asyncio.create_task(watch())
    try:
        await runner.start()
    except asyncio.CancelledError:
        if not lost.is_set():
            raise
    finally:
        watcher.cancel()


def close_lost_runs() -> list[str]:
    """Mark as crashed what an earlier `kaobako serve` left running; gives the names of those runs.

    Nobody works on them any more, but each holds its deployment's slot for ever, so that every later run would be
    cancelled. Only for a server of our own that has just started: elsewhere, a worker may still be at work.
    """
    unfinished = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    lost: State[Any] = Crashed(
        message="kaobako serve ended while this ran. Run it again: what was measured is not measured twice."
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(unfinished))
        served = [run for run in runs if run.deployment_id is not None]
        for run in served:
            client.set_flow_run_state(run.id, lost)
    return [run.name for run in served]
