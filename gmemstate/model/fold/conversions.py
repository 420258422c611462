"""Conversions: each step of an ioctl, and what its pages are by then."""

from gmemstate.model import events as e
from gmemstate.model.events import ACTOR, CONVERSION, DETAIL, KIND, LINE, NPAGES, OWNER, RESULT, SOURCE, START, VALUE, T
from gmemstate.model.fold import lock_order, requests
from gmemstate.model.linux import EAGAIN, EFAULT, EINVAL, EIO, ENOMEM, ENOTTY, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SETTLED, SHARED, UNKNOWN, in_flight
from gmemstate.model.memory import Memory
from gmemstate.model.objects import MAPPED, UNMAPPED, Conversion, Trigger
from gmemstate.model.units import END, unsigned

MAX_ORDER = 63
"""No folio is larger: what an event says beyond it is no order."""
RETURNED = {
    0: "returned_ok",
    EAGAIN: "returned_eagain",
    ENOMEM: "returned_enomem",
    EINVAL: "returned_refused",
    EFAULT: "returned_refused",
    EIO: "returned_refused",
    ENOTTY: "returned_refused",
}
KIND_OF: dict[int | None, str] = {0: SHARED, PRIVATE_ATTRIBUTE: PRIVATE}
THROUGH = (e.Through.VM_IOCTL, *e.Through)
UNDER_LOCK = frozenset(
    kind.code
    for kind in (
        e.AttrsCompared,
        e.WorkItem,
        e.Reserved,
        e.ZapStarted,
        e.UserAnswered,
        e.UsersChecked,
        e.AttrsStored,
        e.FolioSplit,
        e.FolioMerged,
    )
)
"""What only who holds the lock of the attribute owner can do."""
# Triggers of the range machine by target. Tables, since millions of events look into them.
ZAP_TO = {None: f"zap_to_{UNKNOWN}", SHARED: f"zap_to_{SHARED}", PRIVATE: f"zap_to_{PRIVATE}"}
STORE = {kind: f"store_{kind}" for kind in (SHARED, PRIVATE)}
SEEN = {kind: f"seen_{kind}" for kind in (SHARED, PRIVATE)}
RETURNED_OK = {kind: f"returned_ok_{kind}" for kind in (SHARED, PRIVATE)}
OUTCOME_LOST = {None: f"outcome_lost_{UNKNOWN}", SHARED: f"outcome_lost_{SHARED}", PRIVATE: f"outcome_lost_{PRIVATE}"}


def _open(memory: Memory, seq: int, row: e.EventRow, through: e.Through) -> Conversion:
    """The conversion that the event belongs to; the first event of an unknown one opens it."""
    conversion = memory.conversions.get(row[CONVERSION] or seq)
    if conversion is None:
        source, thread = row[SOURCE], row[ACTOR]
        conversion = Conversion(row[CONVERSION] or seq, source, through, thread, row[T], row[LINE])
        memory.conversions[conversion.id] = conversion
        if source in memory.sources:
            memory.sources[source].converts = True
        if thread is not None:
            key = (source, thread)
            if key in memory.by_thread:
                _supersede(memory, seq, memory.conversions[memory.by_thread[key]])
            memory.by_thread[key] = conversion.id
    _learn(memory, conversion, seq, row)
    start, attributes = row[START], row[VALUE]
    if conversion.start is None and start is not None:
        conversion.start, conversion.npages = start, row[NPAGES]
        conversion.end = END if row[NPAGES] is None else start + row[NPAGES]
    if conversion.attributes is None and attributes is not None:
        conversion.attributes = unsigned(attributes)
        conversion.target = KIND_OF.get(attributes)
    if conversion.trigger is Trigger.UNKNOWN and conversion.source is not None:
        requests.find_trigger(memory, conversion, memory.sources.get(conversion.source))
    return conversion


def _supersede(memory: Memory, seq: int, old: Conversion) -> None:
    """A thread that asks again has left its last conversion, whose result nobody saw (R18)."""
    if not old.gapped:  # else its pages are torn already, and may have been settled by others since
        _apply(memory, old, seq, certain=old.stored)  # neither mainline nor in-place can fail after the store
    old.superseded = True
    if source := memory.sources.get(old.source or 0):
        source.unfinished += 1
    memory.end(old, seq)


