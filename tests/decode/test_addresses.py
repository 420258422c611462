"""Addresses of a guest: pages and bytes, and where a page lies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmemstate.decode import address_of
from gmemstate.decode.addresses import page_level, pfn, size


def test_a_gpa_and_its_gfn_say_the_same():
    assert address_of("gpa:0x666d9000").text == "gpa 0x666d9000 = gfn 0x666d9"
    assert address_of("gfn:0x666d9").text == "gfn 0x666d9 = gpa 0x666d9000"


def test_an_address_tells_where_it_lies_in_its_huge_pages():
    details = dict(address_of("gpa:0x84d010").details)
    assert details["gfn"] == "0x84d, byte 0x10 of the page"
    assert details["2M"] == "page 77 of gfns [0x800,0xa00)"
    assert dict(address_of("gfn:0x800").details)["2M"] == "first page of the 2M range"


@pytest.mark.parametrize("bit", [47, 51])
def test_a_set_shared_bit_is_pointed_out_as_a_possibility(bit):
    said = dict(address_of(f"gpa:{1 << bit | 0x807000:#x}").details)["shared bit"]
    assert "perhaps" in said
    assert "0x807000" in said


def test_ranges_are_half_open():
    found = address_of("gpa:0x4000000+0x2000")
    assert found.text == "gfns [0x4000,0x4002)"
    assert dict(found.details) == {"gpa": "[0x4000000,0x4002000)", "size": "2 pages (8 KiB)"}
    assert address_of("gfn:0x10-0x20").text == "gfns [0x10,0x20)"


@given(st.integers(0, (1 << 64) - 1))
def test_any_address_of_64_bits_is_read_in_both_units(number):
    assert f"gfn {number >> 12:#x}" in address_of(f"gpa:{number:#x}").text
    assert f"gpa {number << 12:#x}" in address_of(f"gfn:{number}").text


@pytest.mark.parametrize("text", ["gpa:", "gpa:zz", "pfn:0x1", "0x1000", f"gpa:{1 << 64}", "gpa:-1", "gfn:0x20-0x10"])
def test_what_is_no_address_of_a_guest_is_none(text):
    assert address_of(text) is None


def test_an_error_value_is_no_host_page():
    assert "error value" in pfn(0x7FF0000000000000).text
    assert pfn(0x80A5669).text == "pfn 0x80a5669 = host address 0x80a5669000"


def test_sizes_and_levels():
    assert size(0x200000).text == "512 pages (2 MiB)"
    assert "not a whole number" in size(0x801).text
    assert [page_level(level).text[:2] for level in (1, 2, 3)] == ["4K", "2M", "1G"]
    assert page_level(0) is None
