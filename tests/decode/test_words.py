"""One word on its own: all that it may mean, the most plausible first, and nothing for what nobody knows."""

import pytest

from gmemstate.decode.words import Rank, meanings, ranked
from gmemstate.messages.reading import read


def kinds(word):
    return [meaning.kind for meaning in meanings(word)]


@pytest.mark.parametrize(
    ("word", "kind", "text"),
    [
        ("0x8000020000000092", "TDX status", "TDX_OPERAND_BUSY, operand SEPT"),
        ("c000030000000001", "TDX status", "TDX_PAGE_METADATA_INCORRECT, operand RCX"),
        ("TDX_TD_FATAL", "TDX status", "TDX_TD_FATAL"),
        ("TDH_MEM_PAGE_REMOVE", "SEAMCALL leaf", "TDH.MEM.PAGE.REMOVE"),
        ("TDH.MEM.TRACK", "SEAMCALL leaf", "TDH.MEM.TRACK"),
        ("EAGAIN", "errno", "EAGAIN (11), Resource temporarily unavailable"),
        ("-14", "errno", "EFAULT (14), Bad address"),
        ("-133", "errno", "EHWPOISON (133), Memory page has hardware error"),
        ("KVM_EXIT_HLT", "KVM exit", "KVM_EXIT_HLT (5)"),
        ("0x4020aed2", "ioctl", "KVM_SET_MEMORY_ATTRIBUTES: makes a range of gpas private or shared"),
        ("1075883730", "ioctl", "KVM_SET_MEMORY_ATTRIBUTES: makes a range of gpas private or shared"),
        ("_IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd4, 0x40)", "ioctl",
            "KVM_CREATE_GUEST_MEMFD: makes a guest_memfd; the result is its file descriptor"),
        ("gfn:0x4000", "guest frame number", "gfn 0x4000 = gpa 0x4000000"),
        ("FAIL_OVERLAP", "RMP instruction", "FAIL_OVERLAP"),
    ],
)  # fmt: skip
def test_a_word_that_means_one_thing_is_said_without_doubt(word, kind, text):
    (word_read,) = read(word).words
    assert word_read.certain
    assert (word_read.meanings[0].kind, word_read.meanings[0].text) == (kind, text)
    assert len(word_read.meanings) == 1


@pytest.mark.parametrize(
    ("word", "first", "others"),
    [
        ("39", "KVM exit", {"errno", "SEAMCALL leaf"}),
        ("0x8", "memory attributes", {"memory fault flags", "KVM exit", "errno"}),
        ("12", "errno", {"KVM hypercall", "SEAMCALL leaf", "KVM exit"}),
        ("0xc", "KVM hypercall", {"errno", "SEAMCALL leaf", "KVM exit"}),
        ("14", "errno", {"SEAMCALL leaf"}),
        ("29", "SEAMCALL leaf", {"KVM exit", "errno"}),
        ("0x10", "MAP_GPA_RANGE attributes", {"KVM exit"}),
        ("4", "errno", {"RMP instruction"}),
        ("24", "KVM exit", {"errno"}),
        ("0", "TDX status", {"memory attributes", "KVM exit"}),
        ("0x80000003", "SVM exit", {"page fault error code"}),
        ("0x8000000000000000", "TDVMCALL status", {"SPTE"}),
        ("0x400", "SVM exit", {"secure EPT level_state"}),
        ("KVM_SET_MEMORY_ATTRIBUTES", "ioctl", set()),
    ],
)
def test_a_word_of_several_meanings_gives_all_the_most_plausible_first(word, first, others):
    assert kinds(word)[0] == first
    assert others <= set(kinds(word)[1:])
    (word_read,) = read(word).words
    assert not word_read.certain
    assert len(word_read.meanings) > 1


@pytest.mark.parametrize(
    "word",
    ["0xfffffffffffffff4", "0x80000000000007fd", "0x6010fffffffff001", "5a0", "0x10001", "TDCALL", "0x1a2b3c40f7", "0x102"],
)
def test_a_single_meaning_may_still_be_but_a_possibility(word):
    (word_read,) = read(word).words
    assert word_read.meanings
    assert not word_read.certain


@pytest.mark.parametrize(
    "word", ["0xdeadbeef", "deadbeef", "0x12345678", "hello", "BUSY", "999", "-1999", "0x7f2a10000000", "..."]
)
def test_a_word_that_means_nothing_means_nothing(word):
    assert meanings(word) == ()
    assert not read(word).known


def test_an_address_is_not_taken_for_a_status_of_success():
    assert kinds("0x81500000000") == ["TDX status"]
    assert not read("0x81500000000").words[0].certain
    assert kinds("0x81512345000") == []
    assert not read("at 0x81500000000 in memory").known


def test_meanings_come_in_the_order_of_their_rank():
    for number in range(256):
        ranks = [rank for rank, _ in ranked(str(number))]
        assert ranks == sorted(ranks)


def test_quotes_and_commas_around_a_pasted_word_do_not_hide_it():
    (word,) = read("'-EAGAIN',").words
    assert (word.column, word.text, word.certain) == (2, "-EAGAIN", True)


def test_a_status_with_made_up_class_and_flags_is_not_claimed():
    assert "TDX status" not in kinds("0x8001020000000000")
    assert ranked("0xc0000bff00000001")[0][0] is Rank.POSSIBLE
