"""`kaobako gc`: it lists, it deletes when told to, and the next build makes anew what it needs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets.lock import hold_dataset
from datasets.store import Store

# deletes as the command does, and stops after some files until it is killed
STOPPING = """
import sys, time
from datasets import gc
from flows.cli import main
remove, left = gc.remove_file, 8
def and_stop(path):
    global left
    remove(path)
    left -= 1
    if not left:
        print("stopped", flush=True)
        time.sleep(60)
gc.remove_file = and_stop
sys.argv = ["kaobako", "gc", "--store", sys.argv[1], "--delete", "--unused-caches"]
main()
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def curate(kaobako: Callable[..., Any], recipe_file: Path, store: Path) -> Callable[..., dict[str, Any]]:
    def run(*settings: str) -> dict[str, Any]:
        options = [part for setting in settings for part in ("--set", setting)]
        said = kaobako("curate", recipe_file, "--store", store, "--no-prefect", "--json", *options)
        assert said.code == 0, said.err
        made: dict[str, Any] = json.loads(said.out)
        return made

    return run


def make_old(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 48 * 3600,) * 2)


def counts(said: Any) -> dict[str, int]:
    return {kind["kind"]: kind["count"] for kind in json.loads(said.out)["kinds"] if kind["count"]}


def test_listing_deleting_and_building_again(
    kaobako: Callable[..., Any], curate: Callable[..., dict[str, Any]], store: Path
) -> None:
    mirrored = curate("augment.mirror=true")
    curate()
    make_old(store)
    assert counts(kaobako("gc", "--store", store, "--unused-caches", "--json")) == {}
    shutil.rmtree(mirrored["folder"])
    assert counts(kaobako("gc", "--store", store, "--json")) == {}  # its measurements keep its pictures
    listed = kaobako("gc", "--store", store, "--unused-caches")
    assert listed.code == 0
    assert "made anew when needed" in listed.out
    assert "--delete deletes it" in listed.out
    may_go = counts(kaobako("gc", "--store", store, "--unused-caches", "--json"))
    assert may_go["unnamed blobs"] == mirrored["counts"]["dedup"]["kept"]
    deleted = kaobako("gc", "--store", store, "--unused-caches", "--delete", "--json")
    assert (deleted.code, counts(deleted)) == (0, may_go)
    assert kaobako("versions", "verify", "little", "--store", store).code == 0
    again = curate("augment.mirror=true")
    assert again["content_digest"] == mirrored["content_digest"]
    assert again["opened"]["crop"] == 0  # what the other version had measured was not touched
    assert again["opened"]["augment"] == may_go["unnamed blobs"]


def test_killed_in_the_middle_every_version_is_sound_and_a_build_mends_the_rest(
    kaobako: Callable[..., Any], curate: Callable[..., dict[str, Any]], store: Path
) -> None:
    mirrored = curate("augment.mirror=true")
    plain = curate()
    make_old(store)
    shutil.rmtree(mirrored["folder"])
    process = subprocess.Popen([sys.executable, "-c", STOPPING, str(store)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert kaobako("versions", "verify", plain["version"], "--store", store).code == 0
    again = curate("augment.mirror=true")
    assert again["content_digest"] == mirrored["content_digest"]
    assert kaobako("versions", "verify", again["version"], "--store", store).code == 0
    assert curate()["content_digest"] == plain["content_digest"]


def test_a_running_build_is_named(kaobako: Callable[..., Any], store: Path) -> None:
    with hold_dataset(Store(store), "little", "curate little"):
        said = kaobako("gc", "--store", store, "--delete")
    assert said.code == 1
    assert "little is being written by process" in said.err
    assert "--wait MINUTES" in said.err


def test_a_damaged_version_is_named_and_keeps_all_blobs(
    kaobako: Callable[..., Any], curate: Callable[..., dict[str, Any]], store: Path
) -> None:
    folder = Path(curate()["folder"])
    shutil.rmtree(store / "cache")
    (folder / "manifest.parquet").unlink()
    make_old(store)
    before = Store(store).blobs.digests()
    said = kaobako("gc", "--store", store, "--delete")
    assert said.code == 1
    assert "little/v0001 is not a whole version" in said.err
    assert Store(store).blobs.digests() == before


def test_a_store_that_is_not_there_is_not_made(kaobako: Callable[..., Any], store: Path) -> None:
    said = kaobako("gc", "--store", store, "--delete")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "is not a store" in said.err
    assert not store.exists()
