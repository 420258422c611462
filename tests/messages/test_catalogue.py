"""The catalogue of messages: ``decode`` explains each example, and the readers make the fact of it, by its own entry."""

import pytest

from gmemstate.ingest.correlate.tracker import HANDLERS
from gmemstate.ingest.fact import Fact
from gmemstate.ingest.readers.detect import FormatDetector
from gmemstate.messages.catalogue import DECODED, KERNEL, VMMS, Message, facts, messages
from gmemstate.messages.fields import TYPES
from gmemstate.messages.reading import read
from gmemstate.model.reports import KernelReportCode, VmmReportCode

ALL = messages(*DECODED)
READ = [message for message in ALL if message.fact is not None]
BY_READER = [facts(*KERNEL), facts("reports"), facts("report_lines"), *(facts(name) for name in VMMS)]


def name(message: Message) -> str:
    return message.example[:60]


@pytest.mark.parametrize("message", ALL, ids=name)
def test_an_example_has_the_form_of_its_entry_and_is_explained(message: Message) -> None:
    match = message.pattern.search(message.example)
    assert match
    assert message.literal in match[0], "the text that is looked for first"
    assert message.parsed(match)
    reading = read(message.example)
    assert reading.known
    assert message.says


@pytest.mark.parametrize("message", READ, ids=name)
def test_no_other_entry_of_its_reader_takes_an_example_first(message: Message) -> None:
    (known,) = [known for known in BY_READER if message in known]
    assert next(one for one in known if one.search(message.example)) is message


@pytest.mark.parametrize("message", READ, ids=name)
def test_the_readers_make_the_fact_of_an_example(message: Message) -> None:
    parsed = FormatDetector().parse(1, message.example)
    found = parsed if isinstance(parsed, list) else [parsed]
    (fact,) = [one for one in found if isinstance(one, Fact) and one.name == message.fact]
    assert set(message.words.items()) <= set(fact.words.items())


def test_facts_have_handlers_and_words_that_rooms_compare_are_members_of_enums() -> None:
    assert {message.fact for message in READ} <= set(HANDLERS)
    codes = {message.words["code"] for message in READ if "code" in message.words}
    assert codes <= {code.value for code in VmmReportCode}
    what = {message.words["what"] for message in READ if message.fact in ("kernel_said", "warning") and "what" in message.words}
    assert what <= {code.value for code in KernelReportCode}


def test_every_type_is_used() -> None:
    used = {id(kind) for message in ALL for kind in message.types.values()}
    assert [name for name, kind in TYPES.items() if id(kind) not in used and name != "w"] == []


def test_the_text_that_is_looked_for_first_is_one_that_each_line_has() -> None:
    def literal(line: str) -> str:
        return Message("", line, "", "").literal

    assert literal("a failure of <pfn>, ret: <ret:d>") == "a failure of "
    assert literal(r"(?:rmpupdate|RMPUPDATE) failed, ret: <ret:d>") == " failed, ret: "
    assert literal(r"Guest\(s\) left?, [a-z]+ (?:on vCPU <vcpu:d>)?") == "Guest(s) lef"
    assert literal("one|another") == ""


def test_a_number_that_no_page_has_makes_a_damaged_line() -> None:
    (message,) = [one for one in messages("snp") if one.fact == "leaked" and "range" in one.line]
    match = message.search("Leaking PFN range 0x146800-0xfffffffffffffff")
    assert match
    assert message.parsed(match) is None
