"""The kernel log of the host (and of guests): TDX, SEV-SNP, memory failures, tasks in trouble, warnings and oopses.

Formats: Linux 5.10 to 7.2 and the trees of distributions before TDX and SNP were merged. TDX: arch/x86/kvm/vmx/tdx.c,
arch/x86/virt/vmx/tdx; SNP: arch/x86/virt/svm/sev.c, arch/x86/kvm/svm/sev.c, drivers/crypto/ccp; memory: mm/memory-failure.c,
mm/oom_kill.c; virt/kvm/guest_memfd.c; IOMMUs: drivers/iommu. Numbers: ``PFN 56700`` and ``GFN`` are hexadecimal, with or without 0x.
"""

import re

from gmemstate.ingest.fact import Context, Marker
from gmemstate.ingest.readers import oops as splats
from gmemstate.ingest.readers.envelopes import LogEnvelope
from gmemstate.messages.form import ParsedMessage, first, form
from gmemstate.model.linux import LAST_PAGE
from gmemstate.model.reports import KernelReportCode, SourceFormat

_STATUS = "<status:h>"
_ENTRY = r"(?:, entry <entry:h>, level_state <level_state:h>|, rcx <rcx:h>(?:, rdx,? <rdx:h>)?(?:, r8 <r8:h>)?)?"

