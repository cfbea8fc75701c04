"""Runs `kaobako` again and again without paying seconds of imports each time: a process that forks one child per run.

Started by tests as a program, never imported. Its argument is the least number of items in a shard. Each line on
standard input is a request as JSON:

    arguments  the command line after `kaobako`; null to verify only
    output     folder for the child's `out` and `err`
    root       folder whose file operations are counted, or null
    fault      [kinds, at, errno, sticky], see fault_injection.c, or null
    verify     [store, dataset]: check every published version before the run and after it, or null

An empty line follows each request: once it is read the child is buried, and not before, so that until then its process
id is its own, even when it was killed. Two lines on standard output answer: {"pid": ...} at once, and after the burial
{"status": exit status or minus the signal, "report": {"before": [...], "after": [...], "operations": n, "hits": n,
"first": "write blobs/..."}}. The report is null when the child was killed.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import matplotlib.figure  # noqa: F401 - imported here, before the fork, because builds import it late
from PIL import Image, ImageFont

import datasets.card
import flows.cli.build
import flows.curate
import flows.observers
import flows.runners  # noqa: F401
from datasets.errors import KaobakoError
from datasets.store import Store
from datasets.version import read_version, verify_version
from flows.cli import app
from tasks import shards

SHIM: Any = ctypes.CDLL(None)


def find_problems(store: Store, dataset: str) -> list[str]:
    """What is wrong with the published versions: each must be sound, whatever has happened."""
    problems = []
    for number in store.version_numbers(dataset):
        try:
            version = read_version(store, f"{dataset}@v{number}")
            problems += [f"{version.reference}: {text}" for text in verify_version(store, version)]
            problems += [f"{version.reference}: no card"] * (not (version.folder / "README.md").is_file())
        except KaobakoError as error:
            problems.append(f"v{number}: {error}")
    return problems


def run(request: dict[str, Any]) -> dict[str, Any]:
    """One run of the command line in this (forked) process; ends with the command's own exit status."""
    report: dict[str, Any] = {"before": [], "after": [], "operations": 0, "hits": 0, "first": "", "code": 0}
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(request["output"]) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if request["verify"]:
        store, dataset = Store(Path(request["verify"][0])), request["verify"][1]
        report["before"] = find_problems(store, dataset)
    if request["root"]:
        SHIM.fault_root(os.fsencode(request["root"]))
        SHIM.fault_arm(*(request["fault"] or (1, 0, 0, 0)))
    sys.argv = ["kaobako", *(request["arguments"] or ())]
    try:
        if request["arguments"] is not None:
            app.main()
    except SystemExit as error:
        report["code"] = error.code or 0
    except BaseException:  # noqa: BLE001 - what Python itself would do, and the test looks for it
        traceback.print_exc()
        report["code"] = 1
    if request["root"]:
        SHIM.fault_name.restype = ctypes.c_char_p
        report |= {"operations": SHIM.fault_count(), "hits": SHIM.fault_hits()}
        report["first"] = SHIM.fault_name().decode(errors="replace")
        SHIM.fault_arm(0, 0, 0, 0)
    if request["verify"]:
        report["after"] = find_problems(store, dataset)
    sys.stdout.flush()
    sys.stderr.flush()
    return report


def serve() -> None:
    while line := sys.stdin.readline():
        request = json.loads(line)
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receive)
            code = 70
            try:
                report = run(request)
                os.write(send, json.dumps(report).encode())
                code = report["code"]
            finally:
                os._exit(code)
        os.close(send)
        print(json.dumps({"pid": child}), flush=True)
        with os.fdopen(receive, "rb") as stream:
            data = stream.read()
        sys.stdin.readline()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "report": json.loads(data) if data else None}), flush=True)


def warm_up() -> None:
    """Leave out what takes long and decides nothing: histograms, and looking plugins and fonts up in each child."""
    assert callable(datasets.card.draw_histograms)
    datasets.card.draw_histograms = lambda manifest, ledger: b"no histograms"
    shards.MIN_SHARD = int(sys.argv[1])
    Image.init()
    ImageFont.load_default(size=10)


if __name__ == "__main__":
    warm_up()
    gc.collect()
    gc.freeze()  # else the first collection in each child copies all pages
    serve()
