"""Ioctls: the same call in every spelling, and numbers that agree with the layout of asm-generic/ioctl.h."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmemstate.decode import ioctl, ioctl_number, ioctls

SPELLINGS = {
    "KVM_SET_MEMORY_ATTRIBUTES": [0x4020AED2, "0x4020aed2", "_IOC(_IOC_WRITE, 0xae, 0xd2, 0x20)", "(0xae, 0xd2, 0x1)"],
    "KVM_SET_MEMORY_ATTRIBUTES2": [
        0xC080AED2,
        "0xc080aed2",
        "_IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd2, 0x80)",
        "(0xae, 0xd2, 0x3)",
    ],
    "KVM_CREATE_GUEST_MEMFD": [0xC040AED4, "0xC040AED4", "_IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd4, 0x40)", "(0xae, 0xd4, 0x3)"],
    "KVM_SET_USER_MEMORY_REGION2": [0x40A0AE49, "_IOC(_IOC_WRITE, 0xae, 0x49, 0xa0)", "(0xae, 0x49, 0x1)"],
    "KVM_PRE_FAULT_MEMORY": [0xC040AED5, "_IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd5, 0x40)"],
    "KVM_GMEM_CONVERT_SHARED": [0xC040AF41, "_IOC(_IOC_READ|_IOC_WRITE, 0xaf, 0x41, 0x40)"],
    "KVM_GMEM_CONVERT_PRIVATE": [0xC040AF42, "_IOC(_IOC_READ|_IOC_WRITE, 0xaf, 0x42, 0x40)"],
    "KVM_RUN": [0xAE80, "0xae80", "_IOC(_IOC_NONE, 0xae, 0x80, 0)", "_IOC(0, 0xae, 0x80, 0)"],
    "KVM_MEMORY_ENCRYPT_OP": [0xC008AEBA, "0xc008aeba"],
}


@pytest.mark.parametrize(("name", "spelling"), [(name, one) for name, all_ in SPELLINGS.items() for one in all_])
def test_every_spelling_is_the_same_ioctl(name, spelling):
    assert ioctl(spelling).name == name
    assert ioctl(spelling) == ioctl(name)


def test_what_strace_prints_leads_back():
    for spellings in SPELLINGS.values():
        found = ioctl(spellings[0])
        assert ioctl(found.spelled()) == found


@given(st.integers(0, 3), st.integers(0, 0xFF), st.integers(0, 0xFF), st.integers(0, 0x3FFF))
def test_a_number_is_its_parts_put_together(direction, type_, nr, size):
    found = ioctl(ioctl_number(direction, type_, nr, size))
    assert (found.direction, found.type, found.nr, found.size) == (direction, type_, nr, size)
    assert ioctl(found.spelled()) == found


@pytest.mark.parametrize(
    ("printed", "meant"),
    [
        ("KVM_SET_MEMORY_ATTRIBUTES", "KVM_SET_MEMORY_ATTRIBUTES2"),
        ("VHOST_SCSI_CLEAR_ENDPOINT", "KVM_GMEM_CONVERT_SHARED"),
        ("VHOST_SCSI_GET_ABI_VERSION", "KVM_GMEM_CONVERT_PRIVATE"),
    ],
)
def test_a_name_given_by_number_alone_may_be_that_of_another_ioctl(printed, meant):
    first, second = ioctls(printed)
    assert (first.name, second.name, second.misnamed) == (printed, meant, printed)
    assert first.type << 8 | first.nr == second.type << 8 | second.nr


def test_two_names_of_strace_are_both_read():
    assert [one.name for one in ioctls("KVM_RUN or KVM_CREATE_VM")] == ["KVM_RUN", "KVM_CREATE_VM"]


def test_an_ioctl_of_no_table_is_taken_apart_but_gets_no_name():
    found = ioctl("_IOC(_IOC_WRITE, 0x67, 0x7, 0x18)")
    assert (found.name, found.type, found.nr, found.size) == (None, 0x67, 7, 0x18)
    assert "not in the tables" in found.meaning().text


@pytest.mark.parametrize(
    "text", ["", "KVM", "_IOC(", "_IOC(_IOC_EVIL, 0xae, 0xd2, 0x20)", "_IOC(9, 0xae, 0xd2, 0x20)", "_IOC(1, 0x1ae, 0xd2, 0x20)",
             "(0xae, 0xd2, 0x9)", "(0x1ae, 0xd2, 0x1)", "0x1_0", "TCGETS", str(1 << 32), "-1"],
)  # fmt: skip
def test_what_is_no_spelling_is_none(text):
    assert ioctl(text) is None
