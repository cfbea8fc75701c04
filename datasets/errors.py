"""Errors that a user can mend: each message says what is wrong and what to do next."""


class KaobakoError(Exception):
    """Base of all errors that are shown to the user as one clear message, without a traceback."""


class StoreError(KaobakoError):
    """The store is missing something, is damaged, or cannot be written."""


class SourceError(KaobakoError):
    """The source cannot be read at all (a single bad post is a ledger row instead)."""


class LockedError(KaobakoError):
    """Another process holds the dataset's lock."""
