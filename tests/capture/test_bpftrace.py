"""The bpftrace program shows enough of a history to tell it, in lines that the reader reads; and bpftrace takes it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from capturing import bpf
from capturing.probes import PROBES

from gmemstate.ingest.fact import Fact
from gmemstate.ingest.readers import ftrace
from tests.traces import lines_of, read_case, read_lines

FORMS = {one.kind: one for one in bpf.FUNCTIONS}
NUMBERED = {kind: fields for kind, fields, _ in bpf.NUMBERED.values()}
PRINTED = re.compile(r'printf\("(.*?)", nsecs, tid', re.DOTALL)


def as_bpftrace(line: bytes) -> bytes | None:
    """The line that the program prints where ftrace has printed another; None where it prints none."""
    text = line.decode()
    fact = ftrace.FtraceReader().parse(1, text)
    name, _, payload = text.partition(": ")[2].partition(": ")
    if not isinstance(fact, Fact) or fact.t is None:
        return None
    start: dict[str, object] = {"t": fact.t, "tid": fact.thread, "kind": name}
    if f"kvm:{name}" in bpf.EVENTS or f"signal:{name}" in bpf.EVENTS:
        return json.dumps({**start, "text": payload}).encode()
    if (fields := NUMBERED.get(name)) is not None:
        return json.dumps({**start, **{field: fact.args[field] for field in fields}}).encode()
    if (one := FORMS.get(name)) is None:
        return None
    fields = [*one.fields, *([one.ret[0]] if one.ret else [])]
    shown = {
        field: hex(fact.args[field]) if field in one.fields else fact.args[field] for field in fields if field in fact.args
    }
    return json.dumps({**start, **shown, "at": f"<- {one.function}"}).encode()


@pytest.mark.parametrize(
    "case", ["simple", "half_done", "enomem", "race", "ip_eagain_pin", "ip_basic", "ip_two_slots", "ip_noop"]
)
def test_what_the_program_prints_tells_the_same_conversions(case: str, tmp_path: Path) -> None:
    """Each line of a capture is replaced by what the program prints there, with the fields that it has; others are left out."""
    whole = read_case(case)
    less = read_lines([said for line in lines_of(case) if (said := as_bpftrace(line)) is not None], tmp_path)
    told = ("offset", "size", "to", "errno", "error_offset", "thread", "started_ns")
    assert [[one[name] for name in told] for one in less.conversions] == [
        [one[name] for name in told] for one in whole.conversions
    ]
    if not case.startswith("ip_"):  # which gfns a file has is in a memslot, whose insides the program does not see
        assert [(one["start"], one["end"]) for one in less.conversions] == [
            (one["start"], one["end"]) for one in whole.conversions
        ]
    labels = [(one["label"], other["label"]) for one, other in zip(less.conversions, whole.conversions, strict=True)]
    assert all(label == known or label in ("unknown", "committed") for label, known in labels), labels
    assert less.account.unparsed == 0


def test_each_kind_has_a_line_of_valid_json() -> None:
    """With numbers in their places; the name of each kind is one that the reader knows."""
    forms = PRINTED.findall(bpf.program(None))
    assert len(forms) == len(bpf.FUNCTIONS) + len(bpf.EVENTS) + len(bpf.NUMBERED)
    for form in forms:
        line = re.sub(r"%(?:0\d+)?(?:llu|lld|llx|d)", "7", form.replace('\\"', '"').removesuffix("\\n"))
        record = json.loads(line)
        assert record["kind"] in ftrace.PROBES or record["kind"] in ftrace._TRACEPOINTS


def test_it_shows_no_function_that_the_probes_do_not_show() -> None:
    places = {(probe.name, symbol) for probe in PROBES for symbol in probe.symbols}
    assert {(one.kind, one.function) for one in bpf.FUNCTIONS} <= places


def test_only_what_a_kernel_has_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "events" / "kvm" / "kvm_hypercall").mkdir(parents=True)
    said = bpf.program({"kvm_vm_ioctl", "schedule"}, tmp_path)
    assert set(re.findall(r"^(\w+:\S+)$", said, re.MULTILINE)) == {
        "kprobe:kvm_vm_ioctl",
        "kretprobe:kvm_vm_ioctl",
        "tracepoint:kvm:kvm_hypercall",
    }


@pytest.mark.skipif(
    shutil.which("bpftrace") is None or not Path("/sys/kernel/btf/vmlinux").exists(),
    reason="NOT TESTED: bpftrace is not installed (apt-get install bpftrace), or this kernel has no BTF",
)
def test_bpftrace_compiles_it(tmp_path: Path) -> None:
    """All functions; bpftrace would have to attach to them to know better, which it does on a host with KVM only."""
    (tmp_path / "program.bt").write_text(bpf.program(None, tmp_path))
    done = subprocess.run(["bpftrace", "-d", tmp_path / "program.bt"], capture_output=True, text=True, check=False)
    if "need to be root" in done.stderr + done.stdout or "must be run as root" in done.stderr + done.stdout:
        pytest.skip("NOT TESTED: bpftrace wants root")
    assert done.returncode == 0, done.stderr[-2000:]
