"""Which function takes which fact: the rooms of the join, put together."""

from gmemstate.ingest import calls, guests, psc, reports, slots, snp_reports, syscalls, tdx_reports, touches, vmm_reports
from gmemstate.ingest.tracker import Handler

HANDLERS: dict[str, Handler] = {
    name: handler
    for room in (calls, guests, psc, slots, touches, reports, tdx_reports, snp_reports, syscalls, vmm_reports)
    for name, handler in room.HANDLERS.items()
}
