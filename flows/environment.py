"""Settings that must stand before Prefect, torch or FiftyOne are imported: offline, quiet, in one place."""

from __future__ import annotations

import os
from pathlib import Path

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # the server reports on its own, whatever DO_NOT_TRACK says
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,models,datasets",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # without a flow there is nobody to send lines to
    "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS": "flows.console.ConsoleHandler",  # read by Prefect's logging.yml
    "FIFTYONE_DO_NOT_TRACK": "true",
    "FIFTYONE_DEFAULT_APP_ADDRESS": "127.0.0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning barriers are many times slower beside any other busy process
}


def default_store() -> Path:
    """KAOBAKO_STORE, else the folder `store` where the command runs."""
    return Path(os.environ.get("KAOBAKO_STORE") or "store")


def prepare_environment() -> None:
    """Telemetry off and safe defaults, wherever the user has not set something else."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def prepare_prefect(store: Path) -> None:
    """Keep Prefect's history beside the store, unless the user already runs Prefect in his own way.

    His own way: PREFECT_HOME, PREFECT_API_URL, PREFECT_PROFILE, or a profiles file in the usual place.
    """
    own = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE")
    if any(os.environ.get(name) for name in own) or (Path.home() / ".prefect" / "profiles.toml").exists():
        return
    home = (store / "prefect").resolve()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
