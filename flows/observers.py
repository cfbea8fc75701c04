"""Observers: how a running build shows itself, on a terminal or in the Prefect UI."""

from __future__ import annotations

import uuid
from types import TracebackType
from typing import Any, Self

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from datasets.leases import describe_holder
from models.training.trainer import TrainingProgress
from tasks.shards import ShardResult


def say_counts(stage: str, counts: dict[str, Any]) -> str:
    """One stage's accounts in a line."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts["dropped"].items())
    dropped = sum(counts["dropped"].values())
    return f"{stage}: in {counts['in']}, kept {counts['kept']}, dropped {dropped}" + (
        f" ({reasons})" if reasons else ""
    )


class PrefectObserver:
    """Log lines on the run's page, and a progress bar for each stage that measures something."""

    def __init__(self) -> None:
        self._log = get_run_logger()
        self._artifact: uuid.UUID | None = None
        self._to_measure = 0
        self._measured = 0

    def waiting_for(self, holder: dict[str, Any]) -> None:
        self._log.info("waiting for %s", describe_holder(holder))

    def metadata_read(self, name: str, done: int, total: int) -> None:
        if done >= total:
            self._log.info("%s: converted, %.0f MB", name, total / 1e6)

    def stage_started(self, stage: str, items: int, to_measure: int) -> None:
        self._log.info("%s: %d items, %d to measure", stage, items, to_measure)
        self._to_measure, self._measured = to_measure, 0
        self._artifact = None
        if to_measure:
            created = create_progress_artifact(0.0, key=f"progress-{stage}", description=f"{stage}: pictures measured")
            self._artifact = created if isinstance(created, uuid.UUID) else None

    def shard_done(self, result: ShardResult) -> None:
        self._measured += result.count
        if self._artifact is not None:
            update_progress_artifact(self._artifact, round(100.0 * self._measured / self._to_measure, 1))

    def stage_done(self, stage: str, counts: dict[str, Any]) -> None:
        self._log.info("%s", say_counts(stage, counts))


class ConsoleObserver:
    """Progress bars on a terminal (standard error, so that --json stays clean)."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        quiet = not self.console.is_terminal  # in a log, an empty bar is a blank line
        self._progress = Progress(*columns, console=self.console, transient=True, disable=quiet)
        self._bar: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def waiting_for(self, holder: dict[str, Any]) -> None:
        self.console.print(f"waiting for {describe_holder(holder)}", highlight=False)

    def metadata_read(self, name: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = self._progress.add_task("metadata", total=total)
        self._progress.update(self._bar, completed=done, total=total)

    def stage_started(self, stage: str, items: int, to_measure: int) -> None:
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None
        if to_measure:
            self._bar = self._progress.add_task(stage, total=to_measure)

    def shard_done(self, result: ShardResult) -> None:
        if self._bar is not None:
            self._progress.advance(self._bar, result.count)

    def stage_done(self, stage: str, counts: dict[str, Any]) -> None:
        self.console.print(say_counts(stage, counts), highlight=False)


class TrainingConsole:
    """A progress bar for a training, with its speed."""

    def __init__(self) -> None:
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._console = Console(stderr=True)
        quiet = not self._console.is_terminal
        self._progress = Progress(*columns, TextColumn("{task.fields[speed]}"), console=self._console, disable=quiet)
        self._bar = self._progress.add_task("training", total=None, speed="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, progress: TrainingProgress) -> None:
        speed = f"{progress.sec_per_kimg:.1f} s/kimg"
        self._progress.update(self._bar, completed=progress.nimg, total=progress.total, speed=speed)
        if not self._console.is_terminal:
            self._console.print(f"{progress.nimg} of {progress.total} pictures, {speed}", highlight=False)
        if progress.metrics:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in progress.metrics.items())
            self._console.print(f"after {progress.nimg / 1000:g} kimg: {figures}", highlight=False)
