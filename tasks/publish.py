"""Publish: what stayed becomes a version, with its lineage and its card."""

from __future__ import annotations

import datetime as dt
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets.card import CardWriter
from datasets.store import Store
from datasets.version import Version, publish_version
from models.device import device_name
from tasks.plan import BuildPlan

# the libraries whose version can change a pixel or a verdict
LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pyarrow", "torch", "animeface", "kaobako")


def publish(plan: BuildPlan, store: Store, manifest: pa.Table, ledger: pa.Table, found: dict[str, Any]) -> Version:
    """Publish the manifest and ledger of a build. found: source digest, posts, counts, weights."""
    lineage = {
        **found,
        "recipe": plan.recipe,
        "sources": [
            {
                "kind": str(plan.source.kind),
                "root": plan.source.root.as_posix(),
                "digest": found["source_digest"],
                "posts": found["posts"],
            }
        ],
        "stage_versions": {stage.name: stage.version for stage, params in plan.stages if stage.enabled(params)},
        "training": plan.training,
        "notes": take_notes(plan),
        "libraries": library_versions(),
        "python": platform.python_version(),
        "device": device_name(),
        "machine": platform.machine(),
        "git_commit": git_commit(),
        "created_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    return publish_version(store, plan.dataset, manifest, ledger, lineage, CardWriter(store, plan.source.root))


def take_notes(plan: BuildPlan) -> list[str]:
    """Sentences on what the recipe left out, so that nobody has to guess."""
    return [
        f"The {stage.name} stage is off ({stage.off_because})."
        for stage, params in plan.stages
        if not stage.enabled(params)
    ]


def library_versions() -> dict[str, str]:
    """The versions of the libraries that results depend on; absent ones are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
