"""What a ledger holds, at a glance."""

from typing import Any

from gmemstate.audit.history import History
from gmemstate.model.events import details
from gmemstate.model.record import Head


def summary(where: str, head: Head, history: History) -> dict[str, Any]:
    """Facts about a ledger, by name."""
    memory = history.memory
    return {
        "ledger": where,
        "events": head.seq,
        "head": head.hash.hex(),
        "sources": [
            f"{source.name} ({source.format}): {source.account.get('lines', '?')} lines" for source in history.sources.values()
        ],
        "guests": [
            f"{vm.name} ({details(vm.detail).get('comm', '?')} {vm.thread})" + (f", {vm.gone}" if vm.gone else "")
            for vm in memory.vms.values()
        ],
        "conversions": len(history.conversions),
        "requests": len(history.requests),
        "messed up": sum(entry.state != "cleared" for entry in memory.messed_up.values()),
        "durability": "recorded and followed events, and pipes: every commit (synchronous FULL); "
        "ingested files: at the end, as they can be read again",
    }
