"""What QEMU says: trace events of its log backend, and the lines of error_report() and warn_report().

Formats: trace-events and error messages of accel/kvm, hw/vfio, backends/iommufd, system/ram-block-attributes.c, target/i386 up to
10.x, and of the trees for SNP and TDX before they were merged. QEMU speaks of guest addresses in bytes; an IOVA is one of them.
``kvm_convert_memory`` is printed before anything is checked: a wish, no result.
"""

import re

from gmemstate.decode.errnos import TEXTS
from gmemstate.ingest.fact import Context
from gmemstate.ingest.readers.envelopes import LogEnvelope
from gmemstate.messages.form import ParsedMessage, first, form
from gmemstate.model.reports import SourceFormat, VmmReportCode

_RANGE = r"\(<gpa:h> ?,?\+ ?<size:h>\)"
_ERROR = rf"(?P<error>{'|'.join(map(re.escape, TEXTS.values()))}|[A-Z][a-z]{{1,20}}(?: [a-z]{{1,20}}){{0,6}})"
"""What strerror() says; a register dump may follow it in the same line."""

TRACES = (
    form("convert_wish", r"kvm_convert_memory start <gpa:h> size <size:h> (?P<to>shared_to_private|private_to_shared)"),
    form("fault_seen", r"kvm_memory_fault start <gpa:h> size <size:h> flags <flags:h>"),
    form("fault_seen", r"memory fault: GPA <gpa:h> size <size:h> flags <flags:h>"),
    form("map_gpa_range", r"kvm_hc_map_gpa_range gpa <gpa:h> size <size:h> attributes <attributes:h> flags <flags:h>"),
    form(
        "slot_seen",
        r"kvm_set_user_memory (?:AddrSpace#<as_id:d> )?Slot#<slot:d> flags=<flags:h> gpa=<gpa:h> size=<size:h> ua=<hva:h> "
        r"(?:guest_memfd=<gmem_fd:d> guest_memfd_offset=<gmem_offset:h> )?ret=<ret:d>",
    ),
    form(
        "dma_mapped",
        r"iommufd_backend_map_(?:file_)?dma +iommufd=<fd:d> ioas=<ioas:d> iova=<iova:h> size=<size:h> .{0,120}?\(<ret:d>\)",
    ),
    form("dma_unmapped", r"iommufd_backend_unmap_dma +iommufd=<fd:d> ioas=<ioas:d> iova=<iova:h> size=<size:h> \(<ret:d>\)"),
    form("dma_mapped", r"vfio_listener_region_add_ram +region_add \[ram\] <iova:h> - <last:h>", basis="implied"),
    form("dma_unmapped", r"vfio_listener_region_del +region_del <iova:h> - <last:h>", basis="implied"),
    form(
        "vmm_said",
        r"ram_block_attributes_state_change offset <offset:h> size <size:h> from '(?P<from>\w{1,20})' to '(?P<to>\w{1,20})'",
        code=VmmReportCode.RAM_BLOCK,
    ),
    form(
        "vmm_said",
        r"ram_block_discard_(?:shared_)?range (?P<block>.{1,64})@\S{1,20} \+ <offset:h>: madvise: <madvise:d> fallocate: <fallocate:d> ret: <ret:d>",
        code=VmmReportCode.DISCARD,
    ),
    form(
        "vmm_said",
        r"(?:kvm_sev_)?snp_launch_update (?:src|addr) \S{1,20} gpa <gpa:h> len <size:h> \((?P<type>\w{1,20}) page\)",
        code=VmmReportCode.LAUNCH_UPDATE,
    ),
    form("system_event", r"kvm_run_exit_system_event cpu_index <vcpu:d>, system_even(?:t)?_type <event:d>"),
    form(
        "vmm_said",
        r"(?P<text>(?:tdx_handle_reset|sev_handle_reset|kvm_arch_on_vmfd_change)\b.{0,80})",
        code=VmmReportCode.NEW_VM,
    ),
    form(
        "vmm_said",
        r"runstate_set current_run_state \d+ \(\S+\) new_state \d+ \((?P<state>internal-error|guest-panicked)\)",
        code=VmmReportCode.RUN_STATE,
    ),
)
"""Lines of trace events; several may stand in one line of a log."""

