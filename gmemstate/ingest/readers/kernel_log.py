"""The kernel log of the host (and of guests): TDX, SEV-SNP, memory failures, tasks in trouble, warnings and oopses.

Formats: Linux 5.10 to 7.2 and the trees of distributions before TDX and SNP were merged. TDX: arch/x86/kvm/vmx/tdx.c,
arch/x86/virt/vmx/tdx; SNP: arch/x86/virt/svm/sev.c, arch/x86/kvm/svm/sev.c, drivers/crypto/ccp; memory: mm/memory-failure.c,
mm/oom_kill.c; virt/kvm/guest_memfd.c; IOMMUs: drivers/iommu. Numbers: ``PFN 56700`` and ``GFN`` are hexadecimal, with or
without 0x.
"""

import re

from gmemstate.ingest.fact import Context, Marker
from gmemstate.ingest.readers import report_lines
from gmemstate.ingest.readers.envelopes import LogEnvelope
from gmemstate.messages.catalogue import KERNEL, ParsedMessage, facts, first
from gmemstate.model.linux import LAST_PAGE, PAGE_SHIFT
from gmemstate.model.reports import SourceFormat

_SIGBUS = re.compile(
    r"Memory failure: (?P<pfn>0x[0-9a-f]{1,16}): (?:Sending SIGBUS to|forcibly killing) (?P<comm>.{1,32}):(?P<pid>\d{1,9})\b"
).search
_SUPPRESSED = re.compile(r"^(?P<what>[\w.]{1,100}): (?P<count>\d{1,18}) (?:callbacks|messages|output lines) suppressed").search
_DROPPED = re.compile(
    r"^(?:systemd-journald\[\d{1,10}\]: )?(?:\*\* (?P<count>\d{1,18}) printk messages dropped \*\*"
    r"|Missed (?P<missed>\d{1,18}) kernel messages"
    r"|/dev/kmsg buffer overrun, some messages lost)"
).search
"""Lines that a console or a journal could not take in time: console_prepend_dropped(); journald of systemd says it so."""
_ELIDED = re.compile(
    r"(?:\.{3,}|…|\[\s*(?:\.{2,}|…|snip\w*|cut|truncated)\s*\.*\]|<\s*(?:\.{2,}|snip\w*|cut|truncated)\s*>|-+\s*8<\s*-+)"
).fullmatch
_JOURNAL = re.compile(r"-- (?:(?P<boot>Boot [0-9a-f]{8,32}|Reboot)|Logs begin at .*|Journal begins at .*|No entries) --$").match
_CUT_HERE = re.compile(r"-{3,}\[ cut here \]").match
_KEYS_ABOVE = 1 << 45
"""Physical addresses from here on are taken to carry a key id of MKTME in their high bits."""
_TEXT_LINES = 3


class KernelLog:
    """Reads messages of a kernel; remembers where key ids stand in addresses, and that a warning's text is due."""

    format = SourceFormat.KERNEL_LOG

    def __init__(self) -> None:
        self._key_bits = 0
        self._text_due = 0
        self._open = report_lines.OpenReport()

    def claims(self, text: str) -> bool:
        """Whether a line that no reader knows stands inside of a report."""
        return self._open.claims(text)

    def parse(self, envelope: LogEnvelope) -> ParsedMessage | list[ParsedMessage] | Context | None:
        """What a message says; None for what is no message of a kernel, or for one that nothing is known of."""
        text = envelope.text
        found = first(facts(*KERNEL), text)
        if found is not None:
            said = found[0].parsed(found[1])
            return None if said is None else self._checked(said)
        if _CUT_HERE(text):
            self._text_due = _TEXT_LINES
            self._open.note(None, text, begins=True)
            return Context("kernel dump", proof=True)
        if (journal := _JOURNAL(text)) is not None:
            return Context(self.format, proof=True) if journal["boot"] is None else ParsedMessage("booted", {}, text)
        header = report_lines.header(text)
        if header is not None:
            self._text_due = 0
            self._open.note(header, text, begins=True)
            return header
        part = report_lines.part(text)
        self._open.note(part, text, begins=isinstance(part, ParsedMessage))
        if part is None and self._text_due and text and not _ELIDED(text) and not self._open.OTHERS(text):
            self._text_due -= 1
            return ParsedMessage("warning_text", {}, text)
        return part

    def _checked(self, said: ParsedMessage) -> ParsedMessage | list[ParsedMessage] | None:
        """None where a number cannot be what it is said to be: the line is damaged."""
        args = said.args
        if args.get("pfn", 0) >= args.get("pfn_end", LAST_PAGE):
            return None
        if args.get("first_byte", 0) > args.get("last_byte", LAST_PAGE << PAGE_SHIFT):
            return None
        if said.name == "td_exit":
            self._key_bits |= args.get("hkid_pa", 0)
        if said.name == "machine_check" and "address" in args:
            address = args["address"] & ~self._key_bits
            return said if address >= _KEYS_ABOVE else said._replace(args={**args, "pfn": address >> PAGE_SHIFT})
        if said.name == "bad_memory" and (killed := _SIGBUS(said.text)):
            signal = ParsedMessage(
                "killed", {"pid": int(killed["pid"]), "pfn": args["pfn"]}, said.text, {"comm": killed["comm"]}
            )
            return [said, signal]
        return said


def gap(number: int, text: str) -> Marker | None:
    """A line that says that others are missing: rate-limited by the kernel, or cut out by a person."""
    if _ELIDED(text):
        return Marker(number, "elided")
    suppressed = _SUPPRESSED(text)
    if suppressed is not None:
        return Marker(number, "suppressed", lost=int(suppressed["count"]), text=suppressed["what"])
    dropped = _DROPPED(text)
    if dropped is None:
        return None
    count = dropped["count"] or dropped["missed"]
    return Marker(number, "suppressed", lost=None if count is None else int(count))
