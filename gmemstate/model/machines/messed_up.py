"""The messed-up machine: one per host page that can no longer be trusted."""

from gmemstate.model.machines.definition import STAY, Definition, Row

MESSED_UP = Definition(
    name="messed-up",
    states=("trusted", "messed_up", "reused", "cleared"),
    rows=(
        Row("M1", "marked", ("trusted", "messed_up"), "messed_up", "a page can no longer be trusted"),
        Row("M1", "marked", ("reused",), STAY, "once more"),
        Row("M2", "seen_reused", ("messed_up", "reused"), "reused", "somebody else was given the page (INV-22)"),
        Row("M3", "joined", ("messed_up", "reused"), "cleared", "a line shows that it is a page that another entry names"),
        Row("M4", "rebooted", ("messed_up", "reused"), "cleared", "the host was booted again"),
    ),
    final=("cleared",),
)
