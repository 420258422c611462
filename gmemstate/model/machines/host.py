"""The machines of a host: one for each part of its platform and one for its kernel, both as long as a boot."""

from gmemstate.model.machines.definition import STAY, Definition, Row

NOT_SEEN, FOUND, UP, FAILED, MISSING, UNCLEAR = "not_seen", "found", "up", "failed", "missing", "unclear"
WHOLE, SUSPECT, LOCKED, OVERWRITTEN, DEAD = "whole", "suspect", "locked", "overwritten", "dead"

PART = Definition(
    name="platform",
    states=(NOT_SEEN, FOUND, UP, FAILED, MISSING, UNCLEAR),
    rows=(
        Row("P1", "found", (NOT_SEEN, FOUND), FOUND, "it is there; that it works is not said"),
        Row("P1", "found", (UP, FAILED, MISSING, UNCLEAR), STAY, "known already"),
        Row("P2", "up", (NOT_SEEN, FOUND, UP), UP, "its driver says that it works"),
        Row("P3", "failed", (NOT_SEEN, FOUND, FAILED, MISSING), FAILED, "it does not work in this boot"),
        Row("P4", "missing", (NOT_SEEN, FOUND, MISSING), MISSING, "it is not there, or not enabled"),
        Row("P4", "missing", (FAILED,), STAY, "why does not matter any more"),
        Row("P5", "up", (FAILED, MISSING, UNCLEAR), UNCLEAR, "lines contradict each other: of which kernel is each?"),
        Row("P5", "failed", (UP, UNCLEAR), UNCLEAR, "it worked before: what of it works still is not said"),
        Row("P5", "missing", (UP, UNCLEAR), UNCLEAR, "it was there before"),
    ),
    final=(),
)
"""A module, a firmware, a table or a driver, as its lines move it; the next boot begins a new one."""

KERNEL = Definition(
    name="kernel",
    states=(WHOLE, SUSPECT, LOCKED, OVERWRITTEN, DEAD),
    rows=(
        Row(
            "K1", "harmless", (WHOLE, SUSPECT, LOCKED, OVERWRITTEN, DEAD), STAY, "a report of what can happen, or has no effect"
        ),
        Row("K2", "reported", (WHOLE, SUSPECT), SUSPECT, "a report whose effect is not known"),
        Row("K2", "reported", (LOCKED, OVERWRITTEN, DEAD), STAY, "worse is known already"),
        Row("K3", "task_died", (WHOLE, SUSPECT, LOCKED), LOCKED, "a task died inside the kernel, with what it had locked"),
        Row("K3", "task_died", (OVERWRITTEN, DEAD), STAY, "worse is known already"),
        Row("K4", "overwrote", (WHOLE, SUSPECT, LOCKED, OVERWRITTEN), OVERWRITTEN, "memory may have been overwritten"),
        Row("K4", "overwrote", (DEAD,), STAY, "worse is known already"),
        Row("K5", "stopped", (WHOLE, SUSPECT, LOCKED, OVERWRITTEN, DEAD), DEAD, "the kernel stopped"),
    ),
    final=(),
)
"""The running kernel, as its reports move it; the next boot begins a new one."""
