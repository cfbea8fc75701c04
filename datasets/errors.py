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

    What was given is added for a setting, not for a whole table, and not where the words quote it already.
    """
    own = one["type"] in ("value_error", "assertion_error")  # pydantic puts its own words before those of a validator
    message = str(one["ctx"]["error"]) if own else str(one["msg"])
    given = one["input"]
    if name and one["type"] != "missing" and not isinstance(given, Mapping) and not _quotes(message, given):
        message += f" (got {given!r})"
    return f"{name}: {message}" if name else message


def _quotes(message: str, given: object) -> bool:
    """Whether a message quotes the given text, or one of the given texts."""
    texts = given if isinstance(given, list | tuple) else (given,)
    return any(isinstance(text, str) and repr(text) in message for text in texts)
