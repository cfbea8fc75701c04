"""A person reviews a version: the App in a real browser, one click on Keep, and the decision is in the store."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_version import DIFF_NAME, DIFFERING, KEPT, NAME

from datasets.decisions import current_decisions
from datasets.review import database

pytestmark = [pytest.mark.review, pytest.mark.browser, pytest.mark.slow]
PROGRAM = Path(__file__).parent / "fake_version.py"
SAMPLES = "[data-cy=looker]"


@dataclass(frozen=True)
class App:
    process: subprocess.Popen[str]
    folder: Path
    port: int
    address: str

    def run(self, command: str) -> str:
        """Another command on the same store, while the App is open."""
        done = subprocess.run(
            [sys.executable, PROGRAM, command, self.folder], env=clean_environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def clean_environment() -> dict[str, str]:
    """As on a fresh terminal: nothing of the other tests' database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIFTYONE_")}
    return {**kept, "PYTHONPATH": str(Path(database.__file__).parents[2])}


@pytest.fixture
def app(review_folder: Path, tmp_path: Path) -> Iterator[App]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, PROGRAM, "serve", tmp_path, str(port)],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout
        line = next((text for text in process.stdout if text.startswith("http")), "")
        assert line, (tmp_path / "serve.log").read_text()
        yield App(process, tmp_path, port, line.strip())
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def select(page: Any, index: int) -> None:
    sample = page.locator(SAMPLES).nth(index)
    sample.hover()
    sample.locator("label[data-cy^=looker-checkbox]").click()


def press(page: Any, button: str, says: str) -> None:
    icon = page.locator(f"img[src*='{button}.svg']")
    icon.click()
    assert icon.evaluate("image => image.naturalWidth") > 0
    page.get_by_text(says).wait_for()


def test_a_click_on_keep_reaches_the_store_and_no_process_stays(app: App, chromium: Any) -> None:
    import psutil
    from playwright.sync_api import expect

    assert app.address == f"http://127.0.0.1:{app.port}/datasets/{NAME}"
    page = chromium.new_page(viewport={"width": 1500, "height": 950})
    page.set_default_timeout(30_000)
    page.add_locator_handler(page.get_by_text("Dismiss"), lambda greeting: greeting.click())
    page.goto(app.address)
    page.get_by_text(f"{KEPT + 6} samples").wait_for()
    shown = page.locator(SAMPLES)
    shown.nth(KEPT + 5).wait_for()
    expect(page.locator("[data-cy=tag-stage]", has_text="published")).to_have_count(KEPT, timeout=30_000)
    for stage, reason in (("filter", "file_missing"), ("clean", "blurry"), ("rank", "low_rank")):
        page.locator("[data-cy=tag-stage]", has_text=stage).wait_for()
        page.locator("[data-cy=tag-reason]", has_text=reason).wait_for()

    press(page, "keep", "Select images first, then press Keep.")
    select(page, 2)
    press(page, "keep", "1 marked keep")
    page.locator("[data-cy=tag-keep]").wait_for()
    select(page, 0)
    press(page, "reject", "1 marked reject")
    page.locator("[data-cy=tag-reject]").wait_for()
    page.screenshot(path=app.folder / "review.png")

    page.goto(f"{app.address}?view=near-duplicate-groups")
    page.get_by_text("3 samples").wait_for()

    look_at_the_diff(page, app)
    page.close()

    assert app.run("pull").strip() == "pulled 2 keep, 1 reject, 0 unsure"
    decided = current_decisions(app.folder / "decisions").select(["crop_id", "decision", "who", "version"]).to_pylist()
    assert sorted(decided, key=lambda row: row["crop_id"]) == [
        {"crop_id": "100#0", "decision": "reject", "who": "mika", "version": "faces@v7"},
        {"crop_id": "101#0", "decision": "keep", "who": "mika", "version": "faces@v7"},
        {"crop_id": "102#0", "decision": "keep", "who": "mika", "version": "faces@v7"},
    ]
    assert app.run("pull").strip() == "pulled 0 keep, 0 reject, 0 unsure"

    children = psutil.Process(app.process.pid).children(recursive=True)
    mongod = json.loads((app.folder / "review" / "mongo" / "kaobako-server.json").read_text())["pid"]
    assert mongod in {child.pid for child in children} and len(children) >= 2
    assert listening_addresses(children) == {"127.0.0.1"}
    app.process.send_signal(signal.SIGTERM)
    assert app.process.wait(60) == 0
    deadline = time.monotonic() + 5
    while any(child.is_running() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [child for child in children if child.is_running()] == []


def look_at_the_diff(page: Any, app: App) -> None:
    """In the same App: what differs from the version before, its causes, and Keep for what a threshold took."""
    from playwright.sync_api import expect

    page.goto(app.address.replace(NAME, DIFF_NAME))
    page.get_by_text(f"{DIFFERING} samples").wait_for()
    for field in ("change", "cause", "sentence", "threshold_before", "threshold_after"):
        expect(page.locator(f"[data-cy=sidebar-field-{field}]")).to_be_visible(timeout=30_000)
    expect(page.locator("[data-cy=tag-change]", has_text="removed")).to_have_count(4, timeout=30_000)
    expect(page.locator("[data-cy=tag-cause]", has_text="source_gone")).to_have_count(1)
    page.screenshot(path=app.folder / "diff.png")

    page.goto(f"{app.address.replace(NAME, DIFF_NAME)}?view=removed-by-threshold")
    page.get_by_text("2 samples").wait_for()
    expect(page.locator("[data-cy=tag-parameter]", has_text="clean.min_blur")).to_have_count(2, timeout=30_000)
    select(page, 1)
    press(page, "keep", "1 marked keep")
    page.locator("[data-cy=tag-keep]").wait_for()


def listening_addresses(processes: list[Any]) -> set[str]:
    return {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == "LISTEN"
    }
