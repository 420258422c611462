"""Entry and return are one call only where all that both lines show is the same."""

import re
from pathlib import Path

import pytest

from tests.traces import lines_of, read_lines

ENTRY = (
    b"  a-284     [000] .....     7.778219: gmem_ioctl: (kvm_gmem_ioctl+0x4/0x30 [kvm]) cmd=0xc080aed2 offset=0x0 "
    b"size=0x40000 attrs=0x8 flags=0x0 error_in=0x5a5a5a5a inode=0xffff888102035590 kvm=0xffff88810030a000"
)
RETURN = (
    b"  a-284     [000] .....     7.782672: gmem_ioctl_ret: (__x64_sys_ioctl+0x36a/0x840 <- kvm_gmem_ioctl) cmd=0xc080aed2 "
    b"ret=0 offset=0x0 size=0x40000 attrs=0x8 flags=0x0 error_offset=0x5a5a5a5a inode=0xffff888102035590"
)
FIELDS = {"offset": b"0x14000", "size": b"0x2c000", "attrs": b"0x0", "flags": b"0x1", "inode": b"0xffff8881020359e0"}


def answers(lines: list[bytes], folder: Path) -> list[tuple[int, int | None]]:
    """Index and result of each conversion, None where the result was not seen."""
    return [(int(one["offset"], 16) >> 12, one["errno"]) for one in read_lines(lines, folder).conversions]


def test_lines_that_agree_are_one_call(tmp_path: Path) -> None:
    assert answers([ENTRY, RETURN], tmp_path) == [(0, 0)]


@pytest.mark.parametrize("field", FIELDS)
def test_a_return_that_shows_another_value_is_of_another_call(field: str, tmp_path: Path) -> None:
    other = re.sub(rb"\b%s=\S+" % field.encode(), rb"%s=%s" % (field.encode(), FIELDS[field]), RETURN)
    assert [result for _, result in answers([ENTRY, other], tmp_path)] == [None, 0]


def test_a_system_call_whose_entry_was_not_seen_ends_no_conversion(tmp_path: Path) -> None:
    ended = b"  a-284     [000] .....     7.780520: sys_ioctl -> 0x0"
    assert answers([ENTRY, ended], tmp_path) == [(0, None)]


def test_the_older_ioctl_on_a_guest_memfd_is_a_call_without_arguments_that_got_enotty(tmp_path: Path) -> None:
    lines = [line for line in lines_of("ip_einval") if b"gmem_ioctl" in line and b"cmd=0x4020aed2" in line]
    (found,) = read_lines(lines, tmp_path).conversions
    assert (found["through"], found["offset"], found["size"], found["attributes"]) == ("gmem_ioctl", None, None, None)
    assert found["errno"] == 25
