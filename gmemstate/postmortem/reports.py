"""Stories of what kernels and VMMs say of themselves: a VM that died, a host that touched a guest's page, a VMM that gave up."""

from gmemstate.audit.history import History
from gmemstate.model.events import DETAIL, KIND, KINDS, LINE, RESULT, SOURCE, VALUE, EventRow, T, details
from gmemstate.model.units import seconds
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.story import Evidence, Story

EIO, EFAULT, EINVAL = 5, 14, 22
RUN_FAILED = {
    EIO: (
        "kernel or module",
        "the VM is bugged or dead: every ioctl of it returns EIO. The kernel log says which, and why",
        "the host's kernel log: dmesg | grep -e SEAMCALL -e SEV -e 'kvm:'",
    ),
    EFAULT: (
        "unknown",
        "a page could not be mapped: KVM_EXIT_MEMORY_FAULT, or no memslot. This line has no address",
        "the address: trace kvm:kvm_page_fault, or QEMU -trace kvm_memory_fault",
    ),
    EINVAL: (
        "unknown",
        "on SNP: a page could not be made private (RMPUPDATE failed); the register dump is of no use",
        "the host's kernel log: dmesg | grep -e RMPUPDATE -e 'Failed to update RMP entry'",
    ),
}
"""What KVM_RUN's errno tells: who is to blame, what it means, and where the rest is."""


def _lines(history: History, rows: list[EventRow]) -> list[Evidence]:
    labels = history.labels()
    found = []
    for row in rows:
        source = history.sources.get(row[SOURCE] or 0)
        if source is not None and row[LINE] is not None:
            last = details(row[DETAIL]).get("last") or row[LINE]
            found.append(Evidence(source.name, labels[source.id], row[LINE], last))
    return found


def _rows(rows: list[EventRow]) -> list[tuple[str, ...]]:
    return words.some([_row(row) for row in rows])


def _row(row: EventRow) -> tuple[str, ...]:
    facts = details(row[DETAIL])
    when = seconds(row[T]) if row[T] is not None else str(facts.get("at") or "")
    name = KINDS[row[KIND]].name.replace("_", " ")
    text = str(facts.get("text") or facts.get("what") or name)
    result = words.errno_name(row[RESULT]) if row[RESULT] and name == "vmm said" else ""
    return "", when, text, result, ""


def vm_dead(history: History, seen: Scene, incident: Incident) -> Story:
    """KVM or the guest itself has ended a VM: nothing is wrong with the host."""
    facts = details(incident.reports[0][DETAIL])
    what = facts.get("what")
    blame = "guest" if what in ("access before accept", "guest requested termination") else "kernel or module"
    story = Story(
        blame,
        "VM dead",
        words.guest(history, incident.vm) if incident.vm else "which VM: not in the log",
        {
            "access before accept": f"The guest touched gfn {facts.get('gfn')} as private before it had accepted it, with #VE off: KVM ended the VM. No "
            "conversion failed, and nothing is wrong with the host.",
            "guest requested termination": f"The guest ended itself: set {facts.get('set')}, code {facts.get('code')}"
            + (f" ({facts['why']})" if facts.get("why") else "")
            + ". No conversion failed, and nothing is wrong with the host.",
        }.get(str(what), f"The VM is dead: {what or 'the record does not say why'}."),
    )
    story.timeline = _rows(incident.reports)
    story.evidence = _lines(history, incident.reports)
    story.add("Then", "every later ioctl of the VM returns EIO; its vCPUs cannot run any more")
    if what == "access before accept":
        story.add(
            "Maybe",
            "a conversion to shared failed after the page was unmapped, and the guest went on using it as private; or the launch measured too little",
        )
    story.add("Do", "restart the guest; look into its own log for what it did last")
    return story


def host_fault(history: History, seen: Scene, incident: Incident) -> Story:
    """Host, kernel or guest touched a page that the hardware gives to somebody else."""
    facts = details(incident.reports[0][DETAIL])
    pfn = incident.reports[0][VALUE]
    where = (
        f"pfn {pfn:#x}" if pfn is not None and "pfn" in KINDS[incident.reports[0][KIND]].columns else "a page that is not named"
    )
    of_host = str(facts.get("what", "")).endswith("of the host") or "what" not in facts
    story = Story(
        "kernel or module" if of_host else "unknown",
        "page of another touched",
        words.guest(history, incident.vm) if incident.vm else "which VM: not in the log",
        f"{'The host' if of_host else 'A guest'} touched {where}, which the hardware gives to somebody else; the access was refused. "
        "That is no conversion that failed, though one that was not undone can be behind it.",
    )
    story.timeline = _rows(incident.reports)
    story.evidence = _lines(history, incident.reports)
    story.add("Owner", str(facts["owner"]) if facts.get("owner") else None)
    story.add(
        "Way", f"{facts['function']}" + (f" ({facts['path']})" if facts.get("path") else "") if facts.get("function") else None
    )
    story.add(
        "Do",
        "reboot this host before it is trusted again"
        if of_host
        else "look at the conversions of this page: gmemstate why gfn:...",
    )
    if facts.get("owner") is None:
        story.missing.append("who owns the page: the RMP entry that the kernel prints behind the fault")
        story.complete = False
    return story


