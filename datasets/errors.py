"""Errors that a user can mend: each message says what is wrong and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class KaobakoError(Exception):
    """Base of all errors that are shown to the user as one clear message, without a traceback."""


class StoreError(KaobakoError):
    """The store is missing something, is damaged, or cannot be written."""


class SourceError(KaobakoError):
    """The source cannot be read at all (a single bad post is a ledger row instead)."""


class LockedError(KaobakoError):
    """Another process holds the dataset's lock."""


def say_invalid(error: ValidationError, whole: str = "") -> list[str]:
    """What is wrong with settings, a sentence for each one, by its dotted name. whole: names all of them together."""
    return [say_invalid_setting(one, ".".join(map(str, one["loc"])) or whole) for one in error.errors()]


def say_invalid_setting(one: Mapping[str, Any], name: str) -> str:
    """One entry of `ValidationError.errors()` as a user reads it; name "" where settings do not go together.

    Our validators' own words stand alone: they name the value themselves where it matters. What was given is said for
    a setting, not for a whole table.
    """
    message = str(one.get("ctx", {}).get("error", one["msg"]))
    if not isinstance(one["input"], Mapping) and name and one["type"] != "missing":
        message += f" (got {one['input']!r})"
    return f"{name}: {message}" if name else message
