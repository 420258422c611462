"""JSON Schemas of what verbs print, made from the annotations and docstrings of the documents that they are."""

import ast
import inspect
import json
import textwrap
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import gmemstate
from gmemstate import Listing
from gmemstate.audit.events import RecordedEvent, event_facts
from gmemstate.cli.help import HelpPage
from gmemstate.model import events as e
from gmemstate.model.document import HEXADECIMAL, SCHEMA, Document, Pairs, annotations
from gmemstate.model.units import Ns
from tests.store.places import ROOT

FOLDER = ROOT / "gmemstate" / "schemas"
HEX = {"type": "string", "pattern": "^0x(0|[1-9a-f][0-9a-f]{0,15})$"}
NS = {"type": "string", "pattern": "^-?[0-9]+$"}
PLAIN = {int: "integer", str: "string", bool: "boolean", float: "number", NoneType: "null"}
Schema = dict[str, Any]

ANSWERS: dict[str, Any] = {
    "conversions": Listing[gmemstate.ConversionRow],
    "requests": Listing[gmemstate.RequestRow],
    "state": Listing[gmemstate.StateRow],
    "messed-up": Listing[gmemstate.MessedUpRow],
    "events": gmemstate.RecordedEvent,
    "status": gmemstate.Status,
    "why": gmemstate.Why,
    "diff": gmemstate.Diff,
    "postmortem": gmemstate.PostMortem,
    "host": gmemstate.HostAnswer,
    "check": gmemstate.Checked,
    "replay": gmemstate.Replayed,
    "replay-steps": gmemstate.Step,
    "simulate": Listing[gmemstate.ScenarioOutcome],
    "machine": gmemstate.Definition,
    "decode": Listing[gmemstate.Explanation],
    "convert": gmemstate.ConversionResult,
    "help": Listing[HelpPage],
    "ingest": Listing[gmemstate.Ingested | gmemstate.Refused],
}
"""What each verb prints; of ``events`` and ``replay --steps`` each line."""


def schema(verb: str, answer: Any) -> str:
    """The schema of what a verb prints: ``answer`` is a document, or a listing of documents."""
    made = Maker()
    root = made.of(answer)
    name = root["$ref"].rpartition("/")[2]
    body = made.defs.pop(name)
    body["properties"] = {"schema": {"const": SCHEMA}, **body["properties"]}
    body["required"] = ["schema", *body["required"]]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"gmemstate {verb} --json"}
    return json.dumps({**head, **body, **({"$defs": made.defs} if made.defs else {})}, indent=1, ensure_ascii=False) + "\n"


class Maker:
    """Makes schemas of annotations; ``defs`` are the documents that they name."""

    def __init__(self) -> None:
        self.defs: dict[str, Schema] = {}

    def of(self, hint: Any) -> Schema:
        """The schema of a value of an annotation."""
        origin, args = get_origin(hint), get_args(hint)
        if hint in HEXADECIMAL:
            return HEX
        if hint is Ns:
            return NS
        if hint in PLAIN:
            return {"type": PLAIN[hint]}
        if origin in (Union, UnionType):
            return {"anyOf": [self.of(arg) for arg in args]}
        if origin is Literal:
            return {"enum": list(args)}
        if hint == Pairs:
            return {"type": "object", "additionalProperties": {"type": "string"}}
        if origin is tuple and args[-1] is not ...:
            return {"type": "array", "prefixItems": [self.of(arg) for arg in args], "items": False}
        if origin in (tuple, list):
            return {"type": "array", "items": self.of(args[0])}
        if origin is Counter:
            return {"type": "object", "additionalProperties": {"type": "integer"}}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.of(args[1])}
        if isinstance(hint, type) and issubclass(hint, Enum):
            return {"enum": [word(one) for one in hint]}
        if hint in (object, Any):
            return {}
        return self.document(origin or hint, args)

    def document(self, kind: type[Any], args: tuple[Any, ...]) -> Schema:
        """A reference to the schema of a document."""
        assert issubclass(kind, Document) or hasattr(kind, "_fields"), f"{kind} is not written as JSON"
        if kind.__name__ not in self.defs:
            self.defs[kind.__name__] = {}  # it may hold others of its own kind
            said = comments(kind)
            parameters = dict(zip(getattr(kind, "__parameters__", ()), args, strict=True))
            properties = event() if kind is RecordedEvent else {}
            for name, hint in annotations(kind).items() if kind is not RecordedEvent else ():
                about = {"description": said[name]} if name in said else {}
                properties[name] = {**about, **self.of(filled(hint, parameters))}
            required = ["seq", "kind", "text", "evidence"] if kind is RecordedEvent else list(properties)
            self.defs[kind.__name__] = {
                "description": first(kind.__doc__), "type": "object", "properties": properties, "required": required,
                "additionalProperties": False,
            }  # fmt: skip
        return {"$ref": f"#/$defs/{kind.__name__}"}


def filled(hint: Any, parameters: Mapping[Any, Any]) -> Any:
    """An annotation with its type variables filled in."""
    if isinstance(hint, TypeVar):
        return parameters[hint]
    return hint[tuple(parameters[one] for one in hint.__parameters__)] if getattr(hint, "__parameters__", ()) else hint


def word(member: Enum) -> str:
    """How a word of an enumeration is written."""
    return str(getattr(member, "word", member.name.lower())) if isinstance(member.value, int) else str(member.value)


def first(text: str | None) -> str:
    """The first paragraph of a docstring, without the marks of its markup."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split()).replace("``", "`")


@cache
def comments(kind: type[Any]) -> dict[str, str]:
    """What is said of the fields and properties of a class: the string behind each, or its docstring."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {one.name: first(ast.get_docstring(one)) for one in body.body if isinstance(one, ast.FunctionDef)}
    for field, said in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = first(str(said.value.value))
    return found


@cache
def event() -> dict[str, Schema]:
    """The keys that events have: each kind has some of them."""
    found: dict[str, list[Schema]] = {}
    for kind in e.kinds():
        for name in kind.columns:
            if name == "detail":
                of: Schema = {"type": "object"}
            elif name in kind.enums:
                of = {"enum": [word(one) for one in kind.enums[name]]}
            else:
                given = event_facts(1, kind(**{**dict.fromkeys(kind.columns), name: 1}))[name]
                of = {"type": "integer"} if given == 1 else NS if given == "1" else HEX
            if of not in found.setdefault(name, []):
                found[name].append(of)
    said = comments(RecordedEvent)
    return {
        "seq": {"type": "integer"},
        "kind": {"enum": sorted(e.BY_NAME)},
        **{name: several[0] if len(several) == 1 else {"anyOf": several} for name, several in sorted(found.items())},
        "text": {"description": said["text"], "type": "string"},
        "evidence": {"description": said["evidence"], "anyOf": [{"type": "string"}, {"type": "null"}]},
    }
