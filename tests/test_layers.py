"""What the layers promise beyond the import contracts: light commands, and machines that have little installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A GPU machine has these and what they need, but none of the libraries below.
ABSENT = ("prefect", "fiftyone", "typer", "rich", "animeface", "imagehash", "av", "tensorboard", "matplotlib", "ncnn")

IMPORT_ALL = """
import importlib, json, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ABSENT = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Absent())
failed = {}
for package in ("models", "datasets"):
    for module in pkgutil.walk_packages([f"{sys.argv[2]}/{package}"], f"{package}."):
        if module.name.startswith("datasets.review"):
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed[module.name] = repr(error)
print(json.dumps(failed))
"""


def run_python(code: str, *arguments: str) -> str:
    """Standard output of a fresh interpreter in the project's root."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_models_and_datasets_import_with_the_libraries_of_a_gpu_machine() -> None:
    failed = json.loads(run_python(IMPORT_ALL, json.dumps(ABSENT), str(ROOT)))
    assert failed == {}


def test_our_package_names_do_not_break_the_libraries_that_we_use() -> None:
    code = "import flows, tasks, models, datasets, prefect, torch, pyarrow; print(datasets.__file__)"
    assert Path(run_python(code).strip()).parent == ROOT / "datasets"