def _apply(memory: Memory, conversion: Conversion, seq: int, *, certain: bool) -> None:
    """The pages of a conversion that is over have the new value, or may have it; any page may, if it is not known which."""
    owner, target, asked = conversion.owner, conversion.target, lock_order.asked(conversion)
    if owner is None:
        for candidate in memory.may_own(conversion):  # they are none where its pages are not known
            memory.step(candidate, OUTCOME_LOST[target], conversion.start or 0, conversion.end or END, seq)
        return
    changed = conversion.in_vm or conversion.locked or not _silent(memory, conversion, e.Capability.ZAP, e.Capability.STORED)
    sure = asked or conversion.covered if certain and target is not None else None
    for start, end in lock_order.release(memory, conversion, seq, changed=changed):
        if asked is None or target is None or not certain:
            memory.step(owner, OUTCOME_LOST[target], start, end, seq)
        if target is not None and sure is not None and (pages := lock_order.overlap((start, end), sure)):
            memory.step(owner, RETURNED_OK[target], *pages, seq)
        for doubtful in conversion.doubtful:
            if pages := lock_order.overlap((start, end), doubtful):
                memory.step(owner, "gap", *pages, seq)


def _learn(memory: Memory, conversion: Conversion, seq: int, row: e.EventRow) -> None:
    """What any event of a conversion may say: its line, its attribute owner."""
    conversion.last = seq
    if row[LINE] is not None:
        conversion.last_line = row[LINE]
    if conversion.owner is None and (owner := row[OWNER]) is not None and (owner in memory.gmems) != conversion.in_vm:
        conversion.owner = owner


def _seen_from_outside(memory: Memory, seq: int, row: e.EventRow) -> bool:
    """Whether the entry of a call is shown by a second source, to which its first one has nothing to add.

    A call that was known from outside only begins again with what is seen from inside.
    """
    source, id = memory.sources.get(row[SOURCE] or 0), row[CONVERSION]
    if source is None or not source.shared or id is None or id == seq:
        return False
    conversion = memory.conversions.get(id)
    if conversion is None:
        memory.corroborations.append((id, row))
        return True
    if conversion.source == source.id:
        return False
    first = memory.sources.get(conversion.source or 0)
    if first is None or first.reference != source.id:
        return True
    key = (first.id, conversion.thread or 0)
    if memory.by_thread.get(key) == id:
        del memory.by_thread[key]
    if row[ACTOR] is not None:
        if (old := memory.by_thread.get((source.id, row[ACTOR]))) is not None:
            _supersede(memory, seq, memory.conversions[old])
        memory.by_thread[(source.id, row[ACTOR])] = id
    memory.conversions[id] = Conversion(id, source.id, conversion.through, row[ACTOR], row[T], row[LINE])
    return False


def convert_asked(memory: Memory, seq: int, row: e.EventRow) -> None:
    """C1: a conversion ioctl is entered, its arguments are not read yet (kvm_vm_ioctl, kvm_gmem_ioctl)."""
    if not _seen_from_outside(memory, seq, row):
        _asked(memory, seq, row).entered = True


def convert_met(memory: Memory, seq: int, row: e.EventRow) -> None:
    """C2: a conversion that was under way when tracing began."""
    if not _seen_from_outside(memory, seq, row):
        _asked(memory, seq, row)


def _asked(memory: Memory, seq: int, row: e.EventRow) -> Conversion:
    conversion = _open(memory, seq, row, THROUGH[row[RESULT] or 1])
    if row[DETAIL] is not None:
        conversion.detail = row[DETAIL]
    memory.move(conversion, "asked", seq)
    return conversion


def convert_attempted(memory: Memory, seq: int, row: e.EventRow) -> None:
    """C3: the arguments were accepted (tracepoint kvm_vm_set_mem_attributes)."""
    if _seen_from_outside(memory, seq, row):
        return
    conversion = _open(memory, seq, row, e.Through.VM_IOCTL)
    memory.move(conversion, "attempted", seq)


def _known(memory: Memory, seq: int, row: e.EventRow) -> Conversion | None:
    conversion = memory.conversions.get(row[CONVERSION] or 0)
    if conversion is None:
        source = memory.sources.get(row[SOURCE] or 0)
        if source is not None and source.shared:
            memory.corroborations.append((row[CONVERSION] or 0, row))
            return None
        memory.find(
            "UNKNOWN-CONVERSION", seq, f"an event of conversion {row[CONVERSION]}, which is not open", row[OWNER], row[START]
        )
        return None
    conversion.last = seq
    if row[SOURCE] != conversion.source:
        return conversion
    _learn(memory, conversion, seq, row)
    if not conversion.locked and row[KIND] in UNDER_LOCK:
        lock_order.acquire(memory, conversion, seq)
    return conversion


