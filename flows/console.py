"""What Prefect's log shows on a terminal. Prefect is told of this handler by its name in the environment."""

from __future__ import annotations

import copy
import logging
import os
from typing import Any

from prefect.logging.handlers import PrefectConsoleHandler

from flows.errors import is_plain, say_error

_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
_END = "Finished in state "
# How Prefect's engine begins what it logs of a flow or task that raised: the error is said elsewhere, or in its place.
_FAILURES = ("Encountered exception during", "Task run failed with")


class ConsoleHandler(PrefectConsoleHandler):
    """Prefect's console, on which an error that a user can mend is one message, said once.

    A command says it itself, as its last line; a run that a server started has nobody else to say it. The run's page
    is written by another handler, and keeps the traceback.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._failed: set[str] = set()  # runs whose error is said

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, or what is left of it."""
        shown = self._shorten(record) if record.name in _RUN_LOGGERS else record
        if shown is not None:
            super().emit(shown)

    def _shorten(self, record: logging.LogRecord) -> logging.LogRecord | None:
        run = str(getattr(record, "task_run_id", None) or getattr(record, "flow_run_id", None))
        error = record.exc_info[1] if record.exc_info else None
        message = record.getMessage()
        if error is not None and is_plain(error):
            if not message.startswith(_FAILURES):  # of a hook, or of a cache key: its own words say what failed
                return _reword(record, f"{message.rstrip('.:')}: {say_error(error)}")
            self._failed.add(run)
            return _reword(record, say_error(error)) if os.environ.get("PREFECT__FLOW_RUN_ID") else None
        if run in self._failed and message.startswith(_END):
            self._failed.discard(run)
            return _reword(record, message.partition("(")[0])
        return record


def _reword(record: logging.LogRecord, message: str) -> logging.LogRecord:
    """A copy with other words and no traceback: the record itself goes on to other handlers."""
    reworded = copy.copy(record)
    reworded.msg, reworded.args, reworded.exc_info, reworded.exc_text = message, (), None, None
    return reworded
