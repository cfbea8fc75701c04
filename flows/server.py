"""A Prefect server of our own, which ends when the command that started it ends, however that ends.

Prefect's temporary server outlives a killed command. So this one, `python -m flows.server`, watches its parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from datasets.errors import KaobakoError
from flows.environment import prepare_prefect

log = logging.getLogger(__name__)

_GRACE_SECONDS = 3
_LOOK_SECONDS = 0.5
# Prefect's settings once the server is gone
_GONE = {"PREFECT_CLIENT_MAX_RETRIES": "0", "PREFECT_LOGGING_TO_API_ENABLED": "false"}
START_SECONDS = 150  # the first start migrates a fresh database
_ASK_SECONDS = 5.0  # for a user's server to take a connection
_HOST = "127.0.0.1"
_AGAIN = "Run the command again: it goes on where it was. With --no-prefect it needs no server."


def server_for(
    store: Path,
    no_prefect: bool = False,
    port: int = 0,
    advice: str = _AGAIN,
    lost: threading.Event | None = None,
) -> contextlib.AbstractContextManager[str]:
    """What a command needs to run flows: the server that the user's settings name, or one of our own.

    Enter the result when the server is needed, so that a wrong recipe costs no waiting. It gives the server's address,
    "" when none is started. Our own server keeps its history in the user's PREFECT_HOME if there is one, else in the
    store. port: 0 takes a free one. advice, lost: see prefect_server. Entering raises KaobakoError when nothing answers
    where the user's settings name a server, or when our own does not start.
    """
    prepare_prefect(store)
    if no_prefect:
        return contextlib.nullcontext("")
    if _user_has_a_server():
        return _users_server()
    from prefect.context import refresh_global_settings_context

    port = port or _free_port()
    os.environ["PREFECT_API_URL"] = f"http://{_HOST}:{port}/api"
    refresh_global_settings_context()  # Prefect reads the environment when it is imported
    return prefect_server(store / "prefect" / "server.log", port, advice, lost)


def _user_has_a_server() -> bool:
    """Whether the environment, the active profile or a settings file names a server. Prefect knows where to look."""
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


@contextlib.contextmanager
def _users_server() -> Iterator[str]:
    """The server that the user's settings name; yields "". It is asked once, or Prefect would end in a traceback.

    By Prefect's own client, which knows the user's proxies, certificates and keys. Any answer will do: what a server
    says, and how soon, is between it and Prefect. Raises KaobakoError where nothing takes a connection.
    """
    from httpx import ReadTimeout, TransportError
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    once = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    with once, get_client({"timeout": _ASK_SECONDS}, sync_client=True) as client:
        error = client.api_healthcheck()
    if isinstance(error, TransportError) and not isinstance(error, ReadTimeout):
        said = str(error).rstrip(".") or type(error).__name__
        raise KaobakoError(
            f"the Prefect server {client.api_url.copy_with(userinfo=b'')} cannot be reached: {said}. Start it with "
            "`kaobako serve` where PREFECT_API_URL is not set, or unset PREFECT_API_URL: this command then starts a "
            "server of its own."
        ) from error
    yield ""


@contextlib.contextmanager
def prefect_server(log: Path, port: int, advice: str = _AGAIN, lost: threading.Event | None = None) -> Iterator[str]:
    """A Prefect server with its UI on loopback for the body; yields its address, such as http://127.0.0.1:4200.

    log: file for its output. It is stopped at the end, and ends by itself when this process is killed. Should it end
    before that, Prefect's client is told not to wait for it; a body that fails without it is a KaobakoError, which ends
    with `advice`. lost: set when the server has ended, for a body that is of no use without it; the body's end is that
    error then. Raises KaobakoError also when the port is taken, or when the server does not answer in time.
    """
    from httpx import TransportError

    address = f"http://{_HOST}:{port}"
    _check_free(port)
    # By environment, not by flag: with --port alone the UI would still call port 4200.
    environment = {**os.environ, "PREFECT_SERVER_API_HOST": _HOST, "PREFECT_SERVER_API_PORT": str(port)}
    environment.pop("PREFECT_API_URL", None)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "flows.server", str(port), str(os.getpid())]
        # In a session of its own: the terminal's Ctrl-C is for the command, which still needs its server to end well.
        server = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        _wait_for(f"{address}/api/health", server, log)
        create_gpu_limit()
        gone = KaobakoError(f"the Prefect server of this command has ended; its log is {log}. {advice}")
        with _watching(server, log, lost):
            try:
                yield address
                if lost is not None and lost.is_set():
                    raise gone
            except TransportError as error:
                if server.poll() is None:
                    raise
                raise gone from error
            finally:
                if server.poll() is None:
                    _send_what_is_left()  # what the run's page says of an error, too
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def _watching(server: subprocess.Popen[bytes], log_file: Path, lost: threading.Event | None) -> Iterator[None]:
    """Stop waiting for a server of our own that is gone: it never comes back, and nobody else has its port.

    Prefect's client would try each request again for a minute, each event for seven seconds, and its log say so at
    every line. This stays so until the process ends: its last events and lines are tried after the body. lost: set.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.events.clients import NullEventsClient
    from prefect.events.worker import EventsWorker

    body_ended = threading.Event()

    def watch() -> None:
        while server.poll() is None:
            if body_ended.wait(_LOOK_SECONDS):
                return
        os.environ.update(_GONE)
        refresh_global_settings_context()
        EventsWorker.set_client_override(NullEventsClient)
        log.warning("the Prefect server of this command has ended; no page is updated any more. Its log: %s", log_file)
        if lost is not None:
            lost.set()

    watcher = threading.Thread(target=watch, daemon=True, name="server-watcher")
    watcher.start()
    try:
        yield
    finally:
        body_ended.set()
        watcher.join()


def create_gpu_limit() -> None:
    """The limit that GPU work takes; without it, strict acquisition is an error. One that exists is left alone."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists

    from tasks.gpu import GPU_LIMIT

    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))


def _send_what_is_left() -> None:
    """Log lines and events that Prefect sends in the background, before their server goes."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _check_free(port: int) -> None:
    """Another server on the port would answer in the place of ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise KaobakoError(
                f"port {port} is taken: choose another with --port. If a Prefect server of yours runs there, "
                f"set PREFECT_API_URL=http://{_HOST}:{port}/api to use it."
            ) from error


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise KaobakoError(f"the Prefect server ended at once; its log is {log}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise KaobakoError(f"the Prefect server did not answer within {START_SECONDS} s; its log is {log}")


def _end_with_parent(parent: int) -> None:
    """Stop this process as soon as the parent is gone: orphans are given to another process."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def main(port: int, parent: int) -> None:
    """Run the server in this process until SIGTERM, or until the parent process is gone."""
    import uvicorn
    from prefect.server.api.server import create_app

    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True, name="parent").start()
    # a browser that is still open would hold the end up for ever
    uvicorn.run(
        create_app(final=True), host=_HOST, port=port, log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
