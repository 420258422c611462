"""Forty-nine promises of the kernel's protocols, looked at in one pass over a record.

``evaluate`` says of each invariant whether it held, and how often it was really looked at; where it was broken; or what the
record lacks for a look. What is unknown or torn breaks nothing: a judge looks only at what is certain.
"""

from gmemstate.audit.invariants import answers, guests, hostpages, kinds, steps
from gmemstate.audit.invariants.catalogue import CATALOGUE, Invariant
from gmemstate.audit.invariants.inspection import Breach, Inspection, Judged, Outcome, evaluate

JUDGES = (answers, steps, kinds, hostpages, guests)
"""The modules of judges, by subject; importing them registers their judges."""

__all__ = [
    "CATALOGUE",
    "JUDGES",
    "Breach",
    "Inspection",
    "Invariant",
    "Judged",
    "Outcome",
    "evaluate",
]