def vmm_said(history: History, seen: Scene, incident: Incident) -> Story:
    """A VMM has printed that something failed: one half of what happened."""
    row = incident.reports[0]
    facts = details(row[DETAIL])
    code, result = facts.get("code"), row[RESULT]
    blame, meaning, missing = "unknown", None, None
    if code == "kvm run failed":
        blame, meaning, missing = RUN_FAILED.get(result or 0, ("unknown", None, "the host's kernel log of the same minute"))
    elif code in (
        "convert refused",
        "unknown fault flag",
        "discarding of RAM",
        "DMA still mapped",
        "DMA mappings run out",
        "listener refused",
    ):
        blame = "VMM"
    story = Story(
        blame,
        "VMM reports a failure",
        words.guest(history, incident.vm) if incident.vm else "which VM: not in the log",
        f'{words.count(len(incident.reports), "line")} of a VMM: "{code}"'
        + (f" with {words.errno_name(result)}" if result else "")
        + ".",
    )
    story.timeline = _rows(incident.reports)
    story.evidence = _lines(history, incident.reports)
    if facts.get("gfn") is not None:
        pages = f"+{facts['pages']}" if facts.get("pages") else ""
        story.add("Where", f"gfn {facts['gfn']}{pages}" + (f" to {facts['to']}" if facts.get("to") else ""))
    story.add("Means", meaning or MEANINGS.get(str(code)))
    story.missing.append(missing or "what the kernel answered: strace -f -T -e ioctl, or the probes of tools/capture")
    story.complete = False
    return story


MEANINGS = {
    "convert refused": "nothing was converted: the VMM has no private memory behind that address (MMIO, ROM, a plain RAM block), and asked the kernel nothing",
    "DMA still mapped": "the conversion to private went on although the IOMMU still maps the pages: the device reaches memory that the guest takes for private, "
    "or that is nobody's",
    "listener refused": "the attribute is changed already, the DMA mappings are not: partly converted",
    "DMA mappings run out": "every converted page is a DMA mapping of its own, and their number is limited; iommufd has no such limit",
    "discarding of RAM": "what pins all memory (VFIO, TYPE1) and what gives memory back exclude each other in this QEMU",
    "registers": "a follow-up: the VM could not be looked at any more",
    "unknown fault flag": "the kernel tells of a kind of fault that this VMM does not know",
    "inaccessible gpa": "the guest touched a page as the other kind; the state is unchanged, the guest was told so",
    "visibility change failed": "the hypervisor refused to change pages; how many were done stands in the line",
    "unknown exit": "this VMM does not know the exit: often a guest that ended itself",
    "call failed": "the call itself failed; EACCES is a security module, not KVM",
}
"""What the words of a VMM mean."""


def reported(history: History, seen: Scene, incident: Incident) -> Story:
    """The kernel has reported something about private memory that is no failed conversion by itself."""
    row = incident.reports[0]
    facts = details(row[DETAIL])
    story = Story(
        "unknown",
        "kernel reports a failure",
        words.guest(history, incident.vm) if incident.vm else "which VM: not in the log",
        f"The kernel reported {words.count(len(incident.reports), 'time')}: {facts.get('what') or KINDS[row[KIND]].name.replace('_', ' ')}"
        + (f" in {facts['function']}" if facts.get("function") else "")
        + (f", about a {facts['about']}" if facts.get("about") else "")
        + ". Whether a conversion failed by it, this record does not show.",
    )
    story.timeline = _rows(incident.reports)
    story.evidence = _lines(history, incident.reports)
    story.add("Way", str(facts["path"]) if facts.get("path") else None)
    story.missing.append("what was asked meanwhile: the VMM's log, or a trace with the probes of tools/capture")
    story.complete = False
    return story


def unrelated(history: History, seen: Scene, incident: Incident) -> Story:
    """Warnings that stand beside a failure and have nothing to do with a guest's memory, as far as their stacks tell."""
    story = Story(
        "nobody",
        "said beside",
        "the host",
        f"{words.count(len(incident.reports), 'warning')} of the kernel {'has' if len(incident.reports) == 1 else 'have'} nothing to do with converting memory, "
        "by function and stack: do not look for the cause there.",
    )
    story.timeline = _rows(incident.reports)
    story.evidence = _lines(history, incident.reports)
    return story
