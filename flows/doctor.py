"""Doctor: what works on this machine, and how to mend what does not."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

LOST_AFTER = dt.timedelta(minutes=10)  # three heartbeats of Prefect's 180 s, and some delay
RUNS_SHOWN = 20
OPTIONAL_WEIGHTS = {"hed-vgg4": "kaobako metrics"}  # and who needs them


@dataclass(frozen=True)
class Check:
    """One finding. state: ok, note (works, but should be known), or bad (mend says how)."""

    name: str
    state: str
    finding: str
    mend: str = ""


def examine(store: Path) -> Iterator[Check]:
    """All checks, in the order in which a user meets the parts. A check that fails in an unknown way is `bad`."""
    for check in (_python, _torch, _store, _weights, _detectors, _mongod, _prefect, _telemetry):
        yield from _guarded(check, store)


def _guarded(check: Callable[[Path], Iterator[Check]], store: Path) -> Iterator[Check]:
    name = check.__name__.strip("_")
    try:
        yield from check(store)
    except Exception as error:  # noqa: BLE001 - a doctor reports whatever is broken and goes on to the next part
        yield Check(name, "bad", f"{type(error).__name__}: {error}", "please report this, with the whole output")


def _python(store: Path) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", "ok", f"{version}, {os.cpu_count()} cores")
    if importlib.util.find_spec("cv2") is None:
        yield Check("opencv", "bad", "not installed", "pip install 'opencv-python-headless<5'")
        return
    import cv2

    if not hasattr(cv2, "CascadeClassifier"):
        mend = "pip uninstall opencv-python opencv-python-headless; pip install 'opencv-python-headless<5'"
        yield Check("opencv", "bad", f"{cv2.__version__} has no CascadeClassifier", mend)
    else:
        yield Check("opencv", "ok", cv2.__version__)


def _torch(store: Path) -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        finding = f"{torch.__version__} on {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        yield Check("torch", "ok", finding)
    else:
        yield Check("torch", "note", f"{torch.__version__} on the CPU, {torch.get_num_threads()} threads: no GPU here")


def _store(store: Path) -> Iterator[Check]:
    from datasets.lock import LOCK_FILE, STORE_LOCK_FILE
    from datasets.store import Store

    if not store.exists():
        yield Check("store", "note", f"{store} does not exist yet: the first build makes it")
        return
    if not os.access(store, os.W_OK):
        yield Check("store", "bad", f"{store} cannot be written", "choose another with --store or KAOBAKO_STORE")
        return
    place = Store(store)
    names = place.dataset_names()
    yield Check("store", "ok", f"{store}: {len(names)} datasets")
    yield from _lock("store", place.root / STORE_LOCK_FILE, "the next gc or build takes it")
    for name in names:
        yield from _lock(name, place.dataset(name) / LOCK_FILE, "the next build takes it")


def _lock(name: str, path: Path, next_one: str) -> Iterator[Check]:
    from datasets.leases import describe_holder
    from datasets.lock import read_holder

    if path.exists():
        holder = read_holder(path)
        yield Check(f"lock of {name}", "note", f"held by {describe_holder(holder)}" if holder else f"stale: {next_one}")


def _weights(store: Path) -> Iterator[Check]:
    from models.weights import DEFAULT_WEIGHTS, weight_status

    for name in (*DEFAULT_WEIGHTS, *OPTIONAL_WEIGHTS):
        status = weight_status(name, (store / "weights",))
        mend = "" if status.state == "ok" else f"kaobako weights fetch {name}"
        if status.state == "missing" and name in OPTIONAL_WEIGHTS:
            yield Check(name, "note", f"not here; only {OPTIONAL_WEIGHTS[name]} needs it", mend)
        else:
            yield Check(name, "ok" if status.state == "ok" else "bad", status.message, mend)


def _detectors(store: Path) -> Iterator[Check]:
    from models.faces.load import load_detector
    from models.weights import WeightError

    blank = np.full((128, 128, 3), 255, np.uint8)
    for mode in ("lbp", "animeface"):
        try:
            load_detector(mode, folders=(store / "weights",)).detect(blank)
        except (RuntimeError, WeightError) as error:
            yield Check(f"detector {mode}", "bad", str(error), "mend the weights above, or reinstall animeface==2.0.3")
        else:
            yield Check(f"detector {mode}", "ok", "loads and runs")


def _mongod(store: Path) -> Iterator[Check]:
    from datasets.review.database import mongod_status

    status = mongod_status()
    yield Check("mongod", "ok" if status.found and not status.advice else "bad", status.where, status.advice or "")


def _prefect(store: Path) -> Iterator[Check]:
    import prefect
    from prefect.settings import get_current_settings

    yield Check("prefect", "ok", prefect.__version__)
    url = get_current_settings().api.url
    if not url:
        yield Check(
            "prefect api", "note", "no server: each command starts a temporary one; `kaobako serve` shows the UI"
        )
        return
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            yield Check("prefect api", "ok", str(url))
    except (urllib.error.URLError, OSError) as error:
        yield Check("prefect api", "bad", f"{url}: {error}", "start it with `kaobako serve`, or unset PREFECT_API_URL")
        return
    yield from _prefect_ui(str(url))
    yield from _prefect_leftovers()


def _prefect_ui(url: str) -> Iterator[Check]:
    """The UI of a server that was started with --port still calls port 4200, and shows nothing."""
    parts = urlsplit(url)
    settings_url = f"{parts.scheme}://{parts.netloc}/ui-settings"
    try:
        with urllib.request.urlopen(settings_url, timeout=5) as answer:
            called = str(json.load(answer).get("api_url", ""))
    except (urllib.error.URLError, OSError, ValueError) as error:
        yield Check("prefect ui", "note", f"no UI at {settings_url}: {error}")
        return
    if urlsplit(called).port not in (None, parts.port):
        mend = f"start the server with PREFECT_SERVER_API_PORT={parts.port} instead of --port"
        yield Check("prefect ui", "bad", f"the UI calls {called}, the server is {url}", mend)
    else:
        yield Check("prefect ui", "ok", f"{parts.scheme}://{parts.netloc}")


def _prefect_leftovers() -> Iterator[Check]:
    """Runs that no worker will ever finish keep their deployment's slot; the GPU limit must exist."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from tasks.gpu import GPU_LIMIT

    with get_client(sync_client=True) as client:
        yield from _unfinished_runs(client)
        try:
            client.read_global_concurrency_limit_by_name(GPU_LIMIT)
        except (ObjectNotFound, AttributeError):
            mend = f"prefect gcl create {GPU_LIMIT} --limit 1 (kaobako serve does it)"
            yield Check("gpu limit", "note", f"the concurrency limit {GPU_LIMIT!r} does not exist", mend)
        else:
            yield Check("gpu limit", "ok", f"{GPU_LIMIT!r} exists")


