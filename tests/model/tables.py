"""The state machines as their specification has them, copied by hand: ``row: states --trigger--> next state``.

In the range machine ``b`` and ``t`` stand for any attribute, ``k`` for shared or private, ``settled`` for any attribute
that nobody is changing, ``flight`` for any state inside a conversion and ``any`` for all but gone. ``=`` is the same state.
"""

from collections.abc import Iterator
from itertools import product

RANGE = """
R1:   unknown                                       --born_k-->                k
R2:   unknown torn                                  --seen_k-->                k
R3:   b                                             --zap_to_t-->              zapping(b>t)
R4:   any                                           --answered-->              =
R5:   any                                           --private_unmap_failed-->  =
R6:   zapping(b>t)                                  --users_checked-->         checked(b>t)
R7:   b zapping(b>k) checked(b>k)                   --store_k-->               stored(b>k)
R8:   any                                           --restructured-->          =
R9:   stored(b>t)                                   --ended-->                 t
R9:   stored(b>k)                                   --returned_ok_k-->         k
R10:  zapping(b>t) checked(b>t) stored(b>t)         --gap-->                   torn
R11:  zapping(b>t) checked(b>t)                     --returned_err-->          b
R12:  stored(b>t)                                   --undo_started-->          undoing(b>t)
R13:  undoing(b>t)                                  --undone-->                =
R13:  undoing(b>t)                                  --ended-->                 b
R13': undoing(b>t)                                  --undo_warned-->           torn
R14:  torn                                          --returned_ok_k-->         k
R15:  settled                                       --returned_ok_k-->         k
R17:  settled                                       --returned_err-->          =
R18:  k                                             --outcome_lost_k-->        =
R18:  shared                                        --outcome_lost_private-->  unknown
R18:  private                                       --outcome_lost_shared-->   unknown
R18:  flight torn                                   --outcome_lost_t-->        torn
R19:  settled                                       --slot_changed-->          =
R20:  settled                                       --backing_changed-->       =
R21:  any                                           --vm_bugged-->             =
R22:  any                                           --destroyed-->             gone
R23:  zapping(b>t) checked(b>t) stored(b>t)         --declared_old_k-->        b
R23:  undoing(b>t)                                  --declared_old_k-->        b
R23:  k                                             --declared_old_k-->        unknown
R23:  shared unknown torn                           --declared_old_private-->  =
R23:  private unknown torn                          --declared_old_shared-->   =
"""

CONVERSION = """
C1:  new                           --asked-->               asked
C2:  new asked                     --attempted-->           waiting
C3:  asked                         --returned_refused-->    rejected
C4:  waiting                       --compared_equal-->      same
C4:  same                          --returned_ok-->         noop
C5:  waiting                       --compared_different-->  reserving
C6:  waiting asked                 --work_item-->           planned
C7:  reserving planned             --returned_enomem-->     failed_at_reserve
C8:  reserving planned             --zap-->                 zapping
C9:  reserving                     --returned_ok-->         committed
C10: zapping                       --refused-->             failing_at_unmap
C11: zapping                       --suspect-->             =
C12: zapping                       --users_checked-->       checked
C12: zapping                       --users_bad-->           failing_at_check
C13: zapping checked               --stored-->              storing
C14: storing                       --store_failed-->        undoing
C15: storing                       --ended-->               ending
C16: ending storing zapping        --returned_ok-->         committed
C17: failing_at_unmap              --returned_error-->      failed_at_unmap
C17: failing_at_check              --returned_eagain-->     failed_at_check
C17: failing_at_unmap              --ended-->               =
C18: undoing                       --undone-->              =
C18: undoing                       --returned_error-->      failed_at_store
C18: undoing                       --undo_warned-->         undoing_dirty
C18: undoing_dirty                 --returned_error-->      failed_dirty
C19: planned                       --returned_short-->      committed_short
C20: open                          --spinning-->            =
C21: open                          --signalled-->           =
C22: open                          --cut-->                 cut
C23: cut open                      --declare-->             declared
"""

MESSED_UP = """
M1: trusted            --marked-->       messed_up
M2: messed_up          --seen_reused-->  reused
M3: messed_up reused   --joined-->       cleared
M4: messed_up reused   --rebooted-->     cleared
"""

ATTRIBUTES = ("unknown", "shared", "private")
FLIGHT = tuple(
    f"{phase}({b}>{t})" for phase in ("zapping", "checked", "stored", "undoing") for b in ATTRIBUTES for t in ATTRIBUTES
)
OPEN = (
    *("asked", "waiting", "same", "reserving", "planned", "zapping", "checked", "storing", "ending"),
    *("failing_at_unmap", "failing_at_check", "undoing", "undoing_dirty"),
)
CLASSES = {"settled": ATTRIBUTES, "flight": FLIGHT, "any": (*ATTRIBUTES, *FLIGHT, "torn"), "open": OPEN}


def ways(table: str) -> Iterator[tuple[str, str, str, str]]:
    """All ``(row, state, trigger, next state)`` of a table, with nothing left to stand for something else."""
    for line in table.strip().splitlines():
        row, rest = line.split(":", 1)
        sources, _, behind = rest.partition(" --")
        trigger, _, dest = behind.partition("-->")
        for b, t, k in product(ATTRIBUTES, ATTRIBUTES, ATTRIBUTES[1:]):

            def filled(text: str, b: str = b, t: str = t, k: str = k) -> str:
                """The text with its letters replaced, where they stand alone or behind ``(``, ``>`` or ``_``."""
                for letter, word in (("b", b), ("t", t), ("k", k)):
                    text = word if text == letter else text
                    text = text.replace(f"({letter}>", f"({word}>").replace(f">{letter})", f">{word})")
                    text = text.removesuffix(f"_{letter}") + f"_{word}" if text.endswith(f"_{letter}") else text
                return text

            for source in sources.split():
                for state in CLASSES.get(source, (filled(source),)):
                    name = filled(dest.strip())
                    yield row.strip(), state, filled(trigger), state if name == "=" else name