def convert_returned(memory: Memory, seq: int, row: e.EventRow) -> None:
    """C17 to C20: the ioctl returns; what was in flight is settled by its errno, as far as its steps were seen."""
    conversion = _known(memory, seq, row)
    if conversion is None:
        return
    result = row[RESULT] or 0
    conversion.result, conversion.returned = result, memory.time_of(row, conversion.source)
    if row[SOURCE] != conversion.source:
        conversion.result_from = row[SOURCE], row[LINE]
    if row[VALUE] is not None:
        conversion.error_offset = unsigned(row[VALUE])
    if row[START] is not None:
        conversion.read_twice = (row[START], row[NPAGES]) == (conversion.start, conversion.npages)
    if result != ENOTTY:
        _activate(memory, conversion, seq)
    if result == 0 and conversion.items is not None:
        _return_items(memory, conversion, seq)
        return
    memory.move(conversion, _return_trigger(memory, conversion, result), seq)
    if result == 0:
        _return_success(memory, conversion, seq)
    elif conversion.owner is not None and conversion.covered is not None:
        for pages in lock_order.without(conversion.covered, conversion.taken):
            memory.step(conversion.owner, "returned_err", *pages, seq)
    memory.end(conversion, seq)


def _return_trigger(memory: Memory, conversion: Conversion, result: int) -> str:
    """The trigger of a result, by its errno and by what the conversion has been seen to do."""
    if result == 0 and not conversion.covered and _nothing_was_done(memory, conversion):
        return "returned_noop"
    if result == EFAULT and not conversion.in_vm and not _silent(memory, conversion, e.Capability.HOST_UNMAP):
        return "returned_error"  # it may be a refusal that could not be written back
    return RETURNED.get(result, "returned_error")


def _return_success(memory: Memory, conversion: Conversion, seq: int) -> None:
    """The pages of a conversion that returned 0 have the new value, unless others may have changed them since, unseen."""
    source, vm = memory.sources.get(conversion.source or 0), memory.vms.get(conversion.owner or 0)
    if source is not None and source.reference is not None:
        source.alone += 1
    if conversion.result_from is None or _is_followed(memory, conversion):
        _apply(memory, conversion, seq, certain=True)
    else:
        _lose(memory, conversion, seq)
    if vm is not None and conversion.in_vm and conversion.target == PRIVATE and vm.dialect is e.Dialect.UNKNOWN:
        vm.dialect = e.Dialect.MAINLINE  # an in-place kernel refuses it


def _is_followed(memory: Memory, conversion: Conversion) -> bool:
    """Whether its own source has shown all that happened up to now; else others may have changed its pages since, unseen."""
    source = memory.sources.get(conversion.source or 0)
    return not conversion.gapped and source is not None and not source.read


def _lose(memory: Memory, conversion: Conversion, seq: int) -> None:
    """Nobody can say what became of the pages that a conversion was at work on."""
    if conversion.owner is not None and conversion.covered is not None:
        for run in memory.runs(conversion.owner, *conversion.covered):
            if run.state not in SETTLED:
                memory.step(conversion.owner, "gap", run.start, run.end, seq)


def _return_items(memory: Memory, conversion: Conversion, seq: int) -> None:
    """C19: success counts for the items of work only; less than was needed may have been changed (INV-40)."""
    owner, start, end, target = conversion.owner, conversion.start, conversion.end, conversion.target
    if owner is None or start is None or end is None or target is None:
        memory.move(conversion, "returned_ok", seq)
    else:
        for first, last in conversion.items or ():
            memory.step(owner, RETURNED_OK[target], first, last, seq)
        whole = all(run.state == target for run in memory.runs(owner, start, end))
        trigger = ("returned_ok" if conversion.items else "returned_noop") if whole else "returned_short"
        memory.move(conversion, trigger, seq)
    memory.end(conversion, seq)


