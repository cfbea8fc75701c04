"""A Prefect server of our own, which ends when the command that started it ends, however that ends.

Prefect's temporary server outlives a killed command. So the server process watches its parent: `python -m flows.server`.
"""

from __future__ import annotations

import contextlib
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

START_SECONDS = 150  # the first start migrates a fresh database
_HOST = "127.0.0.1"


@contextlib.contextmanager
def prefect_server(log: Path, port: int = 0) -> Iterator[str]:
    """A Prefect server with its UI on loopback for the body; yields its address, such as http://127.0.0.1:4200.

    port: 0 takes a free one. log: file for its output. PREFECT_API_URL names the server meanwhile, so the body must be
    the first to import Prefect. Raises KaobakoError when the server does not answer in time.
    """
    port = port or _free_port()
    address = f"http://{_HOST}:{port}"
    # By environment, not by flag: with --port alone the UI would still call port 4200.
    environment = {**os.environ, "PREFECT_SERVER_API_HOST": _HOST, "PREFECT_SERVER_API_PORT": str(port)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "flows.server", str(port), str(os.getpid())]
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        _wait_for(f"{address}/api/health", server, log)
        os.environ["PREFECT_API_URL"] = f"{address}/api"
        yield address
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise KaobakoError(f"the Prefect server ended at once; its log is {log}. Is the port taken? Try --port.")
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
    uvicorn.run(create_app(final=True), host=_HOST, port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
