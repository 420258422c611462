"""Which function takes which fact: the rooms of the join, put together."""

from gmemstate.ingest.correlate import (
    conversions as calls,
)
from gmemstate.ingest.correlate import (
    exits as guests,
)
from gmemstate.ingest.correlate import (
    faults as touches,
)
from gmemstate.ingest.correlate import (
    kernel_reports as reports,
)
from gmemstate.ingest.correlate import (
    memslots as slots,
)
from gmemstate.ingest.correlate import (
    psc,
    syscalls,
)
from gmemstate.ingest.correlate import (
    snp as snp_reports,
)
from gmemstate.ingest.correlate import (
    tdx as tdx_reports,
)
from gmemstate.ingest.correlate import (
    vmm as vmm_reports,
)
from gmemstate.ingest.correlate.tracker import Handler

HANDLERS: dict[str, Handler] = {
    name: handler
    for room in (calls, guests, psc, slots, touches, reports, tdx_reports, snp_reports, syscalls, vmm_reports)
    for name, handler in room.HANDLERS.items()
}
