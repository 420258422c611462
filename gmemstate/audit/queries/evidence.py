"""Names of guests and lines of sources, as all rows cite them."""

from dataclasses import dataclass

from gmemstate.audit.history.history import History
from gmemstate.audit.history.moment import Moment
from gmemstate.model.document import Document

NO_GUEST = "?"
"""The name of a guest that is not known."""


@dataclass(frozen=True, slots=True)
class Lines(Document):
    """Lines ``first`` to ``last`` of a source, both included."""

    file: str
    first: int
    last: int


def guest_name(moment: Moment, owner: int | None) -> str:
    """The name of the guest of an attribute owner, ``?`` if it is not known."""
    vm = moment.memory.vms.get(moment.memory.guest_id(owner) or 0)
    return NO_GUEST if vm is None else vm.name


def lines(history: History, source: int | None, first: int | None, last: int | None) -> Lines | None:
    """The lines that show something; None where it was not read anywhere."""
    known = history.sources.get(source or 0)
    return None if known is None or first is None else Lines(known.name, first, first if last is None else last)
