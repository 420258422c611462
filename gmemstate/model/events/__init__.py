"""The closed registry of events: what can be on record, and in which column it stands.

An event is a fact that somebody saw (or, in a simulation, did); what merely follows from facts is computed by the
fold and never recorded. Every kind is a frozen dataclass. It is stored as a row of thirteen columns whose meaning is
the same for all kinds but for ``value``, ``actor`` and, in a few kinds, ``result`` and ``conversion``, which the kind
names itself (see ``columns`` of each class).

Conventions: ``t`` is in ns of the source's own clock; page ranges are half-open runs ``start, npages`` (``npages`` None:
to the end) in gfns of a VM or page indices of a guest_memfd, whichever ``owner`` is; ``result`` is 0 for success or a
positive errno; a missing fact is None.

Sources, spaces, conversions and requests are identified by the seq of the event that opened them. Before that seq is
known an event may carry any negative number instead: the recorder replaces it by the seq of the first event that carries
it.
"""

# ruff: noqa: F403
from gmemstate.model.events.columns import *
from gmemstate.model.events.conversions import *
from gmemstate.model.events.devices import *
from gmemstate.model.events.guests import *
from gmemstate.model.events.pages import *
from gmemstate.model.events.registry import *
from gmemstate.model.events.requests import *
from gmemstate.model.events.sources import *
from gmemstate.model.events.words import *
