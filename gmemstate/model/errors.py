"""Errors: one root, each with its data and the next step.

Exceptions are for misuse and for input and output. A bad *history* is no exception but a finding
(:mod:`gmemstate.model.findings`).
"""

from typing import Any


class GmemstateError(Exception):
    """The root of everything this package raises on purpose.

    ``code`` is stable, ``data`` holds the facts, and the text ends with what to do next.
    """

    code = "error"
    exit_code = 4

    def __init__(self, text: str, **data: Any) -> None:
        super().__init__(text)
        self.data = data


class UsageError(GmemstateError):
    """A question cannot be asked like this."""

    code = "usage"
    exit_code = 2


class CannotRead(GmemstateError):
    """An input cannot be read: a directory, binary data, an unknown format."""

    code = "cannot-read"


class SourceChanged(CannotRead):
    """A file that was read before no longer begins with what was read."""

    code = "source-changed"


class NotALedger(GmemstateError):
    """A database is not a ledger, or not one that this version can open."""

    code = "not-a-ledger"


class CannotWrite(GmemstateError):
    """The database refuses to be written: read-only, full, locked."""

    code = "cannot-write"


class Conflict(GmemstateError):
    """Somebody else has recorded on this guest since the caller looked.

    ``data`` holds ``guest``, ``expected`` and ``found`` (seqs).
    """

    code = "conflict"


class BadEvent(GmemstateError):
    """An event does not fit its kind: a column out of range, an unknown kind or version."""

    code = "bad-event"


class UnexpectedTrigger(GmemstateError):
    """A trigger is not expected in the state of a machine.

    ``data`` holds ``trigger`` and ``state``.
    """

    code = "unexpected-trigger"


class PageUserFailed(GmemstateError):
    """A user of pages raised in a conversion, lacks an attribute, or gave an answer that no kernel could see.

    ``data`` holds ``user``, ``method`` and ``conversion`` (its seq), which is left interrupted.
    """

    code = "page-user-failed"
