"""Errnos: numbers as this very system has them, and what they say of a conversion."""

import errno as system

import pytest

from gmemstate.decode import errno, errno_name, errno_of
from gmemstate.decode.errnos import CONVERT, MEANINGS, RUN, SET_ATTRIBUTES, SET_ATTRIBUTES2
from gmemstate.model.linux import ERRNO_NAMES


@pytest.mark.parametrize("name", [name for name in dir(system) if name.startswith("E")])
def test_numbers_are_those_of_the_system(name):
    found = errno_of(name)
    assert found.number == getattr(system, name)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("EAGAIN", "EAGAIN"), ("-EAGAIN", "EAGAIN"), ("11", "EAGAIN"), ("-11", "EAGAIN"), ("0xfffffffffffffff5", "EAGAIN"),
        ("Resource temporarily unavailable", "EAGAIN"), ("EWOULDBLOCK", "EAGAIN"), ("Input/output error", "EIO"),
        ("133", "EHWPOISON"), ("-133", "EHWPOISON"), ("EHWPOISON", "EHWPOISON"), ("-512", "ERESTARTSYS"), ("efault", "EFAULT"),
    ],
)  # fmt: skip
def test_every_spelling_leads_to_the_same_errno(spelling, name):
    assert errno_of(spelling).name == name


@pytest.mark.parametrize("spelling", ["0", "", "EVIL", "41", "-9999", "1_1", "0x", "99999999999999999999999", "\u0661\u0661"])
def test_what_is_no_errno_is_none(spelling):
    assert errno_of(spelling) is None


@pytest.mark.parametrize(
    ("name", "call", "words"),
    [
        ("EIO", SET_ATTRIBUTES, "dead or bugged"),
        ("EAGAIN", SET_ATTRIBUTES, "never given"),
        ("EBUSY", SET_ATTRIBUTES, "never given"),
        ("ENOMEM", SET_ATTRIBUTES, "the attributes are as before"),
        ("EAGAIN", SET_ATTRIBUTES2, "error_offset names the lowest one"),
        ("ENOMEM", SET_ATTRIBUTES2, "error_offset is the start of the request"),
        ("EFAULT", SET_ATTRIBUTES2, "could not be written back"),
        ("ENOTTY", SET_ATTRIBUTES2, "in-place conversion is off"),
        ("EINVAL", CONVERT, "error_offset was not 0"),
        ("EINVAL", "KVM_GMEM_CONVERT_SHARED", "error_offset was not 0"),
        ("EFAULT", RUN, "KVM_EXIT_MEMORY_FAULT"),
        ("EHWPOISON", RUN, "hardware memory error"),
        ("EIO", RUN, "dead or bugged"),
        ("EOPNOTSUPP", "fallocate", "KEEP_SIZE"),
        ("EACCES", "KVM_CREATE_GUEST_MEMFD", "SELinux"),
        ("EAGAIN", "KVM_TDX_INIT_MEM_REGION", "transient"),
    ],
)
def test_an_errno_says_of_a_call_what_the_kernel_means_by_it(name, call, words):
    found = errno_of(name)
    assert words in found.for_call(call)
    assert words in found.meaning(call).text
    assert found.meaning(call).details == (("of", call),)


def test_an_errno_says_nothing_of_a_call_that_is_not_known_to_give_it():
    assert errno(25).for_call(RUN) is None
    assert errno(25).for_call("TCGETS") is None
    assert errno(25).meaning("TCGETS").details == ()


def test_the_dialects_agree_where_they_are_the_same():
    for call in (SET_ATTRIBUTES, SET_ATTRIBUTES2, CONVERT):
        assert {12, 14, 22, 25} <= set(MEANINGS[call])
    assert all(number in ERRNO_NAMES for table in MEANINGS.values() for number in table)


def test_errnos_have_the_kernels_names_where_the_c_library_has_others():
    assert [errno_name(number) for number in (0, 11, 35, 95, 133, 4095)] == [
        "0",
        "EAGAIN",
        "EDEADLK",
        "EOPNOTSUPP",
        "EHWPOISON",
        "4095",
    ]
