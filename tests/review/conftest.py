"""One database for all review tests, and a little version to look at."""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets.review.database import mongod_status, review_database
from datasets.review.records import ReviewInputs

sys.path.append(str(Path(__file__).parent))  # fake_version is a program too, so it is a file beside the tests
from fake_version import make_version


@pytest.fixture
def inputs(tmp_path: Path) -> ReviewInputs:
    return make_version(tmp_path)


@pytest.fixture(scope="session")
def review_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A review folder with its database up, under a private name; FiftyOne may be imported after this."""
    if importlib.util.find_spec("fiftyone") is None:
        _skip("FiftyOne is not installed: pip install 'kaobako[review]'")
    status = mongod_status()
    if not status.found:
        _skip(f"no database for FiftyOne: {status.advice}")
    folder = tmp_path_factory.mktemp("review")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTYONE_DATABASE_DIR", str(folder / "mongo"))
        patch.setenv("FIFTYONE_DATABASE_NAME", f"kaobako-{uuid.uuid4().hex[:8]}")
        with review_database(folder):
            yield folder


def _skip(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
