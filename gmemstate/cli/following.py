"""Ending by a signal what would not end by itself: what was read is put on record before."""

import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """SIGINT and SIGTERM as they come; the second one of a kind does what it does to any program."""

    def __init__(self) -> None:
        self.number: int | None = None

    def caught(self) -> bool:
        """Whether one has come."""
        return self.number is not None

    @property
    def interrupted(self) -> bool:
        """Whether it was SIGINT (Ctrl-C)."""
        return self.number == signal.SIGINT

    def catch(self, number: int, _frame: object) -> None:
        """Take note of one."""
        self.number = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def until_signal() -> Iterator[Signals]:
    """Inside, the first SIGINT or SIGTERM is only noted."""
    signals = Signals()
    before = {number: signal.signal(number, signals.catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_pipe() -> bool:
    """Whether standard input is written while it is read: anything but a file."""
    try:
        return not stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        return False
