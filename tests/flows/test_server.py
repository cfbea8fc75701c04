"""Our own Prefect server: only where the user has none, and never in the place of another one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import flows.server
from datasets.errors import KaobakoError
from flows.server import prefect_server

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


def test_a_taken_port_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(KaobakoError, match="--port"), prefect_server(tmp_path / "server.log", port):
            pass
    assert not (tmp_path / "server.log").exists()


def test_ctrl_c_in_the_terminal_is_not_for_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A terminal signals the whole foreground group. The command ends its server itself, when it no longer needs it."""
    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(flows.server, "_wait_for", lambda url, server, log: started.append(server))
    monkeypatch.setattr(flows.server, "create_gpu_limit", lambda: None)
    monkeypatch.setattr(flows.server, "_send_what_is_left", lambda: None)
    with prefect_server(tmp_path / "server.log", find_port()):
        (server,) = started
        assert os.getpgid(server.pid) == os.getsid(server.pid) == server.pid
        assert server.poll() is None
    assert server.poll() is not None


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
