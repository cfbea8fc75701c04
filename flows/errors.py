"""How an error is shown: one that a user can mend as one message, anything else with its traceback."""

from __future__ import annotations

import os
from typing import Any

from datasets.errors import say_invalid

# Errors whose own text tells a user what is wrong: ours, and what these libraries say of his settings and files.
_SAID_PLAINLY = ("flows", "tasks", "models", "datasets", "pydantic_core", "pyarrow", "_csv", "httpx")


def is_plain(error: object) -> bool:
    """Whether an error's own text is all that a user needs. With KAOBAKO_TRACEBACK set, none is."""
    if os.environ.get("KAOBAKO_TRACEBACK"):
        return False
    return isinstance(error, OSError) or _module(error) in _SAID_PLAINLY


def say_error(error: Any) -> str:
    """An error as a user reads it: the text of some libraries would name classes and addresses, or nothing at all."""
    if _module(error) == "pydantic_core" and hasattr(error, "errors"):
        return "; ".join(say_invalid(error))
    if _module(error) == "httpx":  # only Prefect's client speaks through it
        return f"the Prefect server cannot be reached, or did not answer: {error or type(error).__name__}"
    return f"{error}." if isinstance(error, OSError) else str(error)


def _module(error: object) -> str:
    return type(error).__module__.partition(".")[0]
