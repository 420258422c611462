"""Scenarios: who uses which pages, what is asked, what goes wrong, and what must come of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from gmemstate.convert.engine import users
from gmemstate.convert.engine.ioctl import Setting
from gmemstate.convert.engine.policies import POLICIES, Policy, usual_policy
from gmemstate.convert.scenario.tables import PageRun
from gmemstate.model.document import Document
from gmemstate.model.events import Dialect

MAPPERS: dict[str, Callable[..., users.Mapper]] = {"host": users.host, "guest": users.guest, "iommu": users.iommu}
"""The users that map pages and are notified."""
HOLDERS: dict[str, Callable[..., users.Holder]] = {"pin": users.pin, "reference": users.reference, "lru batch": users.lru_batch}
"""The users that hold references."""


@dataclass(frozen=True, slots=True)
class UserSpec:
    """A user of pages, as a scenario names it."""

    name: str
    kind: str
    pages: tuple[PageRun, ...]
    gmem: int = 1
    refuses: int | None = 0
    refused: tuple[PageRun, ...] = ()
    checks: int | None = None
    maps_again: int | None = 0

    def make(self) -> users.Mapper | users.Holder:
        """A fresh user."""
        pages = _pages(self.pages)
        if self.kind in MAPPERS:
            refused = frozenset(_pages(self.refused or self.pages)) if self.refuses != 0 else frozenset()
            made = MAPPERS[self.kind](self.name, pages, refuses=self.refuses, refused=refused)
            made.maps_again = self.maps_again
            return made
        return HOLDERS[self.kind](self.name, pages, *([self.checks] if self.kind == "reference" else []))


class MemslotSpec(NamedTuple):
    """Gfns of a guest, and the guest_memfd that backs them (0: none) from ``page`` on; ``npages`` 0 deletes the slot."""

    slot: int
    gfn: int
    npages: int
    page: int = 0
    vm: int = 1
    gmem: int = 1


@dataclass(frozen=True, slots=True)
class Scenario(Document):
    """What a file says; ``steps`` are ``(verb, what, options)``, ``expect`` maps ``(dialect, policy)`` (None: any) to facts."""

    name: str
    title: str
    about: str
    source: str
    setting: Setting
    pages: int
    starts: str
    exceptions: tuple[PageRun, ...]
    allocated: tuple[PageRun, ...]
    memslots: tuple[MemslotSpec, ...]
    users: tuple[UserSpec, ...]
    faults: tuple[dict[str, Any], ...]
    steps: tuple[tuple[str, Any, dict[str, Any]], ...]
    dialects: tuple[Dialect, ...]
    policies: tuple[Policy, ...]
    expect: dict[tuple[str | None, str | None], dict[str, Any]] = field(default_factory=dict)

    written: ClassVar = ("name", "title", "source")

    def policies_of(self, dialect: Dialect) -> tuple[Policy, ...]:
        """The policies of a dialect that can matter here: where a private page cannot be unmapped, or a user's word counts."""
        asked = self.policies or POLICIES[dialect]
        possible = tuple(policy for policy in POLICIES[dialect] if policy in asked)
        refused = dialect is Dialect.NOTIFY and any(user.refuses != 0 for user in self.users)
        if refused or any(fault["at"] == "private_unmap" for fault in self.faults):
            return possible
        return (usual_policy(dialect),)

    @property
    def has_policies(self) -> bool:
        """Whether policies make a difference under one of its dialects."""
        return any(len(self.policies_of(dialect)) > 1 for dialect in self.dialects)

    def lacks(self, dialect: Dialect) -> str | None:
        """What the scenario uses and a dialect does not have, in words; None if it has everything."""
        if dialect is not Dialect.NOTIFY:
            return None
        held = next((user for user in self.users if user.kind in HOLDERS), None)
        return None if held is None else f"{held.name} is a {held.kind}, and pages without struct page have no references"

    def expected(self, dialect: Dialect, policy: Policy) -> dict[str, Any]:
        """What must come of it: what is said of all, then of the dialect, then of the policy."""
        facts: dict[str, Any] = {}
        for key in ((None, None), (dialect.word, None), (dialect.word, policy.value)):
            facts |= self.expect.get(key, {})
        return facts


def _pages(runs: Iterable[PageRun]) -> set[int]:
    return {page for start, end in runs for page in range(start, end)}