def _unfinished_runs(client: SyncPrefectClient) -> Iterator[Check]:
    """Runs that nobody works on any more, as far as a server can tell: it does not look at their processes."""
    waiting = _read_runs(client, ["Pending", "Cancelling"])
    names = ", ".join(run.name for run in waiting)
    mend = f"if nothing works on them: {_delete(waiting)}" if waiting else ""
    yield Check("stuck runs", "note" if waiting else "ok", names or "none", mend)
    now = dt.datetime.now(dt.UTC)
    silent = [
        (run, since)
        for run in _read_runs(client, ["Running"])
        if now - (since := _last_sign_of_life(client, run)) > LOST_AFTER
    ]
    if not silent:
        yield Check("lost runs", "ok", "none")
        return
    names = ", ".join(f"{run.name} since {since.astimezone().isoformat(' ', 'minutes')}" for run, since in silent)
    mend = f"if their processes are gone: {_delete([run for run, _ in silent])}"
    yield Check("lost runs", "note", f"called running, but without a heartbeat: {names}", mend)


def _read_runs(client: SyncPrefectClient, states: list[str]) -> list[FlowRun]:
    from prefect.client.schemas.filters import FlowRunFilter

    wanted: dict[str, Any] = {"state": {"name": {"any_": states}}}
    return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted), limit=RUNS_SHOWN)


def _last_sign_of_life(client: SyncPrefectClient, run: FlowRun) -> dt.datetime:
    """When a flow run last sent a heartbeat, or changed its state. Its process sends one every three minutes."""
    from prefect.events.filters import EventFilter

    wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run.id}"]}}
    events = client.read_events(EventFilter.model_validate(wanted), limit=1).events
    changed = run.state.timestamp if run.state is not None else run.created
    return max(time for time in (changed, *(event.occurred for event in events)) if time is not None)


def _delete(runs: list[FlowRun]) -> str:
    return "; ".join(f"prefect flow-run delete {run.id}" for run in runs)


def _telemetry(store: Path) -> Iterator[Check]:
    wanted = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "FIFTYONE_DO_NOT_TRACK": "true",
    }
    on = [f"{name}={value}" for name, value in wanted.items() if os.environ.get(name, "").lower() != value]
    if on:
        yield Check("telemetry", "bad", "on: your environment overrides our settings", "set " + " ".join(on))
    else:
        yield Check("telemetry", "ok", "off")
