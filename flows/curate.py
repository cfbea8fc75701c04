"""The curate flow: a recipe and a source become the next version of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from pydantic import Field

from datasets.card import CardWriter
from datasets.sheets import draw_sheet, encode_data_uri
from datasets.store import Store
from flows.observers import PrefectObserver
from flows.recipe import Recipe
from flows.runners import Runner, prefect_runner, run_locally, run_with_prefect, worker_count
from tasks.build import BuildResult, Observer, build_version
from tasks.changes import Changes, look_for_changes

REVIEW_URL = "http://127.0.0.1:5151/datasets/{name}"


@flow(name="curate", flow_run_name="curate-{recipe.dataset}")
def curate(
    recipe: Recipe = Recipe(),  # noqa: B008 - an instance as default is what fills the form in the UI
    store: Path = Path("store"),
    runner: Runner = Runner.THREADS,
    workers: Annotated[int, Field(ge=0, le=256)] = 0,
    wait_minutes: Annotated[int, Field(ge=0)] = 0,
    look_at_everything: bool = False,
) -> dict[str, Any]:
    """Build the next version of a dataset and publish it.

    Its first task asks whether anything is new, and ends the flow when nothing is. Else only what was never measured
    is opened; when nothing differs from the newest version, none is published.

    Args:
        recipe: Everything about the build. The defaults fit the demo board.
        store: Folder of the store.
        runner: Where shards are measured.
        workers: How many at once; 0 is one per core.
        wait_minutes: How long to wait for another build of the same dataset; 0 ends at once.
        look_at_everything: Judge all again even when nothing is new.
    """
    place = Store(store)
    if not look_at_everything and (unchanged := result_of(look_for_changes_task(recipe, store))) is not None:
        publish_artifacts(place, recipe, unchanged)
        return summarise(unchanged)
    with prefect_runner(runner, workers) as task_runner:
        result = build_version(
            recipe.plan(),
            place,
            run_with_prefect(task_runner),
            PrefectObserver(),
            worker_count(workers),
            wait_minutes * 60,
        )
    publish_artifacts(place, recipe, result)
    return summarise(result)


@task(name="look-for-changes", cache_policy=NO_CACHE, persist_result=False)
def look_for_changes_task(recipe: Recipe, store: Path) -> Changes:
    """Whether anything is new since the last build; its log says what."""
    found = look_for_changes(recipe.plan(), Store(store))
    get_run_logger().info("nothing is new" if found.nothing else "new: " + "; ".join(found.reasons))
    return found


def result_of(changes: Changes) -> BuildResult | None:
    """What a build would come to when nothing is new; None when it must be done."""
    if not changes.nothing or changes.version is None:
        return None
    counts = changes.version.lineage["counts"]
    return BuildResult(changes.version, published=False, counts=counts, opened={})


def curate_without_prefect(
    recipe: Recipe,
    store: Path,
    observer: Observer,
    runner: Runner = Runner.THREADS,
    workers: int = 0,
    wait: float = 0.0,
    look_at_everything: bool = False,
) -> BuildResult:
    """The same build by the same functions, with no server and no task runs. wait: seconds for another build."""
    if not look_at_everything:
        unchanged = result_of(look_for_changes(recipe.plan(), Store(store)))
        if unchanged is not None:
            return unchanged
    return build_version(
        recipe.plan(), Store(store), run_locally(runner, workers), observer, worker_count(workers), wait
    )


def summarise(result: BuildResult) -> dict[str, Any]:
    """A build's outcome as plain values."""
    version = result.version
    return {
        "version": version.reference,
        "published": result.published,
        "content_digest": version.content_digest,
        "folder": version.folder.as_posix(),
        "counts": result.counts,
        "opened": result.opened,
        "unread": result.unread,
    }


def publish_artifacts(store: Store, recipe: Recipe, result: BuildResult) -> None:
    """What a person sees on the run's page: the accounts, the pictures, and where to go on."""
    version = result.version
    create_table_artifact(key="stages", table=count_rows(result.counts), description=f"Stages of {version.reference}")
    manifest, ledger = version.manifest(), version.ledger()
    sheets = CardWriter(store, recipe.source.root).sheets(manifest, ledger, list(result.counts))
    for title, name, cells in sheets:
        if cells:
            picture = encode_data_uri(draw_sheet(cells, side=80))
            create_markdown_artifact(
                key=f"sheet-{name}", markdown=f"## {title}\n\n![{title}]({picture})", description=title
            )
    card = (version.folder / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    create_markdown_artifact(
        key="version-card",
        markdown=f"{card}\n\nThe whole card: `{version.folder / 'README.md'}`\n\n"
        f"Review it: `kaobako review {version.reference} --store {store.root}`",
        description=f"Card of {version.reference}",
    )
    create_link_artifact(
        key="review",
        link=REVIEW_URL.format(name=version.folder.parent.name + "-" + version.folder.name),
        link_text=f"{version.reference} in FiftyOne (while kaobako review runs)",
        description=f"{version.reference} in FiftyOne",
    )


def count_rows(counts: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The accounts as rows: one per stage, and one per reason beneath it."""
    rows: list[dict[str, Any]] = []
    for stage, row in counts.items():
        dropped = sum(row["dropped"].values())
        rows.append({"stage": stage, "in": row["in"], "kept": row["kept"], "dropped": dropped, "reason": ""})
        rows += [
            {"stage": "", "in": "", "kept": "", "dropped": count, "reason": reason}
            for reason, count in row["dropped"].items()
        ]
    return rows