_TDX = (
    form("seamcall", rf"SEAMCALL \(?(?P<leaf_name>TDH_[A-Z0-9_]{{1,60}})\)? failed: {_STATUS}{_ENTRY}"),
    form("seamcall", rf"SEAMCALL \(<leaf:h>\) failed: {_STATUS}(?: RCX <rcx:h> RDX <rdx:h>(?: R0?8 <r8:h>)?)?"),
    form("seamcall", rf"SEAMCALL failed: CPU \d{{1,5}}: leaf <leaf:d>, error {_STATUS}"),
    form("seamcall", rf"SEAMCALL\[(?P<leaf_name>TDH_[A-Z0-9_]{{1,60}})\(\d{{1,5}}\)\] failed: .{{0,80}}?(?=0x){_STATUS}"),
    form(
        "td_exit",
        rf"(?:kvm \[<pid:d>\]: )?TD (?:exit|vp_enter_ret) {_STATUS}(?:, \d{{1,5}} hkid <hkid:h> hkid pa <hkid_pa:h>)?",
    ),
    form("unaccepted", r"Guest access before accepting <gpa:h>(?: on vCPU <vcpu:d>)?"),
    form(
        "kernel_said",
        r"(?P<text>(?:SEAMCALL\b.{0,60}|\bTDH_[A-Z0-9_]{1,60}\)? )\bfailed\b.{0,120})",
        what=KernelReportCode.SEAMCALL_OTHER,
    ),
    form("hkid_leaked", r"(?P<call>tdh_\w{1,60})\(\) failed\. HKID <hkid:d> is leaked"),
)
_SNP = (
    form("rmpupdate", r"RMPUPDATE failed for PFN <pfn:h>, pg_level: <level:d>, ret: <ret:d>"),
    form(
        "rmpupdate",
        r"(?:rmpupdate|RMPUPDATE) failed, ret: <ret:d>, pfn: <pfn:h>, npages: \d{1,9}, level: <level:d>(?P<retry>, retrying)?",
    ),
    form(
        "kernel_said",
        r"(?:rmpupdate|RMPUPDATE) for pfn <pfn:h> succeeded after <retries:d> retries",
        what=KernelReportCode.RMPUPDATE_SUCCEEDED,
    ),
    form("rmp_entry", r"PFN <pfn:h>, RMP entry: \[<lo:h> - <hi:h>\]"),
    form("rmp_entry", r"PFN: <pfn:h>, \[<lo:h> - <hi:h>\]"),
    form(
        "rmp_fields",
        r"RMPEntry paddr <paddr:h> \[assigned=<assigned:d> immutable=<immutable:d> pagesize=\d gpa=<gpa:h> asid=<asid:d> vmsa=<vmsa:d> "
        r"validated=<validated:d>\]",
    ),
    form("rmp_unassigned", r"PFN <pfn:h> unassigned, dumping non-zero entries in 2M PFN region: \[<first:h> - <behind:h>\]"),
    form("leaked", r"Leaking PFN range <pfn:h>-<pfn_end:h>"),
    form("leaked", r"psc failed,? pfn <pfn:h> pages <npages:d> \((?P<text>[a-z ]{1,40})\)"),
    form(
        "rmp_refused",
        r"Failed to (?P<what>update|look up) RMP entry: GFN <gfn:h> PFN <pfn:h>(?: level <level:d>)? error <error:d>",
    ),
    form("rmp_kept", r"Failed to (?P<what>update|PSMASH) RMP entry for PFN <pfn:h> error <error:d>"),
    form(
        "rmp_refused",
        r"gmem: Failed to prepare folio for index <index:h> GFN <gfn:h> PFN <pfn:h> error <error:d>",
        what="prepare",
    ),
    form("rmp_fault", r"Unexpected RMP fault,? (?P<what>[A-Za-z -]{1,60}?) ?GPA <gpa:h>(?: PFN <pfn:h>)?(?: error <error:d>)?"),
    form("rmp_fault", r"Unable to split RMP entry for GPA <gpa:h> PFN <pfn:h> ret <ret:d>", what="PSMASH"),
    form("reclaim_failed", r"Failed to reclaim PFN <pfn:h>, rc <rc:d> fw_err <fw_error:d>"),
    form("kernel_said", r"Failed to split direct map for PFN <pfn:h>, ret: <ret:d>", what=KernelReportCode.DIRECT_MAP),
    form("kernel_said", r"Failed to read RMP entry for PFN <pfn:h>, error <error:d>", what=KernelReportCode.RMP_ENTRY),
    form("kernel_said", r"(?P<text>(?:RMPUPDATE|rmpupdate) failed\b.{0,120})", what=KernelReportCode.RMPUPDATE_OTHER),
    form("terminated", r"SEV-ES guest requested termination: <set:h>:<code:h>"),
    form("kernel_said", r"vcpu<vcpu:d>, guest rIP: <rip:h> (?P<text>vmgexit: .{1,200})", what=KernelReportCode.VMGEXIT),
    form("kernel_said", r"Unsupported exit-code <exit_code:h> in #VC exception", what=KernelReportCode.VC_EXCEPTION),
    form(
        "kernel_said", r"Wrong/unhandled opcode bytes: \S{1,60}, exit_code: <exit_code:h>", what=KernelReportCode.VC_EXCEPTION
    ),
    form("kernel_said", r"(?P<text>swiotlb buffer is full.{0,120})", what=KernelReportCode.SWIOTLB),
    form("kernel_said", r"(?P<text>SEV(?:-SNP|-ES)? requires .{1,100})", what=KernelReportCode.CONFIGURATION),
    form("kernel_said", r"\bccp \S{1,40}: (?P<text>.{1,200}?),? rc <rc:d>", what=KernelReportCode.SECURITY_PROCESSOR),
    form(
        "kernel_said",
        r"\bccp \S{1,40}: (?P<text>SEV(?:-SNP)?: failed to \w{1,40} error <fw_error:h>)",
        what=KernelReportCode.SECURITY_PROCESSOR,
    ),
    form(
        "kernel_said",
        r"\bccp \S{1,40}: (?P<text>SEV: too many firmware commands.{0,100})",
        what=KernelReportCode.SECURITY_PROCESSOR,
    ),
    form(
        "kernel_said",
        r"\bccp \S{1,40}: (?P<text>sev command <command:h> timed out.{0,100})",
        what=KernelReportCode.SECURITY_PROCESSOR,
    ),
)
_MEMORY = (
    form("bad_memory", r"Memory failure: <pfn:h>: recovery action for (?P<action>.{1,80}: \w{1,20})"),
    form("bad_memory", r"Memory failure: <pfn:h>: .{1,80} still referenced by <users:d> users"),
    form("bad_memory", r"Memory failure: <pfn:h>: Failed to punch page: <punched:d>"),
    form("bad_memory", r"Memory failure: <pfn:h>: (?P<text>.{1,200}?)\.?$"),
    form("bad_memory", r"Injecting memory failure (?:at|for) pfn <pfn:h>", injected="yes"),
    form(
        "killed", r"\b(?:Killing|forcibly killing) (?P<comm>.{1,32}):<pid:d> (?:due to|because of).{0,60}?(?: at <address:h>)?$"
    ),
    form("machine_check", r"Uncorrected hardware memory error in user-access at <address:h>"),
    form("machine_check", r"mce: \[Hardware Error\]: .{0,80}\bADDR <address:h>"),
    form("kernel_said", r"(?P<text>\S{1,64}: page allocation failure: order:<order:d>)", what=KernelReportCode.PAGE_ALLOCATION),
    form("kernel_said", r"unexpected emulation request on private memory", what=KernelReportCode.EMULATION),
    form("out_of_memory", r"[Oo]ut of memory: Kill(?:ed)? process <pid:d> \((?P<comm>.{1,32}?)\)"),
    form(
        "dma_fault",
        r"DMAR: \[DMA (?P<what>Read|Write)[^\]]{0,40}\] Request device \[?(?P<device>[0-9a-f:.]{5,14})\]? .{0,40}fault addr <address:h>",
    ),
    form(
        "dma_fault",
        r"AMD-Vi: Event logged \[(?P<what>IO_PAGE_FAULT|RMP_PAGE_FAULT|RMP_HW_ERROR) .{0,120}?\b(?:address|gpa)=<address:h>",
    ),
)
_START = (
    form("memory_map", r"RMP table physical (?:address|range) \[?<first_byte:h> - <last_byte:h>\]?", of="RMP table"),
    form("memory_map", r"Reserving start/end of RMP table on a 2MB boundary \[<first_byte:h>\]", of="reserved"),
    form("memory_map", r"e820: update \[mem <first_byte:h>-<last_byte:h>\] usable ==> reserved", of="reserved"),
    form("memory_map", r"^ ?memory\[0x[0-9a-f]{1,4}\]\s{1,9}\[<first_byte:h>-<last_byte:h>\], ", of="memory of a node"),
    form("memory_map", r"^ ?node +\d{1,4}: \[mem <first_byte:h>-<last_byte:h>\]", of="memory of a node"),
)
"""What the kernel says of the host's memory when it starts; the last byte is part of it."""
_GUEST = (
    form("guest_kernel", r"^tdx: Guest detected"),
    form("guest_kernel", r"Memory Encryption Features active: (?:Intel TDX|AMD SEV\b)"),
    form(
        "kernel_said",
        r"(?P<text>CPA VMM failure to convert memory \(addr=\S{1,40}, numpages=<pages:d>\) to (?P<to>private|shared): <error:d>)",
        what=KernelReportCode.CPA_NOT_CONVERTED,
    ),
    form("kernel_said", r"(?P<text>leaking DMA memory that can't be re-encrypted)", what=KernelReportCode.DMA_LEAKED),
)
"""What only the kernel of a protected guest says: arch/x86/coco/tdx, arch/x86/mm (mem_encrypt.c, pat/set_memory.c), kernel/dma."""
_FORMS = (*_TDX, *_SNP, *_MEMORY, *_START, *_GUEST)
_HINT = re.compile(
    r"SEAMCALL|TDH_|TD (?:exit|vp)|Guest access|HKID|RMP|rmpupdate|SEV|PFN|\bpsc |swiotlb|gmem|vmgexit|opcode bytes|ccp |emory|mce|e820: upd|node +\d|illing |page alloc|tdx: Guest|DMAR|AMD-Vi"
).search
"""Words of which every message above has one."""

