"""The probes are those with which the captures were made, and what they show is what the readers read."""

import re
from pathlib import Path

import pytest
from capturing.probes import PROBES, RETURN, TRACEPOINTS, Probe

from gmemstate.ingest.fact import KINDS
from gmemstate.ingest.readers import ftrace

HERE = Path(__file__).parent
OPTIONAL = {"range_has_attrs": {"attrs"}}


def listed(kernel: str) -> list[str]:
    """The definitions as a kernel has listed them while it made the captures, with more calls at once for those of returns."""
    return (HERE / f"dynamic_events-{kernel}.txt").read_text().replace("r10:", f"{RETURN}:").splitlines()


@pytest.mark.parametrize("kernel", ["7.2", "7.3"])
def test_what_made_the_captures_is_what_is_placed(kernel: str) -> None:
    """On these kernels, with their functions: definition for definition, but for the inode at the binding, which is new."""
    wanted = listed(kernel)
    functions = {line.split()[1] for line in wanted}
    placed = {
        next(definition for definition, symbol in zip(probe.definitions, probe.symbols, strict=True) if symbol in functions)
        for probe in PROBES
        if functions & set(probe.symbols)
    }
    more = " inode=slot->gmem.file->f_inode:x64"
    assert {definition.replace(more, "") for definition in placed} == {definition.replace(more, "") for definition in wanted}
    assert all(more in definition for definition in placed if definition.partition(" ")[0].endswith("gmem_bind"))


def test_filters_are_those_of_the_captures() -> None:
    """Of both families at once: the commands of either are let through."""
    filters = {probe.name: probe.filter for probe in PROBES if probe.filter is not None}
    assert filters == {
        "vm_ioctl": "cmd==0x4020aed2||cmd==0xc080aed2",
        "vm_ioctl_ret": "cmd==0x4020aed2||cmd==0xc080aed2",
        "gmem_ioctl": "cmd==0xc080aed2",
        "gmem_ioctl_ret": "cmd==0xc080aed2",
        "set_region": "cmd==0x40a0ae49",
        "set_region_ret": "cmd==0x40a0ae49",
        "vcpu_ioctl_ret": "cmd==0xae80&&ret<0",
        "run_ret": "exit==39||exit==3||(ret<0&&ret!=-4)",
        "gmem_store": "last<4194304&&(val==0x1||val==0x11)",
        "page_remove": "status!=0",
    }


def test_every_probe_is_known_to_the_reader_and_the_other_way_round() -> None:
    assert {probe.name for probe in PROBES} == set(ftrace.PROBES)


def test_every_static_event_is_read() -> None:
    for event in TRACEPOINTS:
        name = event.name.partition("/")[2]
        assert name in ftrace._TRACEPOINTS or name.startswith("sys_") or name == "kvm_mmu_split_huge_page"


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_each_definition_shows_what_the_reader_cannot_do_without(probe: Probe) -> None:
    for definition in probe.definitions:
        shown = set(re.findall(r" (\w+)=", definition))
        assert set(KINDS[probe.name].needs) <= shown, definition
        assert set(re.findall(r"(\w+)[=<>!]=?", probe.filter or "")) <= shown, definition


def test_what_was_added_to_the_captures_is_there() -> None:
    new = {probe.name: probe.definitions for probe in PROBES if probe.name in ("vm_destroyed", "page_remove", "gmem_bind")}
    assert new["vm_destroyed"][0] == "p:conv/vm_destroyed kvm_destroy_vm kvm=kvm:x64"
    assert "tdh_mem_page_remove gpa=gpa:x64" in new["page_remove"][0]
    assert "inode=slot->gmem.file->f_inode:x64" in new["gmem_bind"][0]