ERRORS = (
    form("convert_refused", rf"Convert non guest_memfd backed memory region {_RANGE} to (?P<to>private|shared)"),
    form("set_failed", rf"failed to set memory {_RANGE} with attr <attributes:h> error '(?P<error>[^']{{1,80}})'"),
    form(
        "slot_seen",
        r"KVM_SET_USER_MEMORY_REGION2 failed, slot=<slot:d>, start=<gpa:h>, size=<size:h>, flags=<flags:h>, guest_memfd=<gmem_fd:d>, "
        rf"guest_memfd_offset=<gmem_offset:h>: {_ERROR}",
    ),
    form("dma_mapped", r"vfio_(?:container_)?dma_map\([^,]{1,20}, <iova:h>, <size:h>, [^)]{1,20}\) = <ret:d>"),
    form("dma_unmapped", r"vfio_(?:container_)?dma_unmap\([^,]{1,20}, <iova:h>, <size:h>\) = <ret:d>"),
    form("vmm_said", rf"dma_unmap\(\) failed: {_ERROR}", code=VmmReportCode.DMA_STILL_MAPPED),
    form("vmm_said", rf"VFIO_(?P<what>MAP|UNMAP)_DMA failed: {_ERROR}", code=VmmReportCode.DMA),
    form(
        "vmm_said",
        rf"Failed to notify the listener the state change of {_RANGE} to (?P<to>\w{{1,20}})",
        code=VmmReportCode.LISTENER_REFUSED,
    ),
    form("vmm_said", rf"Failed to notify RAM discard listener: {_ERROR}", code=VmmReportCode.LISTENER_REFUSED),
    form(
        "vmm_said",
        r"ram_block_attributes_state_change, invalid range: offset <offset:h>, size <size:h>",
        code=VmmReportCode.INVALID_RANGE,
    ),
    form(
        "vmm_said", r"possibly running out of DMA mappings.{0,400}?DMA mappings: <mappings:d>", code=VmmReportCode.DMA_MAPPINGS
    ),
    form("vmm_said", rf"Cannot set discarding of RAM broken: {_ERROR}", code=VmmReportCode.DISCARDING),
    form("vmm_said", r"KVM_EXIT_MEMORY_FAULT: Unknown flag (?=0x)<flags:h>", code=VmmReportCode.UNKNOWN_FAULT_FLAG),
    form("vmm_said", rf"kvm run failed {_ERROR}", code=VmmReportCode.RUN_FAILED),
    form(
        "vmm_said",
        r"TDX guest reports fatal error\.?(?: Error code: <error_code:h>)?(?:,? ?(?:Error )?[Mm]essage: (?P<message>.{1,160}))?",
        code=VmmReportCode.GUEST_ENDED_ITSELF,
    ),
    form("vmm_said", r"KVM: unknown exit reason <exit:d>", code=VmmReportCode.UNKNOWN_EXIT),
    form("vmm_said", r"KVM internal error\. Suberror: <suberror:d>", code=VmmReportCode.INTERNAL_ERROR),
    form("vmm_said", r"extra data\[<index:d>\]: <data:h>", code=VmmReportCode.INTERNAL_ERROR),
    form("vmm_said", rf"KVM_TDX_INIT_MEM_REGION failed {_ERROR}", code=VmmReportCode.INIT_MEM_REGION),
    form("vmm_said", rf"error creating kvm guest memfd(?:\s*: {_ERROR})?", code=VmmReportCode.GUEST_MEMFD_REFUSED),
    form("vmm_said", rf"(?P<what>KVM_TDX_[A-Z_]{{1,40}}) failed:? {_ERROR}", code=VmmReportCode.LAUNCH_CALL),
    form(
        "vmm_said",
        r"(?P<what>(?:SNP_)?LAUNCH_(?:START|FINISH)) ret=<ret:d> fw_error=<fw_error:d>",
        code=VmmReportCode.LAUNCH_CALL,
    ),
    form("vmm_said", r"SNP_LAUNCH_UPDATE ret=<ret:d> fw_error=<fw_error:d>", code=VmmReportCode.SNP_LAUNCH_UPDATE),
    form("vmm_said", r"failed to configure initial ?private guest memory", code=VmmReportCode.LAUNCH_FAILED),
    form("vmm_said", rf"Failed to (?:get|put|set) registers: {_ERROR}", code=VmmReportCode.REGISTERS),
)
"""Lines of errors; what follows one in its line belongs to it."""

_HINT = re.compile(
    r"kvm|KVM|TDX|iommufd|vfio|VFIO|(?i:launch_)|ram_block|runstate|memory|notify|RAM|DMA|registers|extra data|reset"
).search
_REPORT = re.compile(
    r"(?:\S{1,64} )?(?:qemu[\w-]{0,40}(?:\[\d{1,9}\])?: )(?:-[a-z][^:]{0,300}: )?(?P<level>warning: |info: )?."
).match
"""The prefix of error_report(): the guest's name, the program, the option that is at fault."""
_KNOWN_TRACE = re.compile(
    r"(?:kvm_run_exit|runstate_set|kvm_sev_\w+|vfio_\w+|iommufd_\w+|ram_block_\w+|kvm_\w+)\b(?=\s|$)"
).match
_ERRNO_AT_END = re.compile(rf": {_ERROR}$").search
_REGISTERS = re.compile(
    r"(?:E[A-D]X|E[SD]I|E[SBI]P|R[A-D]X|R[SD]I|R[BSI]P|R\d{1,2} ?|[CDEFGS]S ?|LDT|TR ?|[GI]DT|CR[0-4]|DR[0-7]|EFER|EFL|FCW|XMM\d\d|FPR\d|Code)="
    r"[ 0-9a-f<]"
).match


class Qemu:
    """Reads messages of QEMU; keeps nothing."""

    format = SourceFormat.QEMU

    def parse(self, envelope: LogEnvelope) -> ParsedMessage | list[ParsedMessage] | Context | None:
        """What a message says; None for what is no message of QEMU."""
        text = envelope.text
        found = self._known(text) if _HINT(text) else []
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
        found: list[tuple[int, ParsedMessage]] = []
        for candidate in TRACES:
            at, said = 0, candidate.said(text)
            if said is not None:
                match = candidate.pattern.search(text)
                at = match.start() if match is not None else 0
                found.append((at, said))
        error = None if found else first(ERRORS, text)
        if error is not None:
            return [error]
        return [said for _, said in sorted(found, key=lambda pair: pair[0])]

    @staticmethod
    def _error(text: str) -> ParsedMessage:
        """An error is put on record whatever it is about; a warning only if its form is known."""
        error = _ERRNO_AT_END(text)
        words = {"code": VmmReportCode.ERROR} if error is None else {"code": VmmReportCode.ERROR, "error": error["error"]}
        return ParsedMessage("vmm_said", {}, text, words)