_SIGBUS = re.compile(
    r"Memory failure: (?P<pfn>0x[0-9a-f]{1,16}): (?:Sending SIGBUS to|forcibly killing) (?P<comm>.{1,32}):(?P<pid>\d{1,9})\b"
).search
_SUPPRESSED = re.compile(r"^(?P<what>[\w.]{1,100}): (?P<count>\d{1,18}) (?:callbacks|messages|output lines) suppressed").search
_ELIDED = re.compile(
    r"(?:\.{3,}|…|\[\s*(?:\.{2,}|…|snip\w*|cut|truncated)\s*\.*\]|<\s*(?:\.{2,}|snip\w*|cut|truncated)\s*>|-+\s*8<\s*-+)"
).fullmatch
_JOURNAL = re.compile(r"-- (?:(?P<boot>Boot [0-9a-f]{8,32}|Reboot)|Logs begin at .*|Journal begins at .*|No entries) --$").match
_CUT_HERE = re.compile(r"-{3,}\[ cut here \]").match
_PAGES = ("pfn", "pfn_end", "gfn", "index", "first", "behind")
_KEYS_ABOVE = 1 << 45
"""Physical addresses from here on are taken to carry a key id of MKTME in their high bits."""
_TEXT_LINES = 3


class KernelLog:
    """Reads messages of a kernel; remembers where key ids stand in addresses, and that a warning's text is due."""

    format = SourceFormat.KERNEL_LOG

    def __init__(self) -> None:
        self._key_bits = 0
        self._text_due = 0

    def parse(self, envelope: LogEnvelope) -> ParsedMessage | list[ParsedMessage] | Context | None:
        """What a message says; None for what is no message of a kernel, or for one that nothing is known of."""
        text = envelope.text
        found = first(_FORMS, text) if _HINT(text) else None
        if found is not None:
            return self._checked(found)
        if _CUT_HERE(text):
            self._text_due = _TEXT_LINES
            return Context("kernel dump", proof=True)
        if (journal := _JOURNAL(text)) is not None:
            return Context(self.format, proof=True) if journal["boot"] is None else ParsedMessage("booted", {}, text)
        found = splats.header(text)
        if found is not None:
            self._text_due = 0
            return found
        part = splats.part(text)
        if part is None and self._text_due and text and not _ELIDED(text):
            self._text_due -= 1
            return ParsedMessage("warning_text", {}, text)
        return part

    def _checked(self, said: ParsedMessage) -> ParsedMessage | list[ParsedMessage] | None:
        """None where a number cannot be what it is said to be: the line is damaged."""
        args = said.args
        if any(args.get(name, 0) >= LAST_PAGE for name in _PAGES) or args.get("pfn", 0) >= args.get("pfn_end", LAST_PAGE):
            return None
        if args.get("first_byte", 0) > args.get("last_byte", LAST_PAGE << 12):
            return None
        if said.name == "td_exit":
            self._key_bits |= args.get("hkid_pa", 0)
        if said.name == "machine_check":
            address = args["address"] & ~self._key_bits
            plain = (
                {"address": args["address"]} if address >= _KEYS_ABOVE else {"address": args["address"], "pfn": address >> 12}
            )
            return said._replace(args=plain)
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
    return None if suppressed is None else Marker(number, "suppressed", lost=int(suppressed["count"]), text=suppressed["what"])
