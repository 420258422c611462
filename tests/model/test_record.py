"""References get the seq of the event that first bears them, in one batch or over several."""

from hypothesis import given
from hypothesis import strategies as st

from gmemstate.model import events as e
from gmemstate.model.record import resolve

REFERENCES = (3, 4, 5, 10)  # source, space, conversion, actor
reference = st.none() | st.integers(-4, 5).filter(bool)
rows = st.lists(
    st.tuples(reference, reference, reference, reference).map(
        lambda r: (0, None, 88, r[0], r[1], r[2], -3, None, -2, -1, r[3], None, None)
    ),
    max_size=12,
)


@given(rows, st.integers(0, 12), st.integers(1, 1000))
def test_a_reference_is_the_seq_of_its_first_event(history: list[e.EventRow], cut: int, first: int) -> None:
    """Wherever a batch ends; all other columns, and references that are seqs already, stay as they are."""
    seq_of: dict[int, int] = {}
    for seq, row in enumerate(history, first):
        for n in REFERENCES:
            if row[n] is not None and row[n] < 0:
                seq_of.setdefault(row[n], seq)
    known: dict[int, int] = {}
    resolved: list[e.EventRow] = []
    for batch in (history[:cut], history[cut:]):
        numbered, new = resolve(batch, first + len(resolved), known)
        known.update(new)
        resolved += numbered
    assert resolved == [
        (seq, *(seq_of.get(column, column) if n in REFERENCES else column for n, column in enumerate(row) if n))
        for seq, row in enumerate(history, first)
    ]


def test_a_conversion_and_its_guest_may_be_named_before_their_seqs_are_known() -> None:
    events = [
        e.VmSeen(owner=-1),
        e.ConvertAsked(conversion=-2, through=e.Through.VM_IOCTL, owner=-1, thread=7, start=0, npages=1, attributes=8),
        e.GmemSeen(owner=-3, vm=-1),
    ]
    numbered, new = resolve([event.row() for event in events], 41, {})
    assert [e.event_of(row) for row in numbered] == [
        e.VmSeen(owner=41),
        e.ConvertAsked(conversion=42, through=e.Through.VM_IOCTL, owner=41, thread=7, start=0, npages=1, attributes=8),
        e.GmemSeen(owner=43, vm=41),
    ]
    assert new == {-1: 41, -2: 42, -3: 43}
