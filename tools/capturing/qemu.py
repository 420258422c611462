"""Which trace events of QEMU show conversions; the others say nothing that `gmemstate ingest` reads."""

EVENTS = (
    "kvm_convert_memory",
    "kvm_memory_fault",
    "kvm_hc_map_gpa_range",
    "kvm_set_user_memory",
    "kvm_run_exit_system_event",
    "ram_block_attributes_state_change",
    "ram_block_discard_range",
    "ram_block_discard_shared_range",
    "kvm_sev_snp_launch_update",
    "kvm_sev_launch_finish",
    "runstate_set",
)

TEXT = """\
# Give these to qemu-system-x86_64; all it says is then in qemu.log, with times that can be compared with the kernel's.
# An event that this QEMU does not have is warned about and left out.
{options}
  -msg timestamp=on,guest-name=on -D qemu.log
"""


def options() -> str:
    """The options, as they stand on a command line."""
    return TEXT.format(options=" \\\n".join(f"  -trace {event}" for event in EVENTS) + " \\")
