"""From facts to events: who is who in a log, and what its lines amount to. Each module registers the handlers of its facts."""

from gmemstate.ingest.correlate import (  # noqa: F401
    conversion_steps,
    conversions,
    exits,
    faults,
    kernel_lines,
    kernel_reports,
    memslots,
    psc,
    snp,
    syscalls,
    tdx,
    vmm,
)
