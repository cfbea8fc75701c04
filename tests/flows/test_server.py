"""Our own Prefect server: only where the user has none, and never in the place of another one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

import flows.deployments
import flows.server
from datasets.errors import KaobakoError
from flows.deployments import serve_all
from flows.recipe import Recipe
from flows.server import prefect_server, server_for

ASK = """
import os, sys
from pathlib import Path
from flows.environment import prepare_environment
from flows.server import server_for
prepare_environment()
server_for(Path(sys.argv[1]), no_prefect=sys.argv[2] == "without", port=4299)
print(os.environ.get("PREFECT_API_URL", "none"))
"""
OURS = "http://127.0.0.1:4299/api"
THEIRS = "http://127.0.0.1:4288/api"


@pytest.mark.parametrize(
    ("variables", "profile", "with_prefect", "used"),
    [
        ({}, "", True, OURS),
        ({}, "", False, "none"),
        ({"PREFECT_API_URL": THEIRS}, "", True, THEIRS),
        ({"PREFECT_HOME": "prefect"}, "", True, OURS),
        ({}, f'active = "work"\n[profiles.work]\nPREFECT_API_URL = "{THEIRS}"\n', True, "none"),
        ({}, 'active = "work"\n[profiles.work]\n', True, OURS),
    ],
    ids=["nothing set", "no-prefect", "address", "home", "profile with an address", "profile without"],
)
def test_the_users_server_is_used_where_there_is_one(
    environment: Path, tmp_path: Path, variables: dict[str, str], profile: str, with_prefect: bool, used: str
) -> None:
    """ "none" for a profile with an address: Prefect reads the address there itself."""
    if profile:
        (environment / ".prefect").mkdir()
        (environment / ".prefect" / "profiles.toml").write_text(profile, encoding="utf-8")
    command = [sys.executable, "-c", ASK, str(tmp_path / "store"), "with" if with_prefect else "without"]
    settings = {**os.environ, **variables}
    done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == used, done.stderr


def use_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user sets to use a server of his own."""
    from prefect.context import refresh_global_settings_context

    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:word")
    refresh_global_settings_context()


