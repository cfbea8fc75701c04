"""Fixtures that several folders of tests share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path(os.environ.get("KAOBAKO_CHROMIUM", "/usr/bin/chromium"))
QUIET_BROWSER = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def chromium() -> Iterator[Any]:
    """A playwright Browser on the machine's Chromium, with a fresh profile. In CI its absence is a failure.

    Not kept for the session: while playwright's synchronous interface is open, an event loop counts as running in this
    thread, and whatever calls asyncio.run in another test (Prefect, FiftyOne's operators) fails.
    """
    problem = None if CHROMIUM.exists() else f"no Chromium at {CHROMIUM}: apt-get install chromium, or KAOBAKO_CHROMIUM"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        problem = "playwright is not installed: pip install 'kaobako[dev]'"
    if problem:
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET_BROWSER)
        yield browser
        browser.close()


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Any]:
    """Writes snapshots as the published StyleGAN2 repositories do: a PublishedWriter of published_stylegan2.py.

    At the end of the test, none of the source text in the snapshots may have been run.
    """
    place = Path(__file__).with_name("published_stylegan2.py")  # imported only here: it needs torch
    spec = importlib.util.spec_from_file_location("published_stylegan2", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    writer = module.PublishedWriter(tmp_path / "source-was-run")
    yield writer
    assert not writer.marker.exists()
