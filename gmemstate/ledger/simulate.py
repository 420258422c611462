"""Scenarios played under dialects and policies: what the library and the command line know of the simulation."""

from collections.abc import Iterator
from pathlib import Path

from gmemstate.convert.engine.dialects import SOURCES
from gmemstate.convert.engine.policies import DIALECT_NAMES, POLICIES, Policy, usual_policy
from gmemstate.convert.scenario.definition import Scenario
from gmemstate.convert.scenario.load import catalogue, load
from gmemstate.convert.scenario.run import ScenarioOutcome, pairs, run
from gmemstate.convert.scenario.story import step, story
from gmemstate.model.document import Listing
from gmemstate.model.errors import UsageError
from gmemstate.model.events import Dialect
from gmemstate.model.linux import PAGE_SHIFT

__all__ = ["DIALECT_NAMES", "POLICIES", "SOURCES", "Listing", "Policy", "Scenario", "ScenarioOutcome", "scenarios", "simulate"]
__all__ += ["PAGE_SHIFT", "step", "story", "usual_policy"]


def scenarios() -> Iterator[Scenario]:
    """The scenarios that come with the program, in the order in which they are listed."""
    return map(load, catalogue())


def simulate(
    scenario: Scenario | str | Path, dialect: Dialect | None = None, policy: Policy | None = None
) -> Listing[ScenarioOutcome]:
    """Play a scenario, a file, or one of the catalogue by its name or an id in it.

    Without a dialect or policy it is played under all that it is about. Raises BadScenario for a file that cannot be read,
    UsageError for a policy that none of its dialects can have.
    """
    found = scenario if isinstance(scenario, Scenario) else load(str(scenario))
    wanted = pairs(found)
    if dialect is not None and (lack := found.lacks(dialect)):
        raise UsageError(f"{found.name} cannot be played under {dialect.word}: {lack}")
    if dialect is not None:
        wanted = [pair for pair in wanted if pair[0] is dialect] or [(dialect, each) for each in found.policies_of(dialect)]
    if policy is not None:
        kinds = dict.fromkeys(kind for kind, _ in wanted)
        wanted = [(kind, policy) for kind in kinds if policy in POLICIES[kind]]
        if not wanted:
            names = ", ".join(kind.word for kind in kinds)
            raise UsageError(f"{names} cannot have the policy {policy}: guest_memfd does not learn of the failure there")
    return Listing(tuple(run(found, *pair) for pair in wanted))
