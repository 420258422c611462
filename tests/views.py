"""What a record holds as JSON, the way most tests compare it."""

from collections.abc import Iterator
from typing import Any

from gmemstate.audit.history.history import History
from gmemstate.audit.history.moment import Moment
from gmemstate.audit.queries import conversions as _conversions
from gmemstate.audit.queries import messed_up as _messed_up
from gmemstate.audit.queries import requests as _requests
from gmemstate.audit.queries import state as _state
from gmemstate.audit.queries.evidence import NO_GUEST
from gmemstate.audit.queries.state import EVERYTHING, StateRow
from gmemstate.model.objects import Conversion
from gmemstate.model.units import PageRange, Unit

Json = dict[str, Any]
__all__ = ["NO_GUEST", "Json", "StateRow"]


def conversion(history: History, one: Conversion) -> Json:
    return _conversions.conversion_row(history, one).to_json()


def conversions(history: History) -> list[Json]:
    return [row.to_json() for row in _conversions.conversions(history)]


def requests(history: History) -> list[Json]:
    return [row.to_json() for row in _requests.requests(history)]


def messed_up(moment: Moment) -> list[Json]:
    return [row.to_json() for row in _messed_up.messed_up(moment)]


def state(moment: Moment, start: int = 0, end: int = EVERYTHING.end, unit: str = "gfn") -> Iterator[StateRow]:
    return _state.state(moment, PageRange(Unit(unit), start, end))
