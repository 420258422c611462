"""Pictures of a state machine: Graphviz as Linux runtime verification reads it, and Mermaid."""

from collections.abc import Iterable

from gmemstate.model.machines.definition import Definition


def dot(definition: Definition) -> str:
    """The machine in the dialect of Graphviz that Linux runtime verification reads (tools/verification/rvgen).

    Its tools make C names of states and events: states have no brackets there, and several events on one arrow are separated
    by a line break.
    """
    lines = ["digraph state_automaton {", "\tcenter = true;", '\tsize = "7,11";']
    first = plain(definition.states[0])
    lines.append(f'\t{{node [shape = plaintext, style=invis, label=""] "__init_{first}"}};')
    lines += [f'\t{{node [shape = doublecircle] "{plain(state)}"}};' for state in definition.final]
    lines += [f'\t{{node [shape = circle] "{plain(state)}"}};' for state in definition.states]
    lines.append(f'\t"__init_{first}" -> "{first}";')
    for a, b, label in _arrows(definition):
        events = label.replace(", ", "\\n")
        lines.append(f'\t"{plain(a)}" -> "{plain(b)}" [ label = "{events}" ];')
    return "\n".join([*lines, "}"])


def plain(state: str) -> str:
    """The name of a state as an identifier: ``zapping_shared_private`` for ``zapping(shared>private)``."""
    return state.rstrip(")").replace("(", "_").replace(">", "_")


def mermaid(definition: Definition) -> str:
    """The machine as a Mermaid state diagram, without the triggers that change nothing."""
    names = {state: f"s{code}" for code, state in enumerate(definition.states)}
    lines = ["stateDiagram-v2", f"    [*] --> {names[definition.states[0]]}"]
    lines += [f"    {names[state]}: {state}" for state in definition.states]
    lines += [f"    {names[a]} --> {names[b]}: {label}" for a, b, label in _arrows(definition) if a != b]
    lines += [f"    {names[state]} --> [*]" for state in definition.final]
    return "\n".join(lines)


def _arrows(definition: Definition) -> Iterable[tuple[str, str, str]]:
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, trigger, dest in definition.transitions():
        arrows.setdefault((state, dest), []).append(trigger)
    return ((a, b, ", ".join(labels)) for (a, b), labels in arrows.items())