def _nothing_was_done(memory: Memory, conversion: Conversion) -> bool:
    """Whether a success without a visible step is certain to have been a no-op (INV-19)."""
    if conversion.state not in ("asked", "waiting", "new") or conversion.answers:
        return False
    if conversion.result_from is not None and not _is_followed(memory, conversion):
        return False
    if not conversion.entered and conversion.state != "waiting":
        return False  # what is known of the pages may be its own doing
    if conversion.owner is None or conversion.start is None or conversion.end is None:
        return False
    states = {run.state for run in memory.runs(conversion.owner, conversion.start, conversion.end)}
    if states == {conversion.target}:
        return True
    if not states <= {conversion.target, UNKNOWN}:
        return False  # it has changed what was remembered, or somebody else had, and no line shows it
    return conversion.through is e.Through.GMEM_IOCTL and _silent(memory, conversion, e.Capability.ZAP, e.Capability.STORED)


def _silent(memory: Memory, conversion: Conversion, *steps: e.Capability) -> bool:
    """Whether one of the steps would have been seen, had there been one (absence is evidence only then)."""
    return conversion.entered and not conversion.gapped and not memory.shows(conversion).isdisjoint(steps)


def attrs_compared(memory: Memory, seq: int, row: e.EventRow) -> None:
    """C4, C5; and R2: a range that has the attributes shows its value, and so does a single page that has them not."""
    kind = KIND_OF.get(row[VALUE])
    owner, start = row[OWNER], row[START]
    if row[CONVERSION] is not None and (conversion := _known(memory, seq, row)):
        memory.move(conversion, "compared_equal" if row[RESULT] else "compared_different", seq)
    if owner is None or start is None or kind is None or owner not in memory.vms:
        return
    if not row[RESULT]:
        if row[NPAGES] != 1:
            return
        kind = PRIVATE if kind == SHARED else SHARED
    memory.step(owner, SEEN[kind], start, start + (row[NPAGES] or 1), seq)


def work_item(memory: Memory, seq: int, row: e.EventRow) -> None:
    """RFC v2, compute_work(): a run of pages that differ from the target, and will be converted."""
    conversion, start = _known(memory, seq, row), row[START]
    if conversion is not None and start is not None:
        conversion.items = (*(conversion.items or ()), (start, start + (row[NPAGES] or 1)))
        memory.move(conversion, "work_item", seq)


def reserved(memory: Memory, seq: int, row: e.EventRow) -> None:
    """C6: memory for the tree is reserved (xa_reserve, mas_preallocate), or is not: nothing was changed then."""
    if conversion := _known(memory, seq, row):
        memory.move(conversion, "reserved", seq)
        if row[RESULT] and conversion.through is e.Through.GMEM_CONVERT:
            conversion.items = conversion.items or ()


