"""Our own Prefect server: only where the user has none, and never in the place of another one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

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
