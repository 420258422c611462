"""What QEMU says: trace events of its log backend, and the lines of error_report() and warn_report().

Formats: trace-events and error messages of accel/kvm, hw/vfio, backends/iommufd, system/ram-block-attributes.c, target/i386 up
to
10.x, and of the trees for SNP and TDX before they were merged. QEMU speaks of guest addresses in bytes; an IOVA is one of them.
``kvm_convert_memory`` is printed before anything is checked: a request, no result.
"""

import re

from gmemstate.ingest.fact import Context
from gmemstate.ingest.readers.envelopes import LogEnvelope
from gmemstate.messages.catalogue import ParsedMessage, facts
from gmemstate.messages.fields import TYPES
from gmemstate.model.reports import SourceFormat, VmmReportCode

_REPORT = re.compile(
    r"(?:\S{1,64} )?(?:qemu[\w-]{0,40}(?:\[\d{1,9}\])?: )(?:-[a-z][^:]{0,300}: )?(?P<level>warning: |info: )?."
).match
"""The prefix of error_report(): the guest's name, the program, the option that is at fault."""
_KNOWN_TRACE = re.compile(
    r"(?:kvm_run_exit|runstate_set|kvm_sev_\w+|vfio_\w+|iommufd_\w+|ram_block_\w+|kvm_\w+)\b(?=\s|$)"
).match
_ERRNO_AT_END = re.compile(rf": (?P<error>{TYPES['error'].pattern})$").search
_REGISTERS = re.compile(
    r"(?:E[A-D]X|E[SD]I|E[SBI]P|R[A-D]X|R[SD]I|R[BSI]P|R\d{1,2} ?|[CDEFGS]S ?|LDT|TR "
    r"?|[GI]DT|CR[0-4]|DR[0-7]|EFER|EFL|FCW|XMM\d\d|FPR\d|Code)="
    r"[ 0-9a-f<]"
).match


class Qemu:
    """Reads messages of QEMU; keeps nothing."""

    format = SourceFormat.QEMU

    def parse(self, envelope: LogEnvelope) -> ParsedMessage | list[ParsedMessage] | Context | None:
        """What a message says; None for what is no message of QEMU."""
        text = envelope.text
        found = self._known(text)
        if found:
            return found if len(found) > 1 else found[0]
        if _REGISTERS(text):
            return Context("register dump", proof=True)
        report = _REPORT(text)
        if report is not None:
            return Context("QEMU warnings", proof=True) if report["level"] else self._error(text)
        return Context("QEMU trace", proof=True) if _KNOWN_TRACE(text) else None

    @staticmethod
    def _known(text: str) -> list[ParsedMessage]:
        """The trace events of a line in their order; else its error, which all the rest of the line belongs to."""
        found: list[tuple[int, ParsedMessage]] = []
        for message in facts("qemu"):
            if (message.trace or not found) and (match := message.search(text)):
                said = message.parsed(match)
                if said is None:
                    continue
                if not message.trace:
                    return [said]
                found.append((match.start(), said))
        return [said for _, said in sorted(found, key=lambda pair: pair[0])]

    @staticmethod
    def _error(text: str) -> ParsedMessage:
        """An error is put on record whatever it is about; a warning only if its form is known."""
        error = _ERRNO_AT_END(text)
        words = {"code": VmmReportCode.ERROR} if error is None else {"code": VmmReportCode.ERROR, "error": error["error"]}
        return ParsedMessage("vmm_said", {}, text, words)
