"""The conversion machine: one per ioctl, as one thread issued it.

What the caller was returned, what was applied and what is left over are facts in addition to the state; the labels are derived
from them.
"""

from collections.abc import Iterator

from gmemstate.model.machines.definition import STAY, Definition, Row

NEW = "new"
ENDED = (
    "rejected",
    "noop",
    "committed",
    "committed_short",
    "failed",
    "failed_at_reserve",
    "failed_at_unmap",
    "failed_at_check",
    "failed_at_store",
    "failed_dirty",
    "declared",
)
OPEN = ("asked", "waiting", "same", "reserving", "planned", "zapping", "checked", "storing", "ending")
FAILING = ("failing_at_unmap", "failing_at_check", "undoing", "undoing_dirty")


def _conversion_rows() -> Iterator[Row]:
    going = (*OPEN, *FAILING)
    yield Row("C1", "asked", (NEW,), "asked", "bytes as requested, perhaps unaligned")
    yield Row("C1", "asked", (*going, "cut"), STAY, "its arguments are seen late")
    yield Row("C2", "attempted", (NEW, "asked"), "waiting", "the tracepoint: validation passed")
    yield Row("C3", "returned_refused", (NEW, "asked"), "rejected", "EINVAL, EFAULT, EIO, ENOTTY: nothing was looked at")
    yield Row("C4", "compared_equal", (NEW, "asked", "waiting"), "same", "the whole range has the value already")
    yield Row("C4", "returned_ok", ("same",), "noop", "nothing had to be done")
    yield Row("C4", "returned_noop", (NEW, "asked", "waiting", "same"), "noop", "success, and nothing was done in between")
    yield Row("C5", "compared_different", (NEW, "asked", "waiting"), "reserving", "the lock is held from here on")
    yield Row("C6", "work_item", (NEW, "asked", "waiting", "planned"), "planned", "rfc-v2: one item of work")
    yield Row("C6", "reserved", ("asked", "waiting", "reserving", "planned"), STAY, "entries or nodes are reserved")
    yield Row(
        "C7", "returned_enomem", (NEW, "asked", "waiting", "reserving", "planned"), "failed_at_reserve", "nothing was changed"
    )
    for error in ("refused", "error"):
        yield Row(
            "C7",
            f"returned_{error}",
            ("reserving", "planned"),
            "failed_at_reserve",
            "EFAULT: no memory, and the answer could not be written",
        )
    yield Row(
        "C7", "returned_refused", ("reserving", "planned"), "failed_at_reserve", "EFAULT: ENOMEM could not be written back"
    )
    yield Row(
        "C8", "zap", (NEW, "asked", "waiting", "same", "reserving", "planned"), "zapping", "the first user loses its mappings"
    )
    yield Row("C8", "zap", ("zapping", "checked"), STAY, "one more slot, or in-place after the check")
    yield Row(
        "C9",
        "returned_ok",
        (NEW, "asked", "waiting", "reserving", "planned"),
        "committed",
        "no slot, or the steps were not shown",
    )
    yield Row("C10", "refused", ("zapping", "checked"), "failing_at_unmap", "a user refuses, or a reported private unmap fails")
    yield Row("C10", "refused", ("failing_at_unmap",), STAY, "one more")
    yield Row("C10", "zap", ("failing_at_unmap",), STAY, "one more slot: an unmap returns void, nobody obeys the answer")
    yield Row("C11", "suspect", going, STAY, "a private unmap failed and nobody learns of it")
    checking = ("zapping", "checked", "failing_at_unmap")
    yield Row(
        "C12", "users_checked", checking, "checked", "nobody else holds the pages; a refusal that holds nothing does not count"
    )
    yield Row("C12", "users_bad", checking, "failing_at_check", "somebody holds a page")
    yield Row(
        "C13",
        "stored",
        (NEW, "asked", "waiting", "reserving", "planned", "zapping", "checked", "storing", "ending"),
        "storing",
        "the attribute is written",
    )
    yield Row("C13", "stored", ("failing_at_unmap",), "storing", "nobody has obeyed the refusal")
    yield Row("C14", "store_failed", ("storing", "checked", "zapping"), "undoing", "store, split or merge failed: rollback")
    yield Row("C15", "ended", ("storing",), "ending", "the invalidation ends")
    yield Row(
        "C15", "ended", (*(state for state in going if state != "storing"),), STAY, "an end that belongs to an earlier step"
    )
    yield Row("C12", "users_bad", ("planned", "reserving"), "failing_at_check", "check-first: nobody was unmapped yet")
    yield Row("C16", "returned_ok", ("zapping", "checked", "storing", "ending"), "committed", "success")
    for error in ("refused", "eagain", "enomem", "error"):
        yield Row("C17", f"returned_{error}", ("failing_at_unmap",), "failed_at_unmap", "all old, users unmapped")
        yield Row("C17", f"returned_{error}", ("failing_at_check",), "failed_at_check", "all old, users unmapped")
        yield Row("C18", f"returned_{error}", ("undoing",), "failed_at_store", "all old, rolled back")
        yield Row("C18", f"returned_{error}", ("undoing_dirty",), "failed_dirty", "the rollback itself failed")
    yield Row(
        "C17",
        "returned_eagain",
        (NEW, "asked", "zapping", "checked"),
        "failed_at_check",
        "a page was in use; the steps were not shown",
    )
    yield Row(
        "C17",
        "returned_refused",
        ("zapping", "checked"),
        "failed_at_check",
        "EFAULT: a page was in use and the answer could not be written",
    )
    yield Row("C17", "returned_error", (NEW, "asked", "zapping", "checked"), "failed", "another errno")
    yield Row("C18", "undone", ("undoing", "undoing_dirty"), STAY, "one item of the rollback went well")
    yield Row("C18", "undo_warned", ("undoing", "undoing_dirty"), "undoing_dirty", "one item of the rollback failed")
    yield Row(
        "C19",
        "returned_short",
        ("asked", "planned", "zapping", "checked", "storing", "ending"),
        "committed_short",
        "success, but less was changed",
    )
    yield Row("C20", "spinning", going, STAY, "stuck: it can still end")
    yield Row("C21", "signalled", going, STAY, "dying: the ioctl runs to its end")
    yield from _rows_behind_a_gap(going)


