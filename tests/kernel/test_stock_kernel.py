"""tools/capture on Debian's stock kernel: every probe is placed, calls are recorded, everything is taken away, and it reads in
whole."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gmemstate
from tests.kernel.machine import TOP, CannotBoot, Machine, Ran

pytestmark = pytest.mark.kernel

SCRIPT = """\
    capture="python3 /test/tools/capture"
    clean() { [ -z "$(grep conv/ /sys/kernel/tracing/dynamic_events)" ] && [ ! -e /sys/kernel/tracing/instances/gmemstate ]; }
    begin() {  # in the background, until it records
        $capture trace --out "$@" > /tmp/said 2>&1 & pid=$!
        for n in $(seq 900); do grep -q 'Ctrl-C ends' /tmp/said && return; kill -0 $pid 2>/dev/null || return; sleep 0.2; done
    }
    step() { echo "STEP $1 $2"; }

    $capture trace --out /test/out/early; step without-kvm $?
    modprobe kvm_amd || modprobe kvm_intel

    begin /test/out/interrupted; /test/caller > /test/out/interrupted.truth; kill -INT $pid; wait $pid; step interrupted $?
    cat /tmp/said; clean; step interrupted-clean $?

    $capture trace --out /test/out/command -- sh -c '/test/caller > /test/out/command.truth; exit 7'; step command $?
    clean; step command-clean $?

    begin /test/out/killed; kill -KILL $pid; wait $pid; step killed $?
    $capture trace --out /test/out/again; step after-kill $?
    $capture clean; step clean $?
    clean; step killed-clean $?

    mkdir /sys/kernel/tracing/instances/mine; echo 1 > /sys/kernel/tracing/instances/mine/events/sched/sched_switch/enable
    echo 'p:mine/other kvm_vm_ioctl cmd=%si:x32' >> /sys/kernel/tracing/dynamic_events
    cd /sys/kernel/tracing; echo 1 > options/latency-format
    echo 0 > options/context-info; echo 0 > options/markers; echo 0 > tracing_on; cd /tmp
    $capture trace --out /test/out/others -- sh -c '/test/caller > /test/out/others.truth'; step others $?
    grep -q mine/other /sys/kernel/tracing/dynamic_events &&
    [ "$(cat /sys/kernel/tracing/instances/mine/events/sched/sched_switch/enable)" = 1 ]
    step others-left-alone $?

    echo 0 > /sys/kernel/debug/kprobes/enabled; $capture trace --out /test/out/off; step kprobes-off $?
"""


@pytest.fixture(scope="module")
def machine() -> Machine:
    try:
        return Machine()
    except CannotBoot as error:
        pytest.fail(f"no kernel can be booted here: {error}")


@pytest.fixture(scope="module")
def ran(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return machine.run(SCRIPT, tmp_path_factory.mktemp("machine") / "out")


def steps(ran: Ran) -> dict[str, int]:
    return {name: int(status) for name, status in re.findall(r"^STEP (\S+) (\d+)$", ran.log, re.MULTILINE)}


def test_each_way_to_begin_and_to_end_has_its_exit_status_and_leaves_the_kernel_as_it_was(ran: Ran) -> None:
    assert steps(ran) == {
        "without-kvm": 4, "interrupted": 0, "interrupted-clean": 0, "command": 7, "command-clean": 0,
            "killed": 137, "after-kill": 4,
        "clean": 0, "killed-clean": 0, "others": 0, "others-left-alone": 0, "kprobes-off": 4,
    }, ran.log  # fmt: skip
    assert "KVM is not loaded" in ran.log
    assert "`tools/capture clean` takes away what it left" in ran.log
    assert "kprobes are switched off" in ran.log


def test_only_what_this_kernel_does_not_have_is_not_placed(ran: Ran) -> None:
    probes = (ran.out / "interrupted/probes.txt").read_text().splitlines()
    absent = {line.partition(":")[0]: line for line in probes if "NOT THERE" in line}
    assert len(probes) - len(absent) > 40
    assert all(re.search(r"not in this kernel|not needed", line) for line in absent.values()), absent


@pytest.mark.parametrize("name", ["interrupted", "command", "others"])
def test_what_was_recorded_reads_in_whole_and_is_what_the_program_was_told(name: str, ran: Ran, tmp_path: Path) -> None:
    truth = (ran.out / f"{name}.truth").read_text().splitlines()
    results = [-int(line.split()[1]) for line in truth if line.startswith("convert ")]
    assert len(results) == 4
    with gmemstate.open(tmp_path / "a.db") as ledger:
        (read,) = ledger.ingest(ran.out / name / "trace.txt")
        assert read.account.unparsed == 0
        assert [one["errno"] for one in ledger.conversions()] == results


def test_a_kernel_that_is_locked_down_is_named_as_the_reason(machine: Machine, tmp_path: Path) -> None:
    ran = machine.run(
        "modprobe kvm_amd; python3 /test/tools/capture trace --out /tmp/out; exit $?",
        tmp_path / "out",
        append="lockdown=confidentiality",
    )
    assert ran.status == 4, ran.log
    assert "locked down (confidentiality)" in ran.log


def test_the_folder_of_a_capture_is_collected_and_unpacks_to_what_can_be_ingested(ran: Ran, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, TOP / "tools/capture", "collect", tmp_path / "host.tar.gz", ran.out / "interrupted"],
        check=True,
        capture_output=True,
    )
    subprocess.run(["tar", "xf", "host.tar.gz"], cwd=tmp_path, check=True)
    assert (tmp_path / "host/logs/trace.txt").read_bytes() == (ran.out / "interrupted/trace.txt").read_bytes()
