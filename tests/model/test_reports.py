"""What pages and known problems match in TOML is a report that readers record."""

import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from gmemstate.model.reports import KernelReportCode, VmmReportCode

DATA = Path(str(resources.files("gmemstate"))) / "data"
KERNEL = ("kernel_warned", "rmp_violation", "vm_dead")
SANITIZERS = ("UBSAN", "KASAN", "KFENCE")


def conditions(value: Any) -> Iterator[dict[str, str]]:
    """Each table of a TOML file that names the kind of an event."""
    if isinstance(value, list):
        for item in value:
            yield from conditions(item)
    elif isinstance(value, dict):
        if isinstance(value.get("kind"), str):
            yield value
        for item in value.values():
            yield from conditions(item)


def found(field: str, kinds: tuple[str, ...]) -> set[str]:
    files = sorted([*(DATA / "reports").glob("*.toml"), *(DATA / "signatures").glob("*.toml")])
    tables = [table for path in files for table in conditions(tomllib.loads(path.read_text(encoding="utf-8")))]
    return {table[field] for table in tables if field in table and set(table["kind"].split("|")) & set(kinds)}


def test_each_code_that_a_page_matches_is_a_report_of_a_vmm() -> None:
    codes = {code for pattern in found("code", ("vmm_said",)) for code in pattern.split("|")}
    assert len(codes) > 20
    assert codes <= {code.value for code in VmmReportCode}


def test_each_pattern_of_a_page_matches_a_report_of_a_kernel() -> None:
    patterns = found("what", KERNEL)
    known = [*(code.value for code in KernelReportCode), *SANITIZERS]
    assert len(patterns) > 15
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, word) for word in known)] == []
