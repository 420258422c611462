"""Pasted lines: every form of the catalogue of log formats is recognised, and its words are read as what they are there."""

import pytest

from gmemstate.messages.reading import read

LINES = [
    # --- TDX
    ("kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x1a2b3c4077, level_state 0x400", {
        "TDH_MEM_PAGE_REMOVE": "TDH.MEM.PAGE.REMOVE", "0xc0000b0d00000001": "TDX_EPT_ENTRY_STATE_INCORRECT, operand RCX",
        "0x1a2b3c4077": "PRESENT at 4K, host page pfn 0x1a2b3c4", "0x400": "level 4K, state PRESENT"}),
    ("kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0x8000020000000092, entry 0x0, level_state 0x0", {
        "0x8000020000000092": "TDX_OPERAND_BUSY, operand SEPT",
            "0x0": "not reported with this status: no page can be concluded from it"}),
    ("SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000030000000001, rcx 0x0, rdx, 0x0, r8 0x0", {
        "TDH_PHYMEM_PAGE_RECLAIM": "TDH.PHYMEM.PAGE.RECLAIM",
            "0xc000030000000001": "TDX_PAGE_METADATA_INCORRECT, operand RCX"}),
    ("SEAMCALL TDH_MEM_TRACK failed: 0x80000201000000a9", {
        "0x80000201000000a9": "TDX_PREVIOUS_TLB_EPOCH_BUSY, operand TD_EPOCH"}),
    ("virt/tdx: SEAMCALL (0x000000000000001c) failed: 0xc000030000000001", {"0x000000000000001c": "TDH.PHYMEM.PAGE.RECLAIM"}),
    ("tdx: SEAMCALL failed: CPU 3: leaf 33, error 0xc000092100000122.", {
        "33": "TDH.SYS.INIT", "0xc000092100000122": "TDX_INCORRECT_MSR_VALUE"}),
    ("SEAMCALL[TDH_MEM_RD(12)] failed: Unknown SEAMCALL status code(0xe000060400000000)", {
        "TDH_MEM_RD": "TDH.MEM.RD", "0xe000060400000000": "TDX_TD_FATAL"}),
    ("kvm [77]: TD exit 0x6000000500000006, 6 hkid 0x20 hkid pa 0x4000000000000", {
        "0x6000000500000006": "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE"}),
    ("kvm [1]: TD vp_enter_ret 0x4000000200000000", {"0x4000000200000000": "TDX_NON_RECOVERABLE_TD"}),
    ("kvm_intel: Guest access before accepting 0x807000 on vCPU 3", {"0x807000": "gpa 0x807000 = gfn 0x807"}),
    ("tdh_mng_vpflushdone() failed. HKID 65 is leaked.", {}),
    ("SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, rcx 0x7654321077, rdx 0x400", {
        "0x7654321077": "PRESENT at 4K, host page pfn 0x7654321", "0x400": "level 4K, state PRESENT"}),
    ("SEAMCALL (0x000000000000001d) failed: 0xc0000b0d00000001 RCX 0x0000007654321077 RDX 0x0000000000000400 R8 "
     "0x0000000000000000", {
        "0x000000000000001d": "TDH.MEM.PAGE.REMOVE", "0x0000007654321077": "PRESENT at 4K, host page pfn 0x7654321"}),
    # --- parts of lines
    ("entry 0x7654321077, level_state 0x400", {"0x7654321077": "PRESENT at 4K, host page pfn 0x7654321"}),
    ("reason error (133)", {
        "133": "EHWPOISON (133), Memory page has hardware error: KVM_EXIT_MEMORY_FAULT on a page with a hardware memory "
               "error"}),
    ("RMPUPDATE ret: 3", {"3": "RMPUPDATE 3 = FAIL_INUSE: another processor is using the entry; transient"}),
    ("PSMASH 3", {
        "3": "PSMASH 3 = FAIL_INUSE: another processor is using the entry; transient, the kernel tries until it succeeds"}),
    ("pvalidate returned 6", {
        "6": "PVALIDATE 6 = FAIL_SIZEMISMATCH: 2M asked where the RMP has 4K entries; the guest validates page by page"}),
    ("attributes=0x8", {"0x8": "0x8 = private"}),
    # --- SNP
    ("SEV-SNP: RMPUPDATE failed for PFN 56700, pg_level: 1, ret: 2", {
        "56700": "pfn 0x56700 = host address 0x56700000", "1": "4K",
        "2": "RMPUPDATE 2 = FAIL_PERMISSION: the page may not be changed so, e.g. firmware or the platform holds it"}),
    ("SEV-SNP: rmpupdate failed, ret: 4, pfn: 37d4000, npages: 1, level: 1, retrying (max: 8)...", {
        "4": "RMPUPDATE 4 = FAIL_OVERLAP: a 4K and a 2M entry overlap; the kernel tries until it succeeds",
        "37d4000": "pfn 0x37d4000 = host address 0x37d4000000", "1": "4K"}),
    ("SEV-SNP: PFN 0x40fdf36, RMP entry: [0x6010fffffffff001 - 0x000000000000001f]", {
        "0x6010fffffffff001": "guest-owned, ASID 2, gpa 0xfffffffff000, a VMSA (a vCPU's register page)"}),
    ("[0x8000000000000005 - 0x0000000000000000]", {
        "0x8000000000000005": "held by firmware or the platform (assigned, ASID 0)"}),
    ("SEV-SNP: PFN: 0x56601, [0x8000000000000005 - 0x0000000000000000]", {
        "0x8000000000000005": "held by firmware or the platform (assigned, ASID 0)"}),
    ("SEV-SNP: PFN 0x146800 unassigned, dumping non-zero entries in 2M PFN region: [0x146800 - 0x146a00]", {
        "0x146a00": "pfn 0x146a00 = host address 0x146a00000"}),
    ("SEV-SNP: Leaking PFN range 0x146800-0x146a00", {"0x146a00": "pfns [0x146800,0x146a00), 512 pages (2 MiB)"}),
    ("kvm_amd: SEV: Failed to update RMP entry: GFN 4000 PFN 56700 level 1 error -14", {
        "4000": "gfn 0x4000 = gpa 0x4000000", "56700": "pfn 0x56700 = host address 0x56700000", "1": "4K",
        "-14": "EFAULT (14), Bad address: the instruction failed (its code stands in an earlier line), the direct map could "
               "not be split, "
               "or the page lies beyond the RMP"}),
    ("kvm_amd: SEV: Failed to look up RMP entry: GFN 4000 PFN 56700 error -19", {
        "-19": "ENODEV (19), No such device: this host has no SNP"}),
    ("SEV: Failed to PSMASH RMP entry for PFN 0x56700 error 3", {
        "3": "PSMASH 3 = FAIL_INUSE: another processor is using the entry; transient, the kernel tries until it succeeds"}),
    ("SEV: Failed to update RMP entry for PFN 0x56700 error -14", {"0x56700": "pfn 0x56700 = host address 0x56700000"}),
    ("kvm_amd: SEV: Unable to split RMP entry for GPA 0x4000000 PFN 0x56700 ret 3", {
        "0x4000000": "gpa 0x4000000 = gfn 0x4000"}),
    ("kvm_amd: SEV: Unexpected RMP fault for non-private GPA 0x4000000", {"0x4000000": "gpa 0x4000000 = gfn 0x4000"}),
    ("kvm_amd: SEV: Unexpected RMP fault, no assigned RMP entry found for GPA 0x4000000 PFN 0x56700 error -19", {
        "-19": "ENODEV (19), No such device: this host has no SNP"}),
    ("#PF: error_code(0x80000003) - RMP violation", {"0x80000003": "present, write, RMP violation"}),
    ("SEV-ES guest requested termination: 0x1:0x2", {
        "0x1:0x2": "the guest ended itself, set 0x1 code 0x2: Linux failed at PVALIDATE: a page was not in the state that it "
                   "should be in"}),
    ("SEV: Unsupported exit-code 0x404 in #VC exception (IP: 0x5775)", {
        "0x404": "PAGE_NOT_VALIDATED (0x404): the guest accessed a private page that it had not validated"}),
    ("Failed to reclaim PFN 56700, rc -5 fw_err 0", {"56700": "pfn 0x56700 = host address 0x56700000"}),
    ("SEV-SNP: Failed to split direct map for PFN 0x56700, ret: -12", {"0x56700": "pfn 0x56700 = host address 0x56700000"}),
    ("gmem: Failed to prepare folio for index 5 GFN 4000 PFN 56700 error -22.", {
        "-22": "EINVAL (22), Invalid argument: there is no such host page"}),
    ("ccp 0000:01:00.1: SEV: failed to SHUTDOWN error 0x0, rc -110", {"-110": "ETIMEDOUT (110), Connection timed out"}),
    # --- mm
    ("Memory failure: 0x80a5669: recovery action for clean unevictable LRU page: Failed", {
        "0x80a5669": "pfn 0x80a5669 = host address 0x80a5669000",
        "Failed": "Failed: somebody still uses the page; for a page of a guest_memfd this is usual, it stays poisoned in the "
                  "file"}),
    ("Memory failure: 0x80a5669: Failed to punch page: 2", {
        "2": "2 is MF_DELAYED, what a guest_memfd answers to a memory failure; no failure of its own"}),
    ("[  12.000000] pr_tdx_error: 17 callbacks suppressed", {}),
    ("WARNING: CPU: 1 PID: 77 at arch/x86/kvm/vmx/tdx.c:1500 tdx_mem_page_aug+0x10/0x20 [kvm_intel]", {}),
    ("WARNING: arch/x86/kvm/vmx/tdx.c:1817 at tdx_sept_set_private_spte+0x2f1/0x4d0 [kvm_intel], CPU#37: CPU 3/KVM/40213", {}),
    # --- traces
    ("qemu-1 [003] ....  1.0: kvm_vm_set_mem_attributes: 0x00000000004000 -- 0x00000000004010 [0x8]", {
        "0x00000000004000": "gfn 0x4000 = gpa 0x4000000", "0x8": "0x8 = private"}),
    ("qemu-1 [003] ....  1.0: kvm_set_vm_mem_attributes: 0x00000000004000 -- 0x00000000004010 [0x0]", {"0x0": "0x0 = shared"}),
    ("vcpu-1 [003] ....  1.0: kvm_hypercall: nr 0xc a0 0x4000000 a1 0x10 a2 0x10 a3 0x0", {
        "0xc": "KVM_HC_MAP_GPA_RANGE (0xc): a guest's request for a conversion; gpa, number of 4K pages, attributes",
        "0x4000000": "gpa 0x4000000 = gfn 0x4000"}),
    ("vcpu-1 [003] ....  1.0: kvm_hypercall: nr 0x5 a0 0x10 a1 0x10 a2 0x10 a3 0x0", {
        "0x5": "KVM_HC_KICK_CPU (0x5)", "0x10": None}),
    ("vcpu-1 [003] ....  1.0: kvm_userspace_exit: reason error (14)", {
        "14": "EFAULT (14), Bad address: KVM_EXIT_MEMORY_FAULT: the guest accessed a page the other way than its attribute "
              "says, or nothing "
              "backs it"}),
    ("vcpu-1 [003] ....  1.0: kvm_userspace_exit: reason error (133)", {
        "133": "EHWPOISON (133), Memory page has hardware error: KVM_EXIT_MEMORY_FAULT on a page with a hardware memory "
               "error"}),
    ("vcpu-1 [003] ....  1.0: kvm_userspace_exit: reason restart (4)", {
        "4": "EINTR (4), Interrupted system call: a signal or immediate_exit; no failure"}),
    ("vcpu-1 [003] ....  1.0: kvm_userspace_exit: reason 0x27 (39)", {
        "39": "KVM_EXIT_MEMORY_FAULT (39): the guest accessed a page the other way than its attribute says, or nothing backs "
              "it; KVM_RUN "
              "returns EFAULT or EHWPOISON with it, tracepoints show \"error (14)\""}),
    ("vcpu-1 [003] ....  1.0: kvm_userspace_exit: reason KVM_EXIT_IO (2)", {"2": "KVM_EXIT_IO (2)"}),
    ("vcpu-1 [003] d...  1.0: kvm_page_fault: vcpu 0 rip 0x0 address 0x0000000004000000 error_code 0x400000006", {
        "0x0000000004000000": "gpa 0x4000000 = gfn 0x4000", "0x400000006": "write, user, encrypted (private access)"}),
    ("VCPU-0-1 [078] ..... 1.0: kvm_page_fault: address 84d000 error_code 4", {"84d000": "gpa 0x84d000 = gfn 0x84d"}),
    ("vcpu-1 [003] ....  1.0: kvm_rmp_fault: vcpu 0 gpa 0000000004000000 pfn 0x56700 error_code 0x900000006 rmp_level 2 "
     "psmash_ret 3", {
        "0000000004000000": "gpa 0x4000000 = gfn 0x4000", "2": "2M (512 pages)"}),
    ("vcpu-1 [003] ....  1.0: kvm_vmgexit_enter: vcpu 0, exit_reason 80000010, exit_info1 0, exit_info2 0", {
        "80000010": "VMGEXIT_PSC (0x80000010): the guest asks for page state changes"}),
    ("vcpu-1 [003] ....  1.0: kvm_vmgexit_exit: vcpu 0, exit_reason 80000010, exit_info1 0, exit_info2 10000000000", {
        "10000000000": "page state change failed (generic error); entries before it stay changed"}),
    ("vcpu-1 [003] ....  1.0: kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0010000004000014", {
        "0010000004000014": "page state change to private, gfn 0x4000"}),
    ("vm-1 [059] ....   1.0: kvm_tdp_mmu_spte_changed: as id 0 gfn 800 level 2 old_spte 100b1b16827 new_spte "
     "80000000000005a0", {
        "800": "gfn 0x800 = gpa 0x800000", "100b1b16827": "present, leads to the table in host page pfn 0x100b1b16",
        "80000000000005a0": "frozen: a thread is zapping the entry"}),
    ("tdxvm-1 [065] ....   1.0: kvm_mmu_set_spte: gfn 1151b spte 86000080a5669b37 (rwxu) level 1 at 80b34fc8d8", {
        "86000080a5669b37": "present, maps host page pfn 0x80a5669"}),
    ("VCPU-0-1 [078] ..... 1.0: kvm_mmu_spte_requested: gfn 84d pfn 100b4a4d level 2", {
        "100b4a4d": "pfn 0x100b4a4d = host address 0x100b4a4d000"}),
    ("VCPU-0-1 [078] ..... 1.0: kvm_mmu_split_huge_page: gfn 800 spte 100b4a00ea7 level 2 errno 0", {
        "800": "gfn 0x800 = gpa 0x800000"}),
    ("VCPU-0-1 [078] ..... 1.0: kvm_exit: vcpu 0 reason TDCALL rip 0x0", {
        "TDCALL": "TDCALL (77): a TDVMCALL; a MapGPA is among them"}),
    ("vcpu-1 [0] .... 1.0: run_ret: (kvm_arch_vcpu_ioctl_run) ret=-14 exit=39 flags=0x8 gpa=0x100004000 size=0x1000", {
        "0x8": "0x8: the guest's access was private", "0x100004000": "gpa 0x100004000 = gfn 0x100004",
            "0x1000": "1 page (4 KiB)"}),
    # --- system calls
    ("77  ioctl(4, _IOC(_IOC_WRITE, 0xae, 0xd2, 0x20), 0x7ffe0) = -1 ENOTTY (Inappropriate ioctl for device)", {
        "_IOC(_IOC_WRITE, 0xae, 0xd2, 0x20)": "KVM_SET_MEMORY_ATTRIBUTES: makes a range of gpas private or shared",
        "ENOTTY": "ENOTTY (25), Inappropriate ioctl for device: this kernel has no memory attributes on VMs, or the file is "
                  "no VM"}),
    ("ioctl(13, 0x4020aed2, 0x7fc1) = 0", {"0x4020aed2": "KVM_SET_MEMORY_ATTRIBUTES: makes a range of gpas private or shared"}),
    ("77 16:02 ioctl(4<anon_inode:kvm-vm>, 0xc040aed4 /* _IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd4, 0x40) */, 0x7f) = 5 "
     "<0.000006>", {
        "0xc040aed4": "KVM_CREATE_GUEST_MEMFD: makes a guest_memfd; the result is its file descriptor"}),
    ("ioctl(6<anon_inode:kvm-vcpu:0>, KVM_RUN, 0) = -1 EFAULT (Bad address)", {
        "EFAULT": "EFAULT (14), Bad address: KVM_EXIT_MEMORY_FAULT: the guest accessed a page the other way than its "
                  "attribute says, or nothing "
                  "backs it"}),
    ("ioctl(8</[kvm-gmem]>(deleted), _IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd2, 0x80), 0x7ffc) = -1 EINVAL (Invalid argument)", {
        "_IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd2, 0x80)":
            "KVM_SET_MEMORY_ATTRIBUTES2: makes a range of a guest_memfd private or shared, in place"}),
    ("0.5 ( 0.003 ms): vmm/77 ioctl(fd: 4, cmd: (0xae, 0xd2, 0x1), arg: 0x7fff) = -1 ENOTTY (Inappropriate ioctl for device)", {
        "(0xae, 0xd2, 0x1)": "KVM_SET_MEMORY_ATTRIBUTES: makes a range of gpas private or shared"}),
    ("fallocate(13, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 1048576, 4096) = 0", {
        "FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE": "punch a hole: pages are freed, attributes stay",
        "1048576": "page indices [0x100,0x101), 1 page (4 KiB)"}),
    # --- QEMU
    ("kvm_convert_memory start 0x4000000 size 0x1000 shared_to_private", {
        "0x4000000": "gpa 0x4000000 = gfn 0x4000", "shared_to_private": "shared to private"}),
    ("77@1795000000.000001:kvm_memory_fault start 0x4000000 size 0x1000 flags 0x8", {
        "0x8": "0x8: the guest's access was private"}),
    ("qemu-system-x86_64: warning: memory fault: GPA 0x4000000 size 0x1000 flags 0x0", {
        "0x0": "0x0: the guest's access was shared, or a write to a read-only slot"}),
    ("kvm_hc_map_gpa_range gpa 0x4000000 size 0x1000 attributes 0x10 flags 0x1", {
        "0x10": "0x10 = to private (encrypted), page size 4K"}),
    ("78@1795000000.000001:kvm_run_exit cpu_index 0, reason 17", {
        "17": "KVM_EXIT_INTERNAL_ERROR (17): KVM could not go on; suberror and data say why"}),
    ("kvm_run_exit_system_event cpu_index 0, system_even_type 6", {
        "6": "KVM_SYSTEM_EVENT_SEV_TERM (6): an SEV guest ended itself"}),
    ("kvm_set_user_memory AddrSpace#0 Slot#1 flags=0x4 gpa=0x0 size=0x0 ua=0x7fb3 guest_memfd=9 guest_memfd_offset=0x0 ret=0", {
        "0x4": "0x4: KVM_MEM_GUEST_MEMFD"}),
    ("Convert non guest_memfd backed memory region (0xf0000 ,+ 0x1000) to shared", {
        "0xf0000": "gpa 0xf0000 = gfn 0xf0", "shared": "to shared"}),
    ("Convert non guest_memfd backed memory region (0xfed45000+0x1000) to private", {
        "0xfed45000": "gpa 0xfed45000 = gfn 0xfed45"}),
    ("failed to set memory (0x4000000+0x1000) with attr 0x8 error 'Cannot allocate memory'", {
        "0x8": "0x8 = private",



                    "Cannot allocate memory": "ENOMEM (12), Cannot allocate memory: no memory to reserve tree entries; "
                                              "nothing was unmapped, the "
                                  "attributes are as before"}),
    ("error: kvm run failed Input/output error", {
        "Input/output error": "EIO (5), Input/output error: the VM is dead or bugged (look in the kernel log for the first "
                              "failure), or the "
                              "caller is not the process that made it"}),
    ("KVM: unknown exit reason 24", {
        "24": "KVM_EXIT_SYSTEM_EVENT (24): the guest asks to be shut down, reset or ended; QEMU that does not "
                                           "know it says \"unknown exit reason 24\""}),
    ("KVM internal error. Suberror: 4", {
        "4": "KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON (4): data[0] is the hardware's exit reason, on TDX "
                                              "the module's status"}),
    ("extra data[0]: 0x8000020000000092", {"0x8000020000000092": "TDX_OPERAND_BUSY, operand SEPT"}),
    ("qemu: KVM_TDX_INIT_MEM_REGION failed Resource temporarily unavailable", {




                        "Resource temporarily unavailable": "EAGAIN (11), Resource temporarily unavailable: contention in "
                                                            "the secure EPT; transient, retry"}),
    ("SNP_LAUNCH_UPDATE ret=-5 fw_error=0 'x'", {"-5": "EIO (5), Input/output error"}),
    ("kvm_set_user_memory_region: KVM_SET_USER_MEMORY_REGION2 failed, slot=2, start=0xffc84000, size=0x37c000, flags=0x2, "
     "guest_memfd=-1, "
     "guest_memfd_offset=0x0: Invalid argument", {"0x2": "0x2: KVM_MEM_READONLY", "0x37c000": "892 pages (3568 KiB)"}),
    ("vfio_dma_map(0x3ea0, 0x40000000, 0x200000, 0x7f00) = -14 (Bad address)", {
        "-14": "EFAULT (14), Bad address: the backing cannot be pinned, e.g. it is private"}),
    ("kvm_sev_snp_launch_update src 0x7b8e0000 gpa 0xffc00000 len 0x400000 (Normal page)", {"0x400000": "1024 pages (4 MiB)"}),
    ("KVM_EXIT_MEMORY_FAULT: Unknown flag 0x10", {
        "0x10": "0x10: the guest's access was shared, or a write to a read-only slot; unknown bits 0x10"}),
    # --- others
    ("Unexpected exit reason on vcpu run: MemoryFault { flags: 8, gpa: 4096, size: 4096 }", {
        "8": "0x8: the guest's access was private", "4096": "gpa 0x1000 = gfn 0x1"}),
    ("Internal(Vm(CreateGuestMemfd(Error(13))))", {
        "13": "EACCES (13), Permission denied: refused by a security module (SELinux)"}),
    ("WARN  guest accessed inaccessible gpa, injecting MC gpa=0x666d9000 is_shared=false", {
        "0x666d9000": "gpa 0x666d9000 = gfn 0x666d9"}),
    ("SetMemorySharedOrPrivate: Cr3Base=0x0 Physical=0x4000000 Length=0x1000 Mode=Shared", {"Shared": "to shared"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), LINES, ids=[line[:60] for line, _ in LINES])
def test_a_form_is_recognised_and_its_words_mean_what_they_mean_there(line, expected):
    reading = read(line)
    assert reading.forms
    found = {}
    for word in reading.words:
        assert line[word.column - 1 :].startswith(word.text)
        found.setdefault(word.text, word.meanings[0].text)
    for text, meaning in expected.items():
        assert found.get(text) == meaning


def test_two_messages_on_one_line_are_both_read():
    reading = read(
        "warning: memory fault: GPA 0x4000000 size 0x1000 flags 0x8 kvm_convert_memory start 0x4000000 size 0x1000 "
        "shared_to_private"
    )
    assert [word.text for word in reading.words] == ["0x4000000", "0x1000", "0x8", "0x4000000", "0x1000", "shared_to_private"]
    assert len(reading.forms) == 2


def test_a_register_dump_tells_statuses_and_errnos_as_possibilities_and_nothing_else():
    reading = read("RAX: e000060400000000 RBX: fffffffffffffff4 RCX: ffffea00018a0000 RDX: 000000000000001d")
    assert [(word.text, word.meanings[0].text, word.certain) for word in reading.words] == [
        ("e000060400000000", "TDX_TD_FATAL", False),
        ("fffffffffffffff4", "ENOMEM (12), Cannot allocate memory", False),
    ]
    zeros = read("EAX=00000000 EBX=00000000 ECX=00000000 EDX=00800f12")
    assert zeros.forms
    assert zeros.words == ()


def test_an_intel_fault_word_has_two_readings_an_amd_one_has_one():
    two = read("x-1 [0] .... 1.0: kvm_page_fault: vcpu 0 rip 0x0 address 0x4000000 error_code 0x182").words[-1]
    assert [meaning.kind for meaning in two.meanings] == ["EPT violation", "page fault error code"]
    assert not two.certain
    one = read("x-1 [0] .... 1.0: kvm_page_fault: vcpu 0 rip 0x0 address 0x4000000 error_code 0x100000006").words[-1]
    assert [meaning.kind for meaning in one.meanings] == ["page fault error code"]


def test_in_a_line_of_no_form_only_words_that_cannot_be_anything_else_are_explained():
    reading = read("something gave EAGAIN after 14 tries, 0x8 and 0xc0000b0800000001, TDH_MEM_TRACK")
    assert not reading.forms
    assert [word.text for word in reading.words] == ["EAGAIN", "0xc0000b0800000001", "TDH_MEM_TRACK"]
    assert all(word.certain for word in reading.words)


@pytest.mark.parametrize(
    "line", ["Call Trace:", " <TASK>", "Linux 6.12.0-rc1-00082-g8461d8333829 #42", "at address: fffffffffffffffc"]
)
def test_a_line_without_anything_known_is_not_known(line):
    assert not read(line).known


def test_strace_names_an_ioctl_by_its_whole_number_so_there_is_no_doubt():
    call, error = read("ioctl(4<anon_inode:kvm-vm>, KVM_SET_MEMORY_ATTRIBUTES, 0x7ff) = -1 EFAULT (Bad address)").words
    assert call.certain
    assert call.meanings[0].text.startswith("KVM_SET_MEMORY_ATTRIBUTES:")
    assert "nothing was done" in error.meanings[0].text


def test_perf_trace_names_an_ioctl_by_type_and_number_so_a_guest_memfd_shows_another():
    vm = read("vmm/77 ioctl(fd: 4, cmd: KVM_SET_MEMORY_ATTRIBUTES, arg: 0x7ff) = -1 EFAULT (Bad address)")
    gmem = read("vmm/77 ioctl(fd: 8</[kvm-gmem]>, cmd: KVM_SET_MEMORY_ATTRIBUTES, arg: 0x7ff) = -1 EFAULT (Bad address)")
    assert not vm.words[0].certain
    assert vm.words[0].meanings[0].text.startswith("KVM_SET_MEMORY_ATTRIBUTES:")
    assert gmem.words[0].meanings[0].text.startswith("KVM_SET_MEMORY_ATTRIBUTES2:")
    assert "could not be written back" in gmem.words[1].meanings[0].text
    assert "could not be written back" not in vm.words[1].meanings[0].text
