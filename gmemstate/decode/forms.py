"""The lines that people paste, and which words of them are worth explaining.

Each form is a pattern with named groups; the name of a group (digits at its end aside) says how :mod:`gmemstate.decode.lines` reads
it. Formats: kernel sources of Linux 5.10 to 7.2 (vmx/tdx.c, virt/svm/sev.c, svm/sev.c, mm/memory-failure.c, trace headers), QEMU's
trace-events and error messages up to 10.x, strace 6, perf trace, libkrun, OpenVMM, edk2.
"""

import re
from typing import NamedTuple

from gmemstate.decode.errnos import TEXTS

_SHORT = {
    "H": r"0x[0-9a-fA-F]{1,16}(?![0-9a-fA-F])",
    "B": r"[0-9a-f]{1,16}(?![0-9a-f])",
    "N": r"-?\d{1,20}(?!\d)",
    "TEXT": "|".join(sorted(map(re.escape, TEXTS.values()), key=len, reverse=True)),
}


class Form(NamedTuple):
    """A kind of line: who prints it, what it says, and its pattern; it may stand anywhere in a line, and more than once."""

    who: str
    says: str
    pattern: re.Pattern[str]


def _form(who: str, says: str, pattern: str) -> Form:
    """A form; ``<name:H>`` is a hexadecimal number with 0x, ``B`` without, ``N`` decimal, ``TEXT`` what strerror() says."""
    long = re.sub(r"<(\w+):(\w+)>", lambda match: f"(?P<{match[1]}>{_SHORT[match[2]]})", pattern)
    return Form(who, says, re.compile(long, re.ASCII))


_TDX = "kernel log, TDX"
_SNP = "kernel log, SNP"
_MM = "kernel log, mm"
_TRACE = "kernel trace"
_STRACE = "system call trace"
_QEMU = "QEMU"
_PART = "part of a line"

