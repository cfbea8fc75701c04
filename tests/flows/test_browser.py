"""The main job as a person does it: the form in Prefect's UI, a run, its artifacts."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 1000  # playwright counts in milliseconds


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A tall page, so that a whole form can be seen at once."""
    context = chromium.new_context(viewport={"width": 1300, "height": 1400})
    context.set_default_timeout(60 * SECONDS)
    # the V2 UI asks an analytics host for its settings, whatever the server says; tests stay on this machine
    context.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.abort())
    yield context.new_page()
    context.close()


@pytest.fixture
def shoot(page: Any, tmp_path: Path) -> Callable[[str], None]:
    """Take a screenshot of the step, for whoever looks into a failure."""

    def take(step: str) -> None:
        page.screenshot(path=tmp_path / f"{step}.png", full_page=True)

    return take


def open_deployments(page: Any, served: Any) -> None:
    """The page of deployments. Loaded anew when it stays empty: the server answers 503 while it is very busy."""
    from playwright.sync_api import expect

    for _ in range(4):
        page.goto(f"{served.ui}/v2/deployments")
        with contextlib.suppress(AssertionError):
            expect(page.get_by_role("link", name="nightly")).to_be_visible(timeout=15 * SECONDS)
            return
    expect(page.get_by_role("link", name="nightly")).to_be_visible(timeout=15 * SECONDS)


@pytest.mark.prefect
@pytest.mark.browser
def test_a_version_is_built_from_the_form_in_the_browser(served: Any, page: Any, shoot: Callable[[str], None]) -> None:
    from playwright.sync_api import expect

    open_deployments(page, served)
    page.get_by_role("link", name="full-rebuild").click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()

    # the form holds the whole recipe, filled in
    name = page.get_by_label(re.compile(r"^dataset\b", re.I))
    expect(name).to_have_value("faces")
    expect(page.get_by_label(re.compile(r"^root\b", re.I))).to_have_value(str(served.board))
    expect(page.get_by_label(re.compile(r"^store\b", re.I))).to_have_value(str(served.store))
    expect(page.get_by_label(re.compile(r"^min.colours\b", re.I))).to_have_value("64")
    for stage in ("source", "filter", "crop", "clean", "dedup", "upscale", "rank", "augment", "training"):
        expect(page.locator("label").filter(has_text=re.compile(rf"^{stage}\b")).first).to_be_visible()
    for rating in ("safe", "general"):  # chips of a list of choices
        expect(page.get_by_text(rating, exact=True)).to_be_visible()
    shoot("1-form")

    name.fill("from-the-form")
    submit(page, served, "from-the-form", shoot)
    page.wait_for_url("**/runs/flow-run/*")
    expect(page.get_by_text("curate-from-the-form").first).to_be_visible(timeout=120 * SECONDS)
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible(timeout=180 * SECONDS)
    shoot("2-run")
    run = page.url

    page.get_by_role("tab", name="Artifacts").click()
    for key in ("stages", "sheet-kept", "sheet-dropped", "version-card", "review", "progress-crop"):
        expect(page.get_by_role("link", name=key).first).to_be_visible()
    shoot("3-artifacts")

    open_artifact(page, "stages")
    for cell in ("filter", "crop", "clean", "dedup", "kept", "dropped"):
        expect(page.get_by_role("table").get_by_text(cell, exact=True).first).to_be_visible()
    shoot("4-stages")

    page.goto(run)
    page.get_by_role("tab", name="Artifacts").click()
    open_artifact(page, "sheet-kept")
    sheet = page.locator("img[src^='data:image/']")
    expect(sheet).to_be_visible()
    size = sheet.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
    assert size[0] > 300 and size[1] > 80, size
    shoot("5-sheet")

    page.goto(run)
    page.get_by_role("tab", name="Artifacts").click()
    open_artifact(page, "version-card")
    expect(page.get_by_text("kaobako review from-the-form@v1").first).to_be_visible()
    shoot("6-card")
    assert (served.store / "datasets" / "from-the-form" / "v0001" / "version.json").exists()


def submit(page: Any, served: Any, dataset: str, shoot: Callable[[str], None]) -> None:
    """Press Submit and go to the run, again if need be: a busy server may answer 503 ("try again"), and then the form
    stays; and the notice with the link to the run is gone after a few seconds."""
    from playwright.sync_api import TimeoutError as Waited

    notice = page.get_by_role("button", name="View run").or_(page.get_by_role("link", name="View run")).first
    for attempt in range(4):
        page.get_by_role("button", name="Submit").click()
        try:
            notice.click(timeout=20 * SECONDS)
            return
        except Waited:
            shoot(f"1-submitted-{attempt}")
        if (run := find_run(served.api, dataset)) is not None:
            page.goto(f"{served.ui}/v2/runs/flow-run/{run}")
            return
    pytest.fail("the form was submitted four times, and no run was made")


def find_run(api: str, dataset: str) -> str | None:
    """The id of the flow run that builds a dataset, as the server knows it."""
    request = urllib.request.Request(f"{api}/flow_runs/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        runs = json.load(answer)
    found = [run["id"] for run in runs if run["parameters"].get("recipe", {}).get("dataset") == dataset]
    return found[0] if found else None


def open_artifact(page: Any, key: str) -> None:
    """From a run's Artifacts tab to the content of one of them: its history first, then its newest entry."""
    page.get_by_role("link", name=key).first.click()
    page.wait_for_url(f"**/artifacts/key/{key}")
    page.get_by_role("link", name=re.compile(r"^[0-9a-f]{8}$")).first.click()
    page.wait_for_url("**/artifacts/artifact/*")
