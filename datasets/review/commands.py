"""`kaobako review` and `kaobako decisions pull`, without the command line: FiftyOne is imported inside only."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from datasets.review.app import choose_port, serve_review
from datasets.review.database import review_database
from datasets.review.diff_records import DiffInputs
from datasets.review.pull import PulledDecisions, pull_decisions
from datasets.review.records import ReviewInputs

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def open_review(
    folder: Path,
    name: str,
    inputs: ReviewInputs,
    port: int | None = None,
    announce: Callable[[str], None] = print,
    stop: threading.Event | None = None,
) -> None:
    """Make the review of a version and show it on 127.0.0.1 until Ctrl-C, SIGTERM, SIGHUP, or `stop` is set.

    folder: the store's `review` folder, where the database lies. name: see `records.review_name`. port: the first free
    one from 5151 on when None. announce: is told the address of the App once it answers.
    Raises DatabaseError without a mongod, ReviewError when the port is taken. No process is left behind.
    """

    def load() -> None:
        from datasets.review.view import load_review_dataset

        load_review_dataset(name, inputs)

    _show(folder, name, load, port, announce, stop)


def open_diff(
    folder: Path,
    name: str,
    inputs: DiffInputs,
    port: int | None = None,
    announce: Callable[[str], None] = print,
    stop: threading.Event | None = None,
) -> None:
    """Show what differs between two versions, as `open_review` shows a version. name: see `records.diff_name`."""

    def load() -> None:
        from datasets.review.diff_view import load_diff_dataset

        load_diff_dataset(name, inputs)

    _show(folder, name, load, port, announce, stop)


def pull_review(folder: Path, name: str, decisions: Path, who: str, note: str | None = None) -> PulledDecisions:
    """Append what people tagged in the review `name`, and in the diffs of that version with others, to the store's
    decisions; works while the App is open, too.

    folder: the store's `review` folder. decisions: the store's `decisions` folder. who: the reviewer.
    Raises DatabaseError, ReviewError, DecisionError.
    """
    with _ending_by_signal(), review_database(folder):
        return pull_decisions(name, decisions, who, note)


def _show(
    folder: Path,
    name: str,
    load: Callable[[], None],
    port: int | None,
    announce: Callable[[str], None],
    stop: threading.Event | None,
) -> None:
    free_port = choose_port(port)  # found out before the work, not after
    with _ending_by_signal(), review_database(folder):
        load()
        with contextlib.suppress(KeyboardInterrupt):  # the usual end of a review
            serve_review(name, free_port, announce, stop)


@contextlib.contextmanager
def _ending_by_signal() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the body as Ctrl-C does, so that it ends the processes it started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for each in ENDING_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # impatience must not cut the tidying up short
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
