"""What the program answers to logs, in a form that knows as little of the program as can be: texts, blames, verdicts, pages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from gmemstate.audit.history.history import History
from gmemstate.conclusions.host import host
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import CannotRead
from gmemstate.postmortem.incident import PostMortem
from gmemstate.postmortem.render import text
from tests.postmortem.telling import post_mortem_of
from tests.traces import read_file

KINDS_OF_GUESTS = {"plain VMs": "plain", "TDX guests": "tdx", "SEV-SNP guests": "snp"}


@dataclass(frozen=True)
class Answers:
    """The post-mortem and the gate of a record."""

    blames: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    told: str = ""
    """all of the post-mortem, blanks as one, lower case, without what was covered"""
    host: dict[str, str] = field(default_factory=lambda: dict.fromkeys(KINDS_OF_GUESTS.values(), "not known"))
    reasons: str = ""
    pages: int = 0
    """how many entries stand in the list of messed-up pages"""
    complete: bool = False
    refused: bool = False
    """no reader makes anything of it, and the program says so"""


def ask(*paths: Path) -> Answers:
    """All answers to some logs of one host."""
    try:
        if len(paths) == 1:
            read = read_file(paths[0])
            return answers(post_mortem_of(read), read.history)
        with TemporaryDirectory() as folder, Ledger.open(Path(folder) / "a.db", durable=False) as ledger:
            ledger.ingest(*paths)
            return answers(ledger.incidents(), ledger.history())
    except CannotRead:
        return Answers(refused=True)


def answers(found: PostMortem, history: History) -> Answers:
    """The answers that a post-mortem and a history give."""
    gate = host(history)
    return Answers(
        blames=tuple(str(incident.blame) for incident in found.incidents),
        titles=tuple(incident.title for incident in found.incidents),
        told=plain("\n".join([*(text.render(one, found.count) for one in found.incidents), found.silence or ""])),
        host={KINDS_OF_GUESTS[str(one.guests)]: str(one.verdict) for one in gate.answers if str(one.guests) in KINDS_OF_GUESTS},
        reasons=plain(" ".join(one.reason for one in gate.answers)),
        pages=len(gate.messed_up),
        complete=found.complete,
    )


def plain(words: str) -> str:
    """Words with one blank between them, in lower case; without names of files, which may say anything."""
    return re.sub(r"\S+\.log(?::[\d-]+(?:, [\d-]+)*)?", "FILE", " ".join(words.split())).lower()


def write(folder: Path, name: str, lines: Sequence[str]) -> Path:
    """A log as a file."""
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
