"""The App on a loopback port, until somebody ends it; no process stays behind."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import IO
from urllib.parse import quote

from datasets.review.server import ADDRESS
from datasets.review.tagging import ReviewError

FIRST_PORT, PORTS_TRIED = 5151, 20
START_SECONDS, END_SECONDS = 120.0, 10.0


def serve_review(name: str, port: int, announce: Callable[[str], None], stop: threading.Event | None = None) -> None:
    """Show the review dataset `name` until `stop` is set or an exception (KeyboardInterrupt) comes.

    port: a free one on 127.0.0.1 (choose_port). announce: is told the address, once it answers.
    The App's server process has ended when this returns. Call it inside `review_database`.
    Raises ReviewError when the App does not start.
    """
    with _server_running(port):
        announce(f"http://{ADDRESS}:{port}/datasets/{quote(name)}")
        (stop or threading.Event()).wait()


def choose_port(wanted: int | None) -> int:
    """A free loopback port: the wanted one, or the first free one from 5151 on. Raises ReviewError."""
    candidates = [wanted] if wanted is not None else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED)
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((ADDRESS, port))
                return port
    if wanted is not None:
        raise ReviewError(f"port {wanted} of {ADDRESS} is taken; name another with --port")
    last = FIRST_PORT + PORTS_TRIED - 1
    raise ReviewError(f"the ports {FIRST_PORT} to {last} are all taken; name a free one with --port")


@contextlib.contextmanager
def _server_running(port: int) -> Iterator[None]:
    """Our own start of FiftyOne's server: `fo.launch_app` adds a session that prints, retries and lingers."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "datasets.review.server", str(port)],
            stdin=subprocess.PIPE,  # closes when we die, however suddenly; the server then ends itself
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us; the server is ended below
        )
        try:
            _wait_until_ready(process, port, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin:
                process.stdin.close()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows nothing of our loopback
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with direct.open(f"http://{ADDRESS}:{port}/fiftyone", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    log.seek(0)
    last_words = log.read().strip()[-2000:] or "nothing"
    raise ReviewError(f"the App did not start on {ADDRESS}:{port}. Its server said: {last_words}")
