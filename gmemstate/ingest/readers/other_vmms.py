"""What other VMMs, paravisors and guest firmware say: libkrun, cloud-hypervisor, OpenVMM and OpenHCL, edk2, SVSM.

Formats: the messages of these programs of 2024 to 2026. libkrun prints decimal numbers and Rust's debug form, OpenVMM and OpenHCL
``name=value``; edk2's retry of MapGPA hexadecimal without 0x and with the shared bit.
"""

import re

from gmemstate.ingest.fact import Context
from gmemstate.ingest.readers.envelopes import LogEnvelope
from gmemstate.messages.form import ParsedMessage, first, form
from gmemstate.model.linux import PRIVATE_ATTRIBUTE
from gmemstate.model.reports import SourceFormat, VmmReportCode

_FORMS = (
    # libkrun
    form("vmm_said", r"Unable to convert memory with properties: gpa: <gpa:h>,? size: <size:h>,? to_private: (?P<to_private>true|false)",
         code=VmmReportCode.CONVERT_REFUSED),
    form("vmm_said", r"KVM_EXIT_MEMORY_FAULT: Unknown flag (?!0x)<flags:d>", code=VmmReportCode.UNKNOWN_FAULT_FLAG),
    form("vmm_said", r"(?P<what>CreateGuestMemfd|SetMemoryAttributes|SetUserMemoryRegion2?)\(Error\(<errno:d>\)\)", code=VmmReportCode.CALL_FAILED),
    form("vmm_said", r"DmaMap\((?:\w{1,40}\()?Error\(<errno:d>\)", code=VmmReportCode.DMA, what="MAP"),
    # OpenVMM, OpenHCL
    form("vmm_said", r"KVM_HC_MAP_GPA_RANGE set memory attributes", code=VmmReportCode.MAP_GPA_RANGE),
    form("vmm_said", r"failed to modify gpa visibility, elements successfully processed <processed:d>: (?P<error>[^.(]{1,80})",
         code=VmmReportCode.VISIBILITY),
    form("vmm_said", r"guest accessed inaccessible gpa.{0,60}?\bgpa=<gpa:h>(?: is_shared=(?P<is_shared>true|false))?",
         code=VmmReportCode.INACCESSIBLE_GPA),
    form("vmm_said", r"Guest has reported system crash", code=VmmReportCode.GUEST_CRASH),
    # guest firmware
    form("vmm_said", r"SetMemorySharedOrPrivate: Cr3Base=0x[0-9a-fA-F]{1,16} Physical=<gpa:h> Length=<size:h> Mode=(?P<to>Shared|Private)",
         code=VmmReportCode.FIRMWARE_REQUEST, by="edk2"),
    form("vmm_said", r"TdVmcall\(MAPGPA\) Retry PhysicalAddress is <gpa:h>, MapGpaRetryaddr is <next:h>", code=VmmReportCode.MAP_GPA_RETRY, by="edk2"),
    form("vmm_said", r"\[SVSM\] Validating <gpa:h>-<behind:h>", code=VmmReportCode.VALIDATES, by="SVSM"),
    form("vmm_said", r"^VmPin:\s+<kilobytes:d> kB$", code=VmmReportCode.PINNED_MEMORY),
)  # fmt: skip
SHARED_BITS = (1 << 51, 1 << 47)
"""Where a TD has the bit that makes an address shared, with 52 and 48 bits of addresses."""
_HINT = re.compile(r"MemoryFault|convert memory|KVM_|Error\(|visibility|inaccessible|crash|SetMemory|MAPGPA|SVSM|VmPin").search
_FAULT = re.compile(r"MemoryFault \{ ?(?P<fields>[a-z]+: \d{1,20}(?:, [a-z]+: \d{1,20}){0,5}) ?\}").search
_FIELDS = re.compile(
    r"\b(gpa|size|page_count|map_attributes|attributes|private)[=:] ?(0x[0-9a-f]{1,16}|\d{1,19}|true|false)"
).findall
_KNOWN = re.compile(r"\[SVSM\] |Vm(?:RSS|HWM|Size|Lck|Peak):\s+\d+ kB$").match


class OtherVmm:
    """Reads messages of other VMMs and of guest firmware; keeps nothing."""

    format = SourceFormat.VMM_LOG

    def parse(self, envelope: LogEnvelope) -> ParsedMessage | list[ParsedMessage] | Context | None:
        """What a message says; None for what is no message of theirs."""
        text = envelope.text
        if _HINT(text):
            fault = _FAULT(text)
            if fault is not None:
                fields = dict(part.split(": ") for part in fault["fields"].split(", "))
                numbers = {name: int(value) for name, value in fields.items() if name in ("gpa", "size", "flags")}
                seen = ParsedMessage("fault_seen", numbers, text)
                if "Unexpected exit" not in text or "gpa" not in numbers:
                    return seen
                to = "private" if numbers.get("flags", 0) & PRIVATE_ATTRIBUTE else "shared"
                return [seen, ParsedMessage("vmm_said", numbers, text, {"code": VmmReportCode.UNHANDLED_EXIT, "to": to})]
            found = first(_FORMS, text)
            if found is not None:
                return (
                    _with_fields(found)
                    if "HC_MAP" in text
                    else _without_shared_bit(found)
                    if "MAPGPA" in text
                    else _directed(found)
                )
        return Context(self.format, proof=True) if _KNOWN(text) else None


def _without_shared_bit(said: ParsedMessage) -> ParsedMessage:
    """A MapGPA whose addresses carry the bit of the wanted kind: the pages, the direction, and how far it came."""
    args = dict(said.args)
    bit = next((bit for bit in SHARED_BITS if args["gpa"] & bit), 0)
    args["gpa"], args["next"] = args["gpa"] & ~bit, args["next"] & ~bit
    words = {**said.words, "to": "shared"} if bit else said.words
    if args["gpa"] <= args["next"]:
        args["size"] = args["next"] - args["gpa"]
    return said._replace(args=args, words=words)


def _directed(said: ParsedMessage) -> ParsedMessage:
    """A message with its direction in one word, where it tells it as true or false."""
    words = dict(said.words)
    if (private := words.pop("to_private", None)) is not None:
        words["to"] = "private" if private == "true" else "shared"
    return said._replace(words=words)


def _with_fields(said: ParsedMessage) -> ParsedMessage:
    args, words = dict(said.args), dict(said.words)
    for name, value in _FIELDS(said.text):
        if value in ("true", "false"):
            words[name] = value
        else:
            args[name] = int(value, 16 if value.startswith("0x") else 10)
    return said._replace(args=args, words=words)
