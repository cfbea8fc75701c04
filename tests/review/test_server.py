"""Ports, and that looking for a database or listing commands does not load FiftyOne."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.review import database
from datasets.review.app import choose_port, serve_review
from datasets.review.tagging import ReviewError


def test_a_port_that_is_taken_is_an_error_and_never_an_app_to_join() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ReviewError, match="name another with --port"):
            choose_port(port)
        assert choose_port(None) != port


def test_a_server_that_ends_at_once_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no such module; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(ReviewError, match=r"did not start.*no such module"):
        serve_review("faces-v0007", choose_port(None), pytest.fail)


def test_what_the_command_line_imports_does_not_load_fiftyone() -> None:
    code = (
        "import sys, datasets.review.commands, datasets.review.database, datasets.review.records; "
        "datasets.review.database.mongod_status(); print([n for n in ('fiftyone', 'torch', 'cv2') if n in sys.modules])"
    )
    root = Path(database.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
