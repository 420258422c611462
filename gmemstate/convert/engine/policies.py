"""What follows when pages cannot be unmapped: the answers of the review threads."""

from enum import StrEnum

from gmemstate.model.events import Dialect


class Policy(StrEnum):
    """What guest_memfd learns of a failed unmap, and what it does then."""

    UNINFORMED = "uninformed"
    """TDX takes a reference and tells nobody (the mail: the next conversion will just spin)"""
    HOLD_AND_DROP = "hold-and-drop"
    """guest_memfd keeps the reference and drops the page from the filemap (the mail)"""
    TRACK = "track"
    """the address is noted as messed up and checked at every later conversion (the mail)"""
    BUG_VM = "bug-vm"
    """KVM_BUG_ON and nothing else: what upstream adopted on 2025-10-30"""
    HWPOISON = "hwpoison"
    """the page is marked as poisoned (the alternative of 2025-06-24)"""
    LEAVE = "leave"
    """the users answer; those that unmapped before one refused are left without their mappings"""
    MAP_AGAIN = "map-again"
    """the users answer; those that unmapped before one refused are asked to map again (the mail)"""


POLICIES = {
    Dialect.MAINLINE: (Policy.BUG_VM,),
    Dialect.RFC_V2: (Policy.UNINFORMED, Policy.HOLD_AND_DROP, Policy.TRACK, Policy.BUG_VM, Policy.HWPOISON),
    Dialect.INPLACE: (Policy.BUG_VM,),
    Dialect.CHECK_FIRST: (Policy.HOLD_AND_DROP, Policy.TRACK, Policy.BUG_VM, Policy.HWPOISON),
    Dialect.NOTIFY: (Policy.LEAVE, Policy.MAP_AGAIN),
}
"""The policies that a dialect can have. In the others guest_memfd has no way to learn of the failure, or nothing to spin on."""

DIALECT_NAMES = {dialect.word: dialect for dialect in POLICIES}


def usual_policy(dialect: Dialect) -> Policy:
    """The policy of a dialect unless another is named: what upstream does where it can do it."""
    return Policy.BUG_VM if Policy.BUG_VM in POLICIES[dialect] else POLICIES[dialect][0]
