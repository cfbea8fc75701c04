"""Provenance: which program and libraries a build ran with."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# the libraries whose version can change a pixel or a verdict
LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pyarrow", "torch", "animeface", "onnxruntime", "kaobako")


def library_versions() -> dict[str, str]:
    """The versions of the libraries that results depend on; absent ones are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str | None:
    """The commit of this source tree, when it is one."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
