"""Forty-nine promises of the kernel's protocols, checked in one pass over a record.

``evaluate`` says of each invariant whether it held, and how often it was really evaluated; where it was broken; or what the
record lacks for an evaluation. What is unknown or torn breaks nothing: a check relies only on what is certain.
"""

from gmemstate.audit.invariants import answers, guests, host_pages, kinds, steps
from gmemstate.audit.invariants.catalogue import CATALOGUE, Invariant
from gmemstate.audit.invariants.checker import Breach, InvariantChecker, InvariantOutcome, InvariantResult, evaluate

CHECKS = (answers, steps, kinds, host_pages, guests)
"""The modules of checks, by subject; importing them registers their checks."""

__all__ = ["CATALOGUE", "CHECKS", "Breach", "Invariant", "InvariantChecker", "InvariantOutcome", "InvariantResult", "evaluate"]
