"""Scenarios: who uses which pages, what is asked, what goes wrong, and what must come of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gmemstate.convert.engine import users
from gmemstate.convert.engine.ioctl import Setting
from gmemstate.convert.engine.policies import Policy
from gmemstate.convert.scenario.tables import PageRun
from gmemstate.model.events import Dialect

USERS: dict[str, Callable[..., users.Mapper | users.Holder]] = {
    "host": users.host,
    "guest": users.guest,
    "iommu": users.iommu,
    "pin": users.pin,
    "reference": users.reference,
    "lru batch": users.lru_batch,
}
MAPPING = ("host", "guest", "iommu")
"""The users that map pages and are notified; the others hold references."""


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

    def make(self) -> users.Mapper | users.Holder:
        """A fresh user."""
        pages = _pages(self.pages)
        if self.kind in MAPPING:
            refused = frozenset(_pages(self.refused or self.pages)) if self.refuses != 0 else frozenset()
            return USERS[self.kind](self.name, pages, refuses=self.refuses, refused=refused)
        return USERS[self.kind](self.name, pages, *([self.checks] if self.kind == "reference" else []))


class MemslotSpec(NamedTuple):
    """Gfns of a guest, and the guest_memfd that backs them (0: none) from ``page`` on; ``npages`` 0 deletes the slot."""

    slot: int
    gfn: int
    npages: int
    page: int = 0
    vm: int = 1
    gmem: int = 1


@dataclass(frozen=True, slots=True)
class Scenario:
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

    @property
    def has_policies(self) -> bool:
        """Whether it matters what guest_memfd learns of a private page that cannot be unmapped."""
        return any(fault["at"] == "private_unmap" for fault in self.faults)

    def expected(self, dialect: Dialect, policy: Policy) -> dict[str, Any]:
        """What must come of it: what is said of all, then of the dialect, then of the policy."""
        facts: dict[str, Any] = {}
        for key in ((None, None), (dialect.word, None), (dialect.word, policy.value)):
            facts |= self.expect.get(key, {})
        return facts


def _pages(runs: Iterable[PageRun]) -> set[int]:
    return {page for start, end in runs for page in range(start, end)}
