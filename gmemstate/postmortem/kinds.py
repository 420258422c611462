"""The kinds of incidents."""

from enum import StrEnum


class Kind(StrEnum):
    """What an incident is about."""

    PARTLY_APPLIED = "partly applied"
    NOT_AS_TOLD = "told success, not applied"
    REQUEST_REFUSED = "request refused"
    REFUSED_THEN_APPLIED = "not applied, then applied"
    NOT_APPLIED = "not applied"
    REJECTED = "refused by the argument checks"
    NO_MEMORY_BEHIND = "private without memory"
    POISON = "memory error"
    LOST_RACE = "a fault lost a race"
    STOPPED = "guest stopped at a page"
    KILLED = "killed inside a conversion"
    OUT_OF_MEMORY = "VMM killed for want of memory"
    RESULT_UNSEEN = "result not seen"
    SLOT_SWAP = "private memory replaced"
    DISTRUSTED = "host page not to be trusted"
    GIVEN_AWAY = "bad page given away"
    FINDING = "impossible history"
    CONTRADICTION = "witnesses disagree"
    VM_DEAD = "VM dead"
    HOST_FAULT = "host touched a guest's page"
    VMM_SAID = "VMM reports a failure"
    REPORTED = "kernel reports a failure"
    UNRELATED = "said beside"