FORMS = (
    # --- TDX ----------------------------------------------------------------------------------------------------------
    _form(
        _TDX,
        "a SEAMCALL failed; for a leaf about memory rcx is the entry and rdx its level and state",
        r"SEAMCALL (?P<leafname>TDH_MEM_\w+) failed: <status:H>, rcx <entry:H>, rdx,? <levelstate:H>",
    ),
    _form(
        _TDX,
        "a SEAMCALL failed; for a leaf about memory rcx is the entry and rdx its level and state",
        r"SEAMCALL \((?P<leaf>0x0{0,15}(?:[2367]|f|17|1d))\) failed: <status:H> RCX <entry:H> RDX <levelstate:H>",
    ),
    _form(
        _TDX,
        "a SEAMCALL failed; no gpa and no VM stand in it, and Linux 7.2 prints only the first failure of a VM",
        r"SEAMCALL (?P<leafname>TDH_\w+) failed: <status:H>(?:, entry <entry:H>, level_state <levelstate:H>)?",
    ),
    _form(_TDX, "a SEAMCALL failed", r"SEAMCALL \(<leaf:H>\) failed: <status:H>"),
    _form(_TDX, "a SEAMCALL failed", r"SEAMCALL failed: CPU \d+: leaf <leaf:N>, error <status:H>"),
    _form(
        _TDX,
        "a SEAMCALL failed",
        r"SEAMCALL\[(?P<leafname>TDH_\w+)\(\d+\)\] failed: (?:Unknown SEAMCALL status code\()?<status:H>",
    ),
    _form(_TDX, "a TD left with a status that KVM does not expect", r"TD (?:exit|vp_enter_ret) <status:H>"),
    _form(
        _TDX,
        "the guest touched a private page that it had not accepted; the VM is dead after it",
        r"Guest access before accepting <gpa:H>",
    ),
    _form(_TDX, "a key of a dead TD cannot be used again", r"tdh_\w+\(\) failed\. HKID \d+ is leaked"),
    # --- SNP ----------------------------------------------------------------------------------------------------------
    _form(
        _SNP,
        "RMPUPDATE failed; the stack that follows tells the direction",
        r"RMPUPDATE failed for PFN <pfn:B>, pg_level: <pglevel:N>, ret: <rmpupdate:N>",
    ),
    _form(
        _SNP,
        "RMPUPDATE failed (wording of 5.19)",
        r"rmpupdate failed, ret: <rmpupdate:N>, pfn: <pfn:B>, npages: \d+, level: <pglevel:N>",
    ),
    _form(_SNP, "an RMP entry, [lo - hi]", r"PFN <pfn:H>, RMP entry: \[<rmplo:H> - <rmphi:H>\]"),
    _form(_SNP, "an RMP entry, [lo - hi]", r"PFN: <pfn:H>, \[<rmplo:H> - <rmphi:H>\]"),
    _form(_SNP, "an RMP entry, [lo - hi]", r"^\[<rmplo:H> - <rmphi:H>\]$"),
    _form(
        _SNP,
        "the page is the host's; its neighbours in the 2M region follow",
        r"PFN <pfn:H> unassigned, dumping non-zero entries in 2M PFN region: \[<pfn1:H> - <pfn2:H>\]",
    ),
    _form(_SNP, "host pages are lost until the next boot (the end is exclusive)", r"Leaking PFN range <pfn:H>-<pfnend:H>"),
    _form(
        _SNP,
        "a private page could not be given to the guest, or looked up",
        r"Failed to (?:update|look up) RMP entry: GFN <gfn:B> PFN <pfn:B>(?: level <pglevel:N>)? error <rmperror:N>",
    ),
    _form(
        _SNP,
        "a page could not be made the host's again; it is freed all the same",
        r"Failed to update RMP entry for PFN <pfn:H> error <rmperror:N>",
    ),
    _form(_SNP, "a 2M entry could not be split", r"Failed to PSMASH RMP entry for PFN <pfn:H> error <psmash:N>"),
    _form(_SNP, "a 2M entry could not be split", r"Unable to split RMP entry for GPA <gpa:H> PFN <pfn:H> ret <psmash:N>"),
    _form(
        _SNP,
        "an RMP fault that KVM could not explain",
        r"SEV: Unexpected RMP fault[^0-9]{0,80}GPA <gpa:H>(?: PFN <pfn:H> error <rmperror:N>)?",
    ),
    _form(_SNP, "a page fault of the host", r"#PF: error_code\(<pagefault:H>\)"),
    _form(
        _SNP,
        "the guest ended itself",
        r"SEV-ES guest requested termination: (?P<termination>0x[0-9a-f]{1,4}:0x[0-9a-f]{1,4})\b",
    ),
    _form(_SNP, "the guest met an exit that it does not handle", r"(?:Unsupported exit-code|exit_code:) <svmexit:H>"),
    _form(_SNP, "a page could not be taken back from the firmware", r"Failed to reclaim PFN <pfn:B>, rc <errno:N>"),
    _form(_SNP, "the direct map could not be split", r"Failed to split direct map for PFN <pfn:H>, ret: <errno:N>"),
    _form(
        "kernel log, guest_memfd",
        "a page could not be made private",
        r"gmem: Failed to prepare folio for index (?:[0-9a-f]+) GFN <gfn:B> PFN <pfn:B> error <rmperror:N>",
    ),
    _form("kernel log, ccp", "a command of the security processor failed", r"\bccp [^,]{0,200}, rc <errno:N>"),
    # --- memory management ----------------------------------------------------------------------------------------------
    _form(
        _MM,
        "a hardware memory error",
        r"(?:Memory failure: |memory_failure_event: pfn )<pfn:H>: recovery action for [^:]{1,80}: (?P<recovery>\w+)",
    ),
    _form(_MM, "a hardware memory error", r"Memory failure: <pfn:H>: Failed to punch page: <punch:N>"),
    _form(_MM, "a hardware memory error", r"Memory failure: <pfn:H>: "),
    _form(
        "kernel log", "a warning; function, process and source line stand in it", r"WARNING: (?:CPU: \d+ PID: \d+ at )?\S+:\d+ "
    ),
    _form("kernel log", "messages were dropped, so what is missing here proves nothing", r"\d+ callbacks suppressed"),
    # --- kernel traces --------------------------------------------------------------------------------------------------
    _form(
        _TRACE,
        "an attempt to set attributes of gfns (the end is exclusive); no result",
        r"kvm_(?:vm_set|set_vm)_mem_attributes: <gfn1:H> -- <gfn2:H> \[<attributes:H>\]",
    ),
    _form(
        _TRACE,
        "a hypercall",
        r"kvm_hypercall: nr <hypercall:H> a0 <hypercallgpa:H> a1 <hypercallpages:H> a2 <hypercallattributes:H>",
    ),
    _form(_TRACE, "an exit to the VMM", r"kvm_userspace_exit: reason (?P<exitname>\w+) \(<exitnumber:N>\)"),
    _form(_TRACE, "an exit to the VMM", r"kvm_userspace_exit\(reason: <exit:N>\)"),
    _form(
        _TRACE,
        "a guest's page fault",
        r"kvm_page_fault: (?:vcpu \d+ rip 0x[0-9a-f]+ )?address (?P<gpa>(?:0x)?[0-9a-f]{1,16}) error_code (?P<guestfault>(?:0x)?[0-9a-f]{1,16})(?![0-9a-f])",
    ),
    _form(
        _TRACE,
        "an RMP fault of a guest",
        r"kvm_rmp_fault: vcpu \d+ gpa <gpa:B> pfn <pfn:H> error_code <pagefault:H> rmp_level <pglevel:N> psmash_ret <psmash:N>",
    ),
    _form(
        _TRACE,
        "a request of an SEV-ES guest",
        r"kvm_vmgexit_(?:enter|exit): vcpu \d+, exit_reason <svmexitbare:B>, exit_info1 [0-9a-f]+, exit_info2 <pscresult:B>",
    ),
    _form(_TRACE, "a request of an SEV-ES guest", r"kvm_vmgexit_msr_protocol_(?:enter|exit): vcpu \d+, ghcb_gpa <ghcb:B>"),
    _form(
        _TRACE,
        "an entry of the second-level page table changed",
        r"kvm_tdp_mmu_spte_changed: as id \d+ gfn <gfn:B> level <pglevel:N> old_spte <spte:B> new_spte <spte2:B>",
    ),
    _form(
        _TRACE,
        "an entry of the second-level page table was set",
        r"kvm_mmu_set_spte: gfn <gfn:B> spte <spte:B> \(\w*\) level <pglevel:N>",
    ),
    _form(_TRACE, "a page was found for a fault", r"kvm_mmu_spte_requested: gfn <gfn:B> pfn <pfn:B> level <pglevel:N>"),
    _form(
        _TRACE,
        "a huge entry was split",
        r"kvm_mmu_split_huge_page: gfn <gfn:B> spte <spte:B> level <pglevel:N> errno <errno:N>",
    ),
    _form(_TRACE, "an exit of the hardware", r"kvm_exit: (?:vcpu \d+ )?reason (?P<hardware>\w+)"),
    _form(
        _TRACE,
        "the end of KVM_RUN",
        r"run_ret: [^\n]{0,120}?\bret=<errno:N> exit=<exit:N>(?: flags=<faultflags:H> gpa=<gpa:H> size=<size:H>)?",
    ),
    _form(_TRACE, "an ioctl", r"\bcmd=<ioctl:H>"),
    _form(_TRACE, "a call failed", r"\bret=(?=-)<errno:N>"),
    # --- system calls ---------------------------------------------------------------------------------------------------
    _form(
        _STRACE,
        "an ioctl",
        r"\bioctl\([^,]{1,120}, (?P<ioctl>0x[0-9a-f]{1,8}|_IOC\([^)]{1,80}\)|[A-Z][A-Z0-9_]+(?: or [A-Z0-9_]+)*)"
        r"(?: /\*[^*]{1,80}\*/)?(?=[ ,)])",
    ),
    _form(
        _STRACE,
        "an ioctl",
        r"\bioctl\(fd: \d+[^,]{0,80}, cmd: (?P<ioctlbynumber>\(0x[0-9a-f]+, 0x[0-9a-f]+, 0x[0-9a-f]+\)|[A-Z][A-Z0-9_]+)",
    ),
    _form(_STRACE, "an ioctl", r"sys_ioctl\(fd: [0-9a-f]+, cmd: <ioctlbare:B>"),
    _form(
        _STRACE,
        "fallocate() on a guest_memfd frees or allocates pages",
        r"\bfallocate\([^,]{1,120}, (?P<fallocate>0x[0-9a-f]{1,8}|[A-Z_|]+)(?: /\*[^*]{1,80}\*/)?, <offset:N>, <length:N>\)",
    ),
    _form(_STRACE, "a call failed", r"= -1 (?P<errname>E[A-Z0-9]+)\b"),
    # --- QEMU -----------------------------------------------------------------------------------------------------------
    _form(
        _QEMU,
        "a conversion is asked for; printed before any check, it is no result",
        r"kvm_convert_memory start <gpa:H> size <size:H> (?P<direction>shared_to_private|private_to_shared)",
    ),
    _form(
        _QEMU,
        "KVM_EXIT_MEMORY_FAULT; a conversion of the same range after it is an implicit one",
        r"kvm_memory_fault start <gpa:H> size <size:H> flags <faultflags:H>",
    ),
    _form(_QEMU, "KVM_EXIT_MEMORY_FAULT (older forks)", r"memory fault: GPA <gpa:H> size <size:H> flags <faultflags:H>"),
    _form(
        _QEMU,
        "the guest asks for a conversion",
        r"kvm_hc_map_gpa_range gpa <gpa:H> size <size:H> attributes <mapattributes:H> flags 0x[0-9a-f]+",
    ),
    _form(_QEMU, "an exit to the VMM", r"kvm_run_exit cpu_index \d+, reason <exit:N>"),
    _form(_QEMU, "an exit to the VMM", r"kvm_run_exit_system_event cpu_index \d+, system_even(?:t)?_type <systemevent:N>"),
    _form(
        _QEMU,
        "a memslot is made, changed or (size 0) deleted",
        r"kvm_set_user_memory (?:AddrSpace#\d+ )?Slot#\d+ flags=<slotflags:H> gpa=<gpa:H> size=<slotsize:H> ua=0x[0-9a-f]+ "
        r"(?:guest_memfd=-?\d+ guest_memfd_offset=0x[0-9a-f]+ )?ret=<errno:N>",
    ),
    _form(_QEMU, "part of the initial private memory", r"kvm_sev_snp_launch_update \w+ 0x[0-9a-f]+ gpa <gpa:H> len <size:H>"),
    _form(
        _QEMU,
        "a conversion was refused: no guest_memfd is behind the range (MMIO, ROM, TPM PPI)",
        r"Convert non guest_memfd backed memory region \(<gpa:H> ?,?\+ ?<size:H>\) to (?P<direction>private|shared)",
    ),
    _form(
        _QEMU,
        "KVM_SET_MEMORY_ATTRIBUTES failed",
        r"failed to set memory \(<gpa:H>\+<size:H>\) with attr <attributes:H> error '<errtext:TEXT>'",
    ),
    _form(
        _QEMU,
        "KVM_RUN failed; the registers of a protected guest that follow say nothing, the kernel log does",
        r"kvm run failed <errtext:TEXT>",
    ),
    _form(
        _QEMU,
        "a vCPU's registers cannot be had; with Input/output error the VM is dead",
        r"Failed to (?:get|put|set) registers: <errtext:TEXT>",
    ),
    _form(_QEMU, "an exit that this QEMU does not know", r"KVM: unknown exit reason <exit:N>"),
    _form(_QEMU, "KVM could not go on", r"KVM internal error\. Suberror: <suberror:N>"),
    _form(_QEMU, "data of an internal error", r"extra data\[\d+\]: <internal:H>"),
    _form(_QEMU, "initial private memory could not be set", r"KVM_TDX_INIT_MEM_REGION failed <errtext:TEXT>"),
    _form(
        _QEMU,
        "a memslot could not be set",
        r"KVM_SET_USER_MEMORY_REGION2 failed, slot=\d+, start=<gpa:H>, size=<slotsize:H>, flags=<slotflags:H>, "
        r"guest_memfd=-?\d+, guest_memfd_offset=0x[0-9a-f]+: <errtext:TEXT>",
    ),
    _form(
        _QEMU,
        "a range could not be mapped for a device; iova is the gpa",
        r"vfio_(?:container_)?dma_map\([0-9a-fx]+, <gpa:H>, <size:H>, [0-9a-fx]+\) = <errno:N>",
    ),
    _form(_QEMU, "initial private memory could not be set", r"SNP_LAUNCH_UPDATE ret=<errno:N> fw_error=\d+"),
    _form(_QEMU, "a fault of a kind that this QEMU does not know", r"KVM_EXIT_MEMORY_FAULT: Unknown flag <faultflags:H>"),
    _form(
        _QEMU,
        "a conversion reached a part that was not all of one state",
        r"ram_block_attributes_state_change[^\n]{0,120}mixture",
    ),
    # --- other VMMs and guests ------------------------------------------------------------------------------------------
    _form(
        "libkrun",
        "KVM_EXIT_MEMORY_FAULT that is not handled",
        r"MemoryFault \{ flags: <faultflags:N>, gpa: <gpadec:N>, size: <size:N> \}",
    ),
    _form("libkrun", "a call failed", r"\bError\(<errno:N>\)"),
    _form("OpenVMM", "the guest touched a page whose state does not fit", r"inaccessible gpa[^\n]{0,60}?gpa=<gpa:H>"),
    _form("OpenVMM", "a visibility change stopped after so many elements", r"elements successfully processed \d+"),
    _form(
        "edk2",
        "the firmware asks for a conversion",
        r"SetMemorySharedOrPrivate: Cr3Base=0x[0-9a-fA-F]+ Physical=<gpa:H> Length=<size:H> Mode=(?P<direction>Shared|Private)",
    ),
    # --- parts of lines, as people quote them ----------------------------------------------------------------------------
    _form(
        _PART,
        "an entry of the secure EPT; whether it is reported depends on the status",
        r"\bentry <entry:H>, level_state <levelstate:H>",
    ),
    _form(_PART, "an exit to the VMM", r"\breason (?P<exitname>\w+) \(<exitnumber:N>\)"),
    _form(_PART, "what RMPUPDATE returned", r"(?i:\bRMPUPDATE)(?:[ :=]{1,3}(?:returned|ret|code))?[ :=]{1,3}<rmpupdate:N>\b"),
    _form(_PART, "what PSMASH returned", r"(?i:\bPSMASH)(?:[ :=]{1,3}(?:returned|ret|code))?[ :=]{1,3}<psmash:N>\b"),
    _form(_PART, "what PVALIDATE returned", r"(?i:\bPVALIDATE)(?:[ :=]{1,3}(?:returned|ret|code))?[ :=]{1,3}<pvalidate:N>\b"),
    _form(_PART, "memory attributes", r"\battr(?:ibute)?s?(?: |=|: ?)<attributes:H>"),
    _form(_PART, "an ioctl", r"\bcmd: (?P<ioctlbynumber>\(0x[0-9a-f]+, 0x[0-9a-f]+, 0x[0-9a-f]+\))"),
    # --- anything -------------------------------------------------------------------------------------------------------
    _form("VMM", "a call failed", r"(?:: |failed )<errtext:TEXT>(?=$|[\s'\"):,.])"),
    _form(
        "register dump",
        "registers; statuses and errnos among them are explained",
        r"\b(?:[ER]?[A-D]X|[ER]?(?:SI|DI|BP|SP)|R(?:8|9|08|09|1[0-5]))(?:: | |=)(?:0x)?(?P<register>[0-9a-f]{8,16})\b",
    ),
)