def _rows_behind_a_gap(going: tuple[str, ...]) -> Iterator[Row]:
    yield Row("C22", "cut", going, "cut", "the record ends, or a gap: the result may be missing")
    yield Row("C22", "returned_ok", ("cut",), "committed", "the gap hid steps, not the result")
    yield Row("C22", "returned_refused", ("cut",), "failed", "the gap hid steps, not the result")
    yield Row("C22", "returned_enomem", ("cut",), "failed", "the gap hid steps, not the result")
    yield Row("C22", "returned_eagain", ("cut",), "failed", "the gap hid steps, not the result")
    yield Row("C22", "returned_error", ("cut",), "failed", "the gap hid steps, not the result")
    yield Row("C22", "returned_noop", ("cut",), "noop", "the gap hid steps, not the result")
    yield Row("C22", "returned_short", ("cut",), "committed_short", "the gap hid steps, not the result")
    steps = (
        "attempted",
        "compared_equal",
        "compared_different",
        "work_item",
        "reserved",
        "zap",
        "refused",
        "users_checked",
        "users_bad",
        "stored",
        "store_failed",
        "undone",
        "undo_warned",
        "ended",
        "suspect",
        "spinning",
        "signalled",
        "cut",
    )
    for step in steps:
        yield Row("C22", step, ("cut",), STAY, "a step after a gap")
    yield Row("C23", "declare", (*going, "cut"), "declared", "an operator closes it")


CONVERSION = Definition(
    name="conversion", states=(NEW, *OPEN, *FAILING, "cut", *ENDED), rows=tuple(_conversion_rows()), final=ENDED
)
