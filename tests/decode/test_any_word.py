"""Whatever is pasted: no word of 64 bits and no text raises, nothing is lost when a word is taken apart, and no text takes
long."""

import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gmemstate import decode
from gmemstate.decode.addresses import gfn, gpa, page_level, pfn, size
from gmemstate.decode.ept import ept_violation
from gmemstate.decode.kvm import slot_flags, suberror, svm_exit, system_event, vmx_exit
from gmemstate.decode.snp import ghcb_msr, page_fault, psc_result
from gmemstate.decode.words import meanings
from gmemstate.messages.catalogue import DECODED, messages
from gmemstate.messages.reading import MAX_LINE
from gmemstate.messages.reading import read as explain

U64 = st.integers(0, (1 << 64) - 1) | st.integers(0, 300) | st.integers(0, 63).map(lambda bit: 1 << bit)
READERS = [
    decode.tdx_status, decode.seamcall_leaf, decode.level_state, decode.spte, decode.rmpupdate, decode.psmash, decode.pvalidate,
    decode.exit_reason, decode.memory_attributes, decode.memory_fault_flags, decode.hypercall, decode.hypercall_result,
    decode.map_gpa_attributes, decode.tdvmcall, decode.tdvmcall_status, decode.errno, decode.ioctl,
    gpa, gfn, pfn, size, page_level,
    ept_violation, slot_flags, suberror, svm_exit, system_event, vmx_exit, ghcb_msr, page_fault, psc_result,
]  # fmt: skip


@given(U64)
def test_any_word_of_64_bits_is_read_by_every_function(word):
    for read in READERS:
        found = read(word)
        if hasattr(found, "meaning"):
            assert found.meaning().text
    for spelling in (str(word), hex(word), f"{word:x}", f"{word:016x}", f"-{word}", f"gpa:{word:#x}"):
        reading = explain(spelling)
        assert reading.known == bool(reading.words[0].meanings)
        assert all(meaning.text and meaning.kind and meaning.source for meaning in reading.words[0].meanings)


@given(U64, U64, U64)
def test_entries_with_any_status_are_read(entry, state, status):
    found = decode.sept_entry(entry, state, decode.tdx_status(status))
    assert found.meaning().text
    assert found.leaf == (found.pfn is not None)
    assert found.reported or found.pfn is None


@given(U64)
def test_a_status_is_its_parts_put_together(word):
    status = decode.tdx_status(word)
    assert status.code | status.low == word
    assert status.code & status.low == 0


@given(U64, U64)
def test_an_rmp_entry_is_its_parts_put_together(hi, lo):
    entry = decode.rmp_entry(hi, lo)
    flags = entry.assigned | entry.huge << 1 | entry.immutable << 2 | entry.vmsa << 61 | entry.validated << 62
    assert flags | entry.gpa | entry.asid << 51 | entry.reserved == lo
    assert entry.hi == hi


@given(U64)
def test_level_and_state_are_their_parts_put_together(word):
    found = decode.level_state(word)
    assert found.level | found.state << 8 | found.vm << 16 == word & 0x3FF07


@given(
    st.text()
    | st.text(alphabet=string.printable)
    | st.lists(st.sampled_from(["0x8", "EAGAIN", "=", "-1", "(", "SEAMCALL", "\x1b[31m"])).map(" ".join)
)
@example("")
@example("\x00")
@example("SEAMCALL TDH_ failed: 0x")
@example("leaf 00000000000000000000000000000000000000001")
@example("RMPUPDATE failed for PFN 56700, pg_level: 08, ret: -00")
@example("kvm_userspace_exit: reason error (١٤)")
@example("KVM: unknown exit reason " + "9" * 5000)
@example("0x" + "f" * 5000)
@example("9" * 5000)
@example("gpa:" + "9" * 5000)
def test_any_text_is_read_and_columns_point_at_its_words(text):
    reading = explain(text)
    for word in reading.words:
        assert reading.text[word.column - 1 :].startswith(word.text)
    assert reading.known == bool(reading.forms or any(word.meanings for word in reading.words))


@given(st.data())
def test_numbers_of_any_size_in_the_places_of_any_form_never_raise(data):
    form = data.draw(st.sampled_from(messages(*DECODED)))
    text = data.draw(st.from_regex(form.pattern, alphabet=string.printable))
    assert explain(text[:MAX_LINE]).text == text.strip()[:MAX_LINE]


@pytest.mark.parametrize(
    "piece", ["a", "0x", "(", "Error(", "WARNING: ", ": ", "kvm_page_fault: address ", "ioctl(", ".", "MemoryFault { flags: "]
)
def test_a_hostile_line_is_read_in_a_moment(piece):
    line = piece * (MAX_LINE // len(piece) + 1)
    before = time.process_time()
    explain(line)
    assert time.process_time() - before < 2


def test_what_goes_beyond_the_limit_is_not_looked_at():
    assert explain("x" * MAX_LINE + " EAGAIN").words == explain("x" * MAX_LINE).words


def test_no_number_of_a_small_table_is_forgotten():
    for number in range(1, 45):
        assert {"errno", "KVM exit", "SEAMCALL leaf"} & {meaning.kind for meaning in meanings(str(number))}