@pytest.mark.parametrize("url", ["http://me:secret@127.0.0.1:{port}/api", "127.0.0.1:{port}/api"])
def test_a_users_server_that_is_not_there_is_an_error_that_says_what_to_do(
    settings_restored: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    port = find_port()
    use_server(url.format(port=port), monkeypatch)
    server = server_for(tmp_path / "store")  # costs no waiting yet
    with pytest.raises(KaobakoError, match="unset PREFECT_API_URL") as refused, server:
        pytest.fail("the body ran")
    assert str(port) in str(refused.value)
    assert "kaobako serve" in str(refused.value)
    assert "secret" not in str(refused.value)


@contextlib.contextmanager
def answering(status: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A web server that answers everything with a status; gives its address, and (path, authorization) as asked."""
    asked: list[tuple[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing: the list says it."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [200, 401, 404, 503])
def test_a_users_server_is_asked_once_and_any_answer_will_do(
    settings_restored: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """What else there is to say, a missing key, say, Prefect knows better."""
    with answering(status) as (url, asked):
        use_server(url, monkeypatch)
        with server_for(tmp_path / "store") as address:
            assert address == ""
    assert asked == [("/api/health", "Basic " + b64encode(b"user:word").decode())]


def test_a_slow_server_is_one(settings_restored: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.server, "_ASK_SECONDS", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        use_server(f"http://127.0.0.1:{silent.getsockname()[1]}/api", monkeypatch)
        with server_for(tmp_path / "store") as address:
            assert address == ""


def test_a_taken_port_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(KaobakoError, match="--port"), prefect_server(tmp_path / "server.log", port):
            pass
    assert not (tmp_path / "server.log").exists()


class Running(NamedTuple):
    """What became of servers that are started, but not waited for."""

    servers: list[subprocess.Popen[bytes]]
    sent: list[str]  # a note of each time that what is left was sent


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Running:
    noted = Running([], [])
    monkeypatch.setattr(flows.server, "_wait_for", lambda url, server, log: noted.servers.append(server))
    monkeypatch.setattr(flows.server, "create_gpu_limit", lambda: None)
    monkeypatch.setattr(flows.server, "_send_what_is_left", lambda: noted.sent.append("sent"))
    return noted


def test_ctrl_c_in_the_terminal_is_not_for_the_server(running: Running, tmp_path: Path) -> None:
    """A terminal signals the whole foreground group. The command ends its server itself, when it no longer needs it."""
    with prefect_server(tmp_path / "server.log", find_port()):
        (server,) = running.servers
        assert os.getpgid(server.pid) == os.getsid(server.pid) == server.pid
        assert server.poll() is None
    assert server.poll() is not None


def test_what_is_left_is_sent_after_an_error_too(running: Running, tmp_path: Path) -> None:
    """The run's page would not say the error otherwise."""
    with pytest.raises(KaobakoError), prefect_server(tmp_path / "server.log", find_port()):
        raise KaobakoError("no such run")
    assert running.sent == ["sent"]


@pytest.fixture
def settings_restored(environment: Path) -> Iterator[None]:
    """What a command sets for the rest of its process."""
    from prefect.context import refresh_global_settings_context
    from prefect.events.worker import EventsWorker

    with pytest.MonkeyPatch.context() as patch:
        for name in flows.server._GONE:
            patch.setenv(name, "")  # so that its absence is restored
            patch.delenv(name)
        yield
    EventsWorker.set_client_override(None)
    refresh_global_settings_context()


def test_nothing_waits_for_a_server_that_is_gone(running: Running, settings_restored: None, tmp_path: Path) -> None:
    from prefect.settings import get_current_settings

    retries = get_current_settings().client.max_retries
    gone = pytest.raises(KaobakoError, match=f"its log is {tmp_path}.*Run the command again")
    with gone, prefect_server(tmp_path / "server.log", find_port()):
        assert get_current_settings().client.max_retries == retries > 0
        (server,) = running.servers
        server.kill()
        deadline = time.monotonic() + 30
        while get_current_settings().client.max_retries > 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not get_current_settings().logging.to_api.enabled
        raise httpx.ConnectError("[Errno 111] Connection refused")
    assert running.sent == []
    assert get_current_settings().client.max_retries == 0  # what is left at the end of the process is given up, too


def test_a_body_of_no_use_without_its_server_ends_with_its_own_advice(
    running: Running, settings_restored: None, tmp_path: Path
) -> None:
    lost = threading.Event()
    server = prefect_server(tmp_path / "server.log", find_port(), "Start kaobako serve again.", lost)
    with pytest.raises(KaobakoError, match=f"its log is {tmp_path}.*Start kaobako serve again.$"), server:
        assert not lost.is_set()
        running.servers[0].kill()
        assert lost.wait(30)


def test_a_body_that_needs_its_server_no_longer_ends_well(
    running: Running, settings_restored: None, tmp_path: Path
) -> None:
    with prefect_server(tmp_path / "server.log", find_port()):
        running.servers[0].kill()
        running.servers[0].wait(30)


def test_serving_stops_once_the_server_is_lost(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, ended = threading.Event(), []

    async def start(runner: object) -> None:
        lost.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.append("tidied up")

    monkeypatch.setattr(flows.deployments, "make_deployments", lambda store, recipe: [])
    monkeypatch.setattr(flows.deployments, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(flows.deployments.Runner, "start", start)
    serve_all(tmp_path, Recipe(), lambda: None, lost)
    assert ended == ["tidied up"]


WATCH = """
import os, subprocess, sys, time
code = "import sys; from flows.server import _end_with_parent; _end_with_parent(int(sys.argv[1]))"
subprocess.Popen([sys.executable, "-c", code, str(os.getpid())], start_new_session=True)
print("started", flush=True)
time.sleep(60)
"""


def test_a_killed_commands_server_ends_though_no_signal_reaches_it() -> None:
    command = subprocess.Popen([sys.executable, "-c", WATCH], stdout=subprocess.PIPE)
    assert command.stdout is not None
    assert command.stdout.readline() == b"started\n"
    command.kill()
    command.communicate(timeout=30)  # the pipe closes when the last that holds it has ended


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
