"""The App on a loopback port, until somebody ends it; no process stays behind."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from urllib.parse import quote

import fiftyone as fo
import psutil  # type: ignore[import-untyped]
from fiftyone.core.service import ServerService, ServiceListenTimeout

from datasets.review.tagging import ReviewError

ADDRESS = "127.0.0.1"  # never anything else: the media route serves every file that the process can read
FIRST_PORT, PORTS_TRIED = 5151, 20
END_SECONDS = 10.0


def serve_review(
    dataset: fo.Dataset, port: int, announce: Callable[[str], None], stop: threading.Event | None = None
) -> None:
    """Show a review dataset until `stop` is set or an exception (KeyboardInterrupt) comes.

    port: a free one on 127.0.0.1 (choose_port). announce: is told the address, once it answers.
    The App's server process has ended when this returns. Call it inside `review_database`.
    Raises ReviewError when the App does not start.
    """
    before = _child_processes()
    try:
        # what fo.launch_app starts, without its Python session, which retries and prints until it is connected
        server = ServerService(port, address=ADDRESS, do_not_track=True)
        announce(f"http://{ADDRESS}:{port}/datasets/{quote(dataset.name)}")
        (stop or threading.Event()).wait()
        server.stop()
    except ServiceListenTimeout as error:
        raise ReviewError(f"the App did not start on {ADDRESS}:{port}: {error}") from error
    finally:
        _end(_child_processes() - before)


def choose_port(wanted: int | None) -> int:
    """A free loopback port: the wanted one, or the first free one from 5151 on.

    FiftyOne would silently join whatever App answers on a taken port, with that App's database. Raises ReviewError.
    """
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


def _child_processes() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _end(processes: set[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=END_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