def zap_started(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R3: mappings of the range go from here on (kvm_mmu_invalidate_begin, kvm_gmem_invalidate_start)."""
    conversion = _known(memory, seq, row)
    if conversion is None:
        return
    if not conversion.in_vm:
        memory.activate(conversion.owner, seq)
    memory.move(conversion, "zap", seq)
    if conversion.attributes is None and row[VALUE] is not None:
        conversion.attributes = unsigned(row[VALUE])
        conversion.target = KIND_OF.get(row[VALUE])
    begun, owner, start = conversion.covered, conversion.owner, row[START]
    if begun is None or conversion.in_vm or owner is None or start is None or row[NPAGES] is None:
        _step_in_flight(memory, conversion, ZAP_TO[conversion.target], seq, row)
        return
    # Each file of an inode is zapped in turn: what has begun for this conversion does not begin again.
    mine = {in_flight("zapping", before, conversion.target or UNKNOWN) for before in SETTLED}
    for run in memory.runs(owner, start, start + row[NPAGES]):
        if run.state not in mine or not begun[0] <= run.start < begun[1]:
            memory.step(owner, ZAP_TO[conversion.target], run.start, run.end, seq)
    _touch(conversion, start, start + row[NPAGES])


def _activate(memory: Memory, conversion: Conversion, seq: int) -> None:
    if not conversion.in_vm:
        memory.activate(conversion.owner, seq)


def _step_in_flight(memory: Memory, conversion: Conversion, trigger: str, seq: int, row: e.EventRow) -> None:
    owner, start = conversion.owner if conversion.owner is not None else row[OWNER], row[START]
    if owner is None or start is None:
        return
    end = END if row[NPAGES] is None else start + row[NPAGES]
    _touch(conversion, start, end)
    memory.step(owner, trigger, start, end, seq)


def _touch(conversion: Conversion, start: int, end: int) -> None:
    if conversion.covered is None:
        conversion.covered = start, end
    else:
        conversion.covered = min(conversion.covered[0], start), max(conversion.covered[1], end)


def invalidate_added(memory: Memory, seq: int, row: e.EventRow) -> None:
    """kvm_mmu_invalidate_range_add(): it says where the pages are; they change by the steps of the conversion."""
    if row[CONVERSION] is not None:
        _known(memory, seq, row)


def invalidate_ended(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R9: faults are let in again (kvm_mmu_invalidate_end)."""
    conversion = _known(memory, seq, row)
    if conversion is None:
        return
    memory.move(conversion, "ended", seq)
    if conversion.stored and conversion.owner is not None and conversion.start is not None:
        memory.step(conversion.owner, "ended", conversion.start, conversion.end or END, seq)


def user_answered(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R4: mappings go, the attribute stays. A refusal is the mail's C (C10)."""
    owner, start, user = row[OWNER], row[START], row[ACTOR]
    end = END if row[NPAGES] is None else (start or 0) + row[NPAGES]
    conversion = _known(memory, seq, row) if row[CONVERSION] is not None else None
    if owner is not None and start is not None:
        memory.keep(owner, "answered", start, end, seq)
    if row[RESULT]:
        if conversion is not None:
            memory.move(conversion, "refused", seq)
        return
    if owner is None or start is None or user is None:
        return
    if row[RESULT] == 0:
        memory.map_pages(owner, user, start, end, UNMAPPED)
        if conversion is not None:
            _activate(memory, conversion, seq)
            conversion.answers = (*conversion.answers, row)


def map_answered(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R4: a user that had unmapped pages maps them again, or not; the attribute stays (mail of 2025-06-04, dialect notify)."""
    owner, start, user = row[OWNER], row[START], row[ACTOR]
    conversion = _known(memory, seq, row) if row[CONVERSION] is not None else None
    if owner is None or start is None or user is None:
        return
    end = END if row[NPAGES] is None else start + row[NPAGES]
    memory.keep(owner, "answered", start, end, seq)
    if row[RESULT] == 0:
        memory.map_pages(owner, user, start, end, MAPPED)
        if conversion is not None:  # what it has mapped again is no longer left unmapped
            same = [
                (answer[ACTOR], answer[OWNER], answer[START], answer[NPAGES], answer[DETAIL]) for answer in conversion.answers
            ]
            mapped = (user, owner, start, row[NPAGES], row[DETAIL])
            conversion.answers = tuple(answer for answer, one in zip(conversion.answers, same, strict=True) if one != mapped)


def users_checked(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R6: the references of the folios were counted (kvm_gmem_has_safe_refcount, filemap_range_has_page)."""
    conversion = _known(memory, seq, row)
    if conversion is None:
        return
    _activate(memory, conversion, seq)
    if row[RESULT]:
        conversion.references, conversion.expected = row[VALUE], row[ACTOR]
        memory.move(conversion, "users_bad", seq)
        return
    memory.move(conversion, "users_checked", seq)
    _step_in_flight(memory, conversion, "users_checked", seq, row)


def attrs_stored(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R7. What is stored beyond the request are neighbours that had the value already."""
    kind = KIND_OF.get(row[VALUE])
    conversion = _known(memory, seq, row) if row[CONVERSION] is not None else None
    owner, start = row[OWNER], row[START]
    if row[RESULT]:
        if conversion is not None:
            memory.move(conversion, "store_failed", seq)
        return
    if conversion is not None:
        _activate(memory, conversion, seq)
        memory.move(conversion, "stored", seq)
        conversion.stored = True
    if owner is None or start is None or kind is None:
        return
    end = END if row[NPAGES] is None else start + row[NPAGES]
    if conversion is None or conversion.start is None or conversion.end is None:
        memory.step(owner, SEEN[kind], start, end, seq)
        return
    first, last = max(start, conversion.start), min(end, conversion.end)
    _touch(conversion, first, last)
    memory.step(owner, STORE[kind], first, last, seq)
    if (first, last) == (start, end):
        return
    memory.step(owner, SEEN[kind], start, min(end, conversion.start), seq)
    memory.step(owner, SEEN[kind], max(start, conversion.end), end, seq)


def restructured(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R8: folios are split or merged (kvm_gmem_split_folio_in_filemap); a page size is no state."""
    conversion = _known(memory, seq, row)
    if conversion is None:
        return
    owner, start = conversion.owner, row[START]
    if row[RESULT]:
        memory.move(conversion, "store_failed", seq)
    elif owner is not None and owner in memory.gmems and start is not None:
        end = start + (row[NPAGES] or 1)
        memory.keep(owner, "restructured", start, end, seq)
        order = (row[VALUE] or 0) & MAX_ORDER if row[KIND] == e.FolioMerged.code else 0
        memory.gmems[owner].orders.set(start, end, order)


def undone(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R12, R13: an item of a rollback. After a WARN only the kernel can say what the range has."""
    conversion = _known(memory, seq, row)
    if conversion is None:
        return
    trigger = "undo_warned" if row[RESULT] else "undone"
    memory.move(conversion, trigger, seq)
    _step_in_flight(memory, conversion, "undo_started", seq, row)
    _step_in_flight(memory, conversion, trigger, seq, row)
    if row[RESULT] and row[VALUE] in KIND_OF:
        _step_in_flight(memory, conversion, SEEN[KIND_OF[row[VALUE]]], seq, row)


def interrupted(memory: Memory, seq: int, row: e.EventRow) -> None:
    """C22: nobody will say what became of it; what it had not begun is as before."""
    if conversion := _known(memory, seq, row):
        memory.move(conversion, "cut", seq)
        conversion.gapped = True
        _lose(memory, conversion, seq)


def hva_unmapped(memory: Memory, seq: int, row: e.EventRow) -> None:
    """An invalidation of the VMM's own page tables (kvm_unmap_hva_range): no attribute changes."""
    if row[CONVERSION] is not None:
        _known(memory, seq, row)


def spinning(memory: Memory, seq: int, row: e.EventRow) -> None:
    """The conversion waits for references that do not go away; it has not returned (check-first)."""
    if row[CONVERSION] is not None and (conversion := _known(memory, seq, row)):
        conversion.stuck = True
        memory.move(conversion, "spinning", seq)


def task_signalled(memory: Memory, seq: int, row: e.EventRow) -> None:
    """C21: an ioctl is not interrupted by a signal; it runs to its end and its task dies then."""
    if row[CONVERSION] is not None and (conversion := _known(memory, seq, row)):
        if not conversion.dying:
            conversion.dying, conversion.struck = True, memory.time_of(row, conversion.source)
        memory.move(conversion, "signalled", seq)


def declared(memory: Memory, seq: int, row: e.EventRow) -> None:
    """An operator says what the pages of an interrupted conversion have (`Ledger.resolve`)."""
    if conversion := _known(memory, seq, row):
        memory.move(conversion, "declare", seq)
        owner, start, end, target = conversion.owner, conversion.start, conversion.end, conversion.target
        if owner is not None and start is not None and end is not None and target is not None:
            how = {0: RETURNED_OK[target], 1: f"declared_old_{target}"}
            memory.step(owner, how.get(row[RESULT] or 0, OUTCOME_LOST[target]), start, end, seq)
        memory.end(conversion, seq)


HANDLERS = {
    e.ConvertAsked.code: convert_asked,
    e.ConvertMet.code: convert_met,
    e.ConvertAttempted.code: convert_attempted,
    e.ConvertReturned.code: convert_returned,
    e.AttrsCompared.code: attrs_compared,
    e.WorkItem.code: work_item,
    e.Reserved.code: reserved,
    e.ZapStarted.code: zap_started,
    e.InvalidateAdded.code: invalidate_added,
    e.InvalidateEnded.code: invalidate_ended,
    e.UserAnswered.code: user_answered,
    e.MapAnswered.code: map_answered,
    e.UsersChecked.code: users_checked,
    e.AttrsStored.code: attrs_stored,
    e.FolioSplit.code: restructured,
    e.FolioMerged.code: restructured,
    e.Undone.code: undone,
    e.Interrupted.code: interrupted,
    e.HvaUnmapped.code: hva_unmapped,
    e.Spinning.code: spinning,
    e.TaskStuck.code: spinning,
    e.TaskSignalled.code: task_signalled,
    e.Declared.code: declared,
}
