"""The flight recorder, auditor and reference model of guest_memfd shared/private conversions.

:func:`open` opens a ledger, :func:`read` a ledger or an export that is only read; :class:`Queries` has what both can be asked.
What is named here is public. Each name is loaded when it is first asked for: ``import gmemstate`` loads no database.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from gmemstate._version import __version__ as __version__

if TYPE_CHECKING:
    from gmemstate.audit.check.check import Checked as Checked
    from gmemstate.audit.check.check import Checkpoint as Checkpoint
    from gmemstate.audit.check.problems import Problem as Problem
    from gmemstate.audit.diff import Change as Change
    from gmemstate.audit.diff import Diff as Diff
    from gmemstate.audit.diff import Divergence as Divergence
    from gmemstate.audit.events import RecordedEvent as RecordedEvent
    from gmemstate.audit.invariants.catalogue import Invariant as Invariant
    from gmemstate.audit.invariants.checker import Breach as Breach
    from gmemstate.audit.invariants.checker import InvariantOutcome as InvariantOutcome
    from gmemstate.audit.invariants.checker import InvariantResult as InvariantResult
    from gmemstate.audit.queries.conversions import AppliedRow as AppliedRow
    from gmemstate.audit.queries.conversions import ConversionRow as ConversionRow
    from gmemstate.audit.queries.conversions import Corroboration as Corroboration
    from gmemstate.audit.queries.conversions import ResidueRow as ResidueRow
    from gmemstate.audit.queries.evidence import Lines as Lines
    from gmemstate.audit.queries.messed_up import MessedUpRow as MessedUpRow
    from gmemstate.audit.queries.requests import Note as Note
    from gmemstate.audit.queries.requests import RequestRow as RequestRow
    from gmemstate.audit.queries.state import StateRow as StateRow
    from gmemstate.audit.queries.state import Unbacked as Unbacked
    from gmemstate.audit.queries.status import Clock as Clock
    from gmemstate.audit.queries.status import GmemStatus as GmemStatus
    from gmemstate.audit.queries.status import GuestStatus as GuestStatus
    from gmemstate.audit.queries.status import SourceStatus as SourceStatus
    from gmemstate.audit.queries.status import Status as Status
    from gmemstate.audit.queries.why import Backing as Backing
    from gmemstate.audit.queries.why import LastWriter as LastWriter
    from gmemstate.audit.queries.why import Mark as Mark
    from gmemstate.audit.queries.why import Why as Why
    from gmemstate.audit.replay import Replayed as Replayed
    from gmemstate.audit.transitions import Step as Step
    from gmemstate.conclusions.conclusion import Conclusion as Conclusion
    from gmemstate.conclusions.conclusion import Mended as Mended
    from gmemstate.conclusions.conclusion import Predicate as Predicate
    from gmemstate.conclusions.conclusion import Subject as Subject
    from gmemstate.conclusions.conclusion import SubjectKind as SubjectKind
    from gmemstate.conclusions.guests import Guests as Guests
    from gmemstate.conclusions.host import Check as Check
    from gmemstate.conclusions.host import HostAnswer as HostAnswer
    from gmemstate.conclusions.host import MayStart as MayStart
    from gmemstate.conclusions.host import StartVerdict as StartVerdict
    from gmemstate.convert.engine.ioctl import Fault as Fault
    from gmemstate.convert.engine.ioctl import Setting as Setting
    from gmemstate.convert.engine.policies import Policy as Policy
    from gmemstate.convert.engine.users import PageUser as PageUser
    from gmemstate.convert.engine.users import UnmapAnswer as UnmapAnswer
    from gmemstate.convert.scenario.definition import Scenario as Scenario
    from gmemstate.convert.scenario.run import Difference as Difference
    from gmemstate.convert.simulation.facts import ScenarioFacts as ScenarioFacts
    from gmemstate.decode.errnos import errno_name as errno_name
    from gmemstate.decode.meaning import Meaning as Meaning
    from gmemstate.ingest.input import Account as Account
    from gmemstate.ledger.convert import ConversionResult as ConversionResult
    from gmemstate.ledger.convert import Outcome as Outcome
    from gmemstate.ledger.convert import Resolution as Resolution
    from gmemstate.ledger.explain import MachineName as MachineName
    from gmemstate.ledger.explain import dot as dot
    from gmemstate.ledger.explain import explain as explain
    from gmemstate.ledger.explain import machine as machine
    from gmemstate.ledger.explain import mermaid as mermaid
    from gmemstate.ledger.ledger import Ledger as Ledger
    from gmemstate.ledger.ledger import open as open  # noqa: A004
    from gmemstate.ledger.ledger import restore as restore
    from gmemstate.ledger.queries import Export as Export
    from gmemstate.ledger.queries import Pages as Pages
    from gmemstate.ledger.queries import Queries as Queries
    from gmemstate.ledger.queries import When as When
    from gmemstate.ledger.range import Moved as Moved
    from gmemstate.ledger.range import RangeMachine as RangeMachine
    from gmemstate.ledger.reading import read as read
    from gmemstate.ledger.simulate import ScenarioOutcome as ScenarioOutcome
    from gmemstate.ledger.simulate import scenarios as scenarios
    from gmemstate.ledger.simulate import simulate as simulate
    from gmemstate.ledger.source import Ingested as Ingested
    from gmemstate.ledger.source import Refused as Refused
    from gmemstate.messages.reading import Explanation as Explanation
    from gmemstate.messages.reading import Form as Form
    from gmemstate.messages.reading import Word as Word
    from gmemstate.model.document import Answer as Answer
    from gmemstate.model.document import Document as Document
    from gmemstate.model.document import Json as Json
    from gmemstate.model.document import Listing as Listing
    from gmemstate.model.errors import BadEvent as BadEvent
    from gmemstate.model.errors import CannotRead as CannotRead
    from gmemstate.model.errors import CannotWrite as CannotWrite
    from gmemstate.model.errors import Conflict as Conflict
    from gmemstate.model.errors import GmemstateError as GmemstateError
    from gmemstate.model.errors import NotALedger as NotALedger
    from gmemstate.model.errors import PageUserFailed as PageUserFailed
    from gmemstate.model.errors import SourceChanged as SourceChanged
    from gmemstate.model.errors import UsageError as UsageError
    from gmemstate.model.events import Cause as Cause
    from gmemstate.model.events import Dialect as Dialect
    from gmemstate.model.events import Event as Event
    from gmemstate.model.events import RequestPath as RequestPath
    from gmemstate.model.events import Through as Through
    from gmemstate.model.events import User as User
    from gmemstate.model.findings import Finding as Finding
    from gmemstate.model.findings import Severity as Severity
    from gmemstate.model.machines.definition import Definition as Definition
    from gmemstate.model.objects import Trigger as Trigger
    from gmemstate.model.record import Head as Head
    from gmemstate.model.units import U64 as U64
    from gmemstate.model.units import Direction as Direction
    from gmemstate.model.units import Gfn as Gfn
    from gmemstate.model.units import Gpa as Gpa
    from gmemstate.model.units import Ns as Ns
    from gmemstate.model.units import Page as Page
    from gmemstate.model.units import PageIndex as PageIndex
    from gmemstate.model.units import PageRange as PageRange
    from gmemstate.model.units import Pfn as Pfn
    from gmemstate.model.units import Unit as Unit
    from gmemstate.model.units import duration as duration
    from gmemstate.model.units import seconds as seconds
    from gmemstate.model.units import span as span
    from gmemstate.model.verdict import Basis as Basis
    from gmemstate.model.verdict import Label as Label
    from gmemstate.postmortem.incident import Blame as Blame
    from gmemstate.postmortem.incident import Incident as Incident
    from gmemstate.postmortem.incident import IncidentKind as IncidentKind
    from gmemstate.postmortem.incident import PostMortem as PostMortem
    from gmemstate.postmortem.render.html import page as page
    from gmemstate.postmortem.render.text import report as report
else:
    _PUBLIC = {
        "decode.errnos": "errno_name",
        "postmortem.render.html": "page",
        "postmortem.render.text": "report",
        "decode.meaning": "Meaning",
        "messages.reading": "Explanation Form Word",
        "model.machines.definition": "Definition",
        "ledger.explain": "MachineName dot explain machine mermaid",
        "ingest.input": "Account",
        "ledger.source": "Ingested Refused",
        "convert.scenario.run": "Difference",
        "convert.scenario.definition": "Scenario",
        "convert.simulation.facts": "ScenarioFacts",
        "audit.check.check": "Checked Checkpoint",
        "audit.check.problems": "Problem",
        "audit.invariants.catalogue": "Invariant",
        "audit.invariants.checker": "Breach InvariantOutcome InvariantResult",
        "audit.replay": "Replayed",
        "audit.transitions": "Step",
        "audit.events": "RecordedEvent",
        "audit.queries.conversions": "AppliedRow ConversionRow Corroboration ResidueRow",
        "audit.queries.evidence": "Lines",
        "audit.queries.messed_up": "MessedUpRow",
        "audit.queries.requests": "Note RequestRow",
        "audit.queries.state": "StateRow Unbacked",
        "audit.queries.status": "Clock GmemStatus GuestStatus SourceStatus Status",
        "conclusions.conclusion": "Conclusion Mended Predicate Subject SubjectKind",
        "conclusions.guests": "Guests",
        "conclusions.host": "Check HostAnswer MayStart StartVerdict",
        "convert.engine.ioctl": "Fault Setting",
        "convert.engine.policies": "Policy",
        "convert.engine.users": "PageUser UnmapAnswer",
        "ledger.convert": "ConversionResult Outcome Resolution",
        "ledger.ledger": "Ledger open restore",
        "ledger.queries": "Export Pages Queries When",
        "ledger.reading": "read",
        "ledger.range": "Moved RangeMachine",
        "ledger.simulate": "ScenarioOutcome scenarios simulate",
        "postmortem.incident": "Blame Incident IncidentKind PostMortem",
        "audit.diff": "Change Diff Divergence",
        "audit.queries.why": "Backing LastWriter Mark Why",
        "model.document": "Answer Document Json Listing",
        "model.errors": "BadEvent CannotRead CannotWrite Conflict GmemstateError NotALedger PageUserFailed SourceChanged "
        "UsageError",
        "model.events": "Cause Dialect Event RequestPath Through User",
        "model.findings": "Finding Severity",
        "model.objects": "Trigger",
        "model.record": "Head",
        "model.units": "Direction duration seconds span Gfn Gpa Ns Page PageIndex PageRange Pfn U64 Unit",
        "model.verdict": "Basis Label",
    }
    _MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}

    def __getattr__(name):
        """Load the module of a public name."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"gmemstate.{_MODULE_OF[name]}"), name)

    def __dir__():
        """All public names."""
        return ["__version__", *_MODULE_OF]
