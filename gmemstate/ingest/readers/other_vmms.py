"""What other VMMs, paravisors and guest firmware say: libkrun, cloud-hypervisor, OpenVMM and OpenHCL, edk2, SVSM.

Formats: the messages of these programs of 2024 to 2026. libkrun prints decimal numbers and Rust's debug form, OpenVMM and
OpenHCL
``name=value``; edk2's retry of MapGPA hexadecimal without 0x and with the shared bit.
"""

import re

from gmemstate.ingest.fact import Context
from gmemstate.ingest.readers.envelopes import LogEnvelope
from gmemstate.messages.catalogue import ParsedMessage, facts, first
from gmemstate.model.linux import PRIVATE_ATTRIBUTE
from gmemstate.model.reports import SourceFormat, VmmReportCode

SHARED_BITS = (1 << 51, 1 << 47)
"""Where a TD has the bit that makes an address shared, with 52 and 48 bits of addresses."""
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
        found = first(facts("other_vmms"), text)
        if found is not None:
            said = found[0].parsed(found[1])
            return None if said is None else _with_implied(said)
        return Context(self.format, proof=True) if _KNOWN(text) else None


def _with_implied(said: ParsedMessage) -> ParsedMessage | list[ParsedMessage]:
    """A message with what its wording implies: fields that it names, the direction, the pages without the shared bit."""
    if said.name == "fault_seen":
        if "Unexpected exit" not in said.text or "gpa" not in said.args:
            return said
        to = "private" if said.args.get("flags", 0) & PRIVATE_ATTRIBUTE else "shared"
        return [said, ParsedMessage("vmm_said", said.args, said.text, {"code": VmmReportCode.UNHANDLED_EXIT, "to": to})]
    if "HC_MAP" in said.text:
        return _with_fields(said)
    return _without_shared_bit(said) if "MAPGPA" in said.text else _directed(said)


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
