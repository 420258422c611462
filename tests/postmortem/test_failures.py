"""The incidents of the other failures: what each capture's program has seen is what is shown."""

from pathlib import Path

import pytest

from gmemstate.postmortem.incident import Incident, IncidentKind
from tests.postmortem.telling import about, of_case, only, post_mortem_of, rows, titled
from tests.together import files_of, read_together
from tests.traces import ground_truth, lines_of, read_lines

# --- a request half done --------------------------------------------------------------------------------------------


def test_half_done_shows_the_answer_to_the_guest_and_which_pages_differ() -> None:
    incident = only("half_done")
    assert (incident.blame, incident.title) == ("VMM", "partly applied")
    assert "The guest asked for 256 pages private. 128 became private, 128 stayed shared" in incident.summary
    assert "the answer to the guest was failure (-12). It has a wrong view of 128 pages." in incident.summary
    assert "The VMM did not undo what it had done" in incident.summary
    assert incident.table is not None
    assert [tuple(row) for row in incident.table.rows] == [
        ("[0x100000,0x100080)", "128", "10", "shared", "private", "private", "failed <- differs"),
        ("[0x100080,0x100100)", "128", "11", "shared", "private", "shared", "failed"),
    ]
    assert incident.complete


def test_half_done_shows_the_times_and_results_that_the_kernel_printed() -> None:
    shown = [(word, when, text.split(" to ")[0], result) for word, when, text, result, _ in only("half_done").rows()]
    assert shown == [
        ("asked", "5.267216", "vCPU thread 112: MAP_GPA_RANGE gpa 0x100000000, 256 pages", ""),
        ("ioctl", "5.275009", "gfn [0x100000,0x100080)", "0"),
        ("", "5.306156", "gfn [0x100080,0x100100)", "ENOMEM"),
        ("answer", "5.331450", "-12", ""),
    ]
    assert "64.2 ms after it asked" in only("half_done").rows()[-1][2]


def test_half_done_explains_why_what_is_left_and_what_to_do() -> None:
    incident = only("half_done")
    why = about(incident, "Why")
    assert why.startswith("gfn [0x100080,0x100100) ran out of kernel memory while attribute entries were reserved (xa_reserve)")
    assert "[implied]; the VMM did not undo the earlier part before it answered [observed]" in why
    left = about(incident, "Left")
    assert "128 guest mappings removed [observed]" in left
    assert "the guest accessed gfn 0x100000 at 5.340525: a new private page, pfn 0x10588f" in left
    assert "the other 127" in left
    data = about(incident, "Data")
    assert data.startswith("RECOVERABLE while the VMM lives")
    assert "hva 0x7fc7ef1b2000+0x80000" in data
    assert "before 5.360186" in data
    assert about(incident, "Host").startswith("no suspect, leaked or poisoned page")
    assert about(incident, "Do now") == (
        "convert gfn [0x100000,0x100080) back to shared, or retry gfn [0x100080,0x100100) to private and answer 0. "
        "Do not resume the guest in between."
    )
    assert "one ioctl: it may span slots and is all-or-nothing" in about(incident, "Fix")
    assert "a2=0x1 of the hypercall is shared by the ABI" in about(incident, "Note")
    assert "dmesg near 5.317900" in about(incident, "Missing")
    assert about(incident, "Lines") == "ftrace.txt.gz:642-777, 780-783"


def test_half_done_in_place_names_the_gfns_where_two_files_have_the_same_indices() -> None:
    incident = only("ip_half_done")
    assert "64 pages private. 32 became private, 32 stayed shared" in incident.summary
    assert "the answer to the guest was failure (-11). It has a wrong view of 32 pages." in incident.summary
    assert about(incident, "Why").startswith(
        "gfn [0x100020,0x100040) was refused, as a page of it was in use (the first is idx 0x9"
    )
    assert about(incident, "Left").startswith("gfn [0x100000,0x100020): attribute private")
    assert "where they were: the conversion is in place" in about(incident, "Data")
    assert about(incident, "Missing").startswith("who held the page")


def test_a_guest_that_got_success_for_what_was_not_done_has_the_wrong_view_of_the_rest(tmp_path: Path) -> None:
    """The record of half_done, but with the VMM answering 0."""
    lines = [line.replace(b"ret=-12", b"ret=0") if b"hc_done" in line else line for line in lines_of("half_done")]
    (incident,) = post_mortem_of(read_lines(lines, tmp_path)).incidents
    assert (incident.blame, incident.title) == ("VMM", "returned success, not applied")
    assert "the answer to the guest was success (0). It has a wrong view of 128 pages." in incident.summary
    assert incident.table is not None
    assert [row[-1] for row in incident.table.rows] == ["success", "success <- differs"]
    assert about(incident, "Do now").startswith("convert gfn [0x100080,0x100100) to private")


# --- no memory ------------------------------------------------------------------------------------------------------


def test_enomem_was_retried_with_success_103_ms_later_and_left_nothing() -> None:
    incident = only("enomem")
    assert (incident.blame, incident.title) == ("memory shortage", "not applied, then applied")
    assert "in 2 conversions. Nothing was changed by the failures, and the retry 103 ms later succeeded." in incident.summary
    assert "Nothing is left over" in incident.summary
    assert [row[2] for row in rows(incident)] == ["ENOMEM", "ENOMEM", "0"]
    assert "[observed: no unmap between entry and return]" in about(incident, "Why")
    assert about(incident, "Left") == "nothing"


def test_enomem_in_place_is_one_incident_for_each_end_that_it_took() -> None:
    """Three failures: one repeated with success; one to shared and one to private that were not."""
    assert [truth.errno for truth in ground_truth("ip_enomem") if truth.errno == 12] == [12, 12, 12]
    titles = [incident.title for incident in of_case("ip_enomem").incidents]
    assert titles == ["not applied, then applied", "not applied", "not applied"]
    assert all("mas_preallocate" in about(incident, "Why") for incident in of_case("ip_enomem").incidents)


# --- private without memory -----------------------------------------------------------------------------------------


def test_nogmem_private_gfns_have_no_memory_and_one_trap_remains() -> None:
    incident = only("nogmem")
    assert (incident.blame, incident.title) == ("VMM", "private without memory")
    assert "Gfns with attribute private have no memory: the conversion succeeded" in incident.summary
    assert "stopped at 2 accesses. 1 such trap remains (16 pages)." in incident.summary
    assert incident.table is not None
    assert [tuple(row) for row in incident.table.rows] == [("[0x4000000,0x4000010)", "16 pages (64 KiB)", "no memslot")]
    faults = [(text, result, note) for word, _, text, result, note in incident.rows() if word == "fault"]
    assert faults == [
        ("private access to gfn 0x100008", "EFAULT", "no guest_memfd"),
        ("private access to gfn 0x100009", "EFAULT", "no guest_memfd"),
    ]
    assert "converted back to shared: gfn [0x100008,0x100009), gfn [0x100008,0x100048)" in about(incident, "Then")


def test_a_closed_guest_memfd_is_not_taken_for_private_gfns_without_memory() -> None:
    """The program closes the file under its memslot; the guest's access is reported as shared."""
    incident = only("ip_fd_closed")
    assert (incident.blame, incident.title) == ("VMM", "guest_memfd closed under its memslot")
    ((_, when, text, result, _),) = incident.rows()
    assert (text, result) == ("shared access to gfn 0x100000", "EFAULT")
    closed, stopped = (truth for truth in ground_truth("ip_fd_closed") if truth.op in ("close", "KVM_RUN(file"))
    assert closed.t < stopped.t
    assert float(when) < stopped.t / 1e9


def test_a_swapped_memslot_is_reported_with_the_pages_that_lost_their_memory() -> None:
    incident = only("ip_swap")
    assert incident.title == "private memory replaced"
    assert "8 private pages lost their guest_memfd by a change of memslots" in incident.summary
    assert "without a conversion" in incident.summary


# --- what looks like a failure --------------------------------------------------------------------------------------


def test_race_a_fault_lost_a_race_and_is_no_request() -> None:
    vcpu = next(truth for truth in ground_truth("race") if truth.op == "vcpu_thread")
    assert vcpu.number("memory_faults") == 1
    incident = only("race")
    assert (incident.blame, incident.title) == ("nobody", "a fault lost a race")
    assert "no request for a conversion and no error; nothing is left over" in incident.summary
    gfn = (vcpu.number("last_gpa") or 0) >> 12
    faults = [(text, result, note) for word, _, text, result, note in incident.rows() if word == "fault"]
    assert faults == [(f"private access to gfn {gfn:#x}", "EFAULT", f"thread {vcpu.thread}")]
    assert "run the vCPU again" in about(incident, "Do")


def test_hwpoison_stays_with_the_page_and_the_kernels_failed_is_its_normal_way() -> None:
    incident = only("hwpoison_private")
    assert (incident.blame, incident.title) == ("host platform", "memory error")
    assert "The poison stays with the page, through conversions in both directions, until it is punched out" in incident.summary
    assert '"Failed"' in about(incident, "Note")
    assert "its normal way" in about(incident, "Note")
    assert "handled as designed" in about(incident, "Note")
    injected = next(truth for truth in ground_truth("hwpoison_private") if truth.op == "hwpoison_inject")
    poison = next(row for row in incident.rows() if row[0] == "poison")
    assert poison[2] == f"idx 0x7, gfn {injected.number('gfn'):#x}, pfn {injected.number('pfn'):#x}"
    results = [row[3] for row in incident.rows() if row[0] == "access"]
    assert results == [{133: "EHWPOISON"}[truth.errno] for truth in ground_truth("hwpoison_private") if truth.errno == 133]
    assert [row[0] for row in incident.rows()][-1] == "punch"
    assert "the page was punched out" in about(incident, "Do")


def test_kill_mid_the_conversion_ran_to_its_end_after_sigkill() -> None:
    incident = only("kill_mid")
    assert (incident.blame, incident.title) == ("nobody", "killed inside a conversion")
    assert "The conversion was not interrupted: it ran to its end 5.2 s after the signal and returned 0" in incident.summary
    assert "All-or-nothing held" in incident.summary
    asked, signal, returned = (float(row[1]) for row in incident.rows())
    assert asked < signal < returned
    killed = next(truth for truth in ground_truth("kill_mid") if truth.op == "kill")
    assert abs(signal - killed.t / 1e9) < 0.1


# --- refused without a look -----------------------------------------------------------------------------------------


def answers(incident: Incident) -> list[str]:
    return [row[4] for row in incident.rows()]


def test_a_request_that_kvm_answers_itself_is_no_silence() -> None:
    """KVM_CAP_EXIT_HYPERCALL is off: the guest is shown -1000 each time, and the VMM never hears of it."""
    saw = [truth.number("hypercall_ret") for truth in ground_truth("guest_ask_nocap") if truth.op == "guest_saw"]
    incident = only("guest_ask_nocap")
    assert (incident.blame, incident.title) == ("VMM", "request refused by KVM")
    assert answers(incident) == [f"returned {answer}" for answer in saw]
    assert "KVM_CAP_EXIT_HYPERCALL" in about(incident, "Why")


def test_a_malformed_request_is_the_guests_own_fault() -> None:
    saw = [truth.number("hypercall_ret") for truth in ground_truth("guest_ask") if truth.op == "guest_saw"]
    incident = titled("guest_ask", "request refused by KVM")
    assert incident.blame == "guest"
    assert answers(incident) == [f"returned {answer}" for answer in saw if answer == -22]
    assert [row[2] for row in incident.rows()] == [
        "MAP_GPA_RANGE gpa 0x100000010, 1 page",
        "MAP_GPA_RANGE gpa 0x100000000, 0 pages",
    ]
    assert "-12 at " in about(titled("guest_ask", "not applied, then applied"), "Answer")


def test_refused_arguments_are_listed_by_errno_and_nothing_is_said_to_have_changed() -> None:
    incidents = [incident for incident in of_case("einval").incidents]
    assert {incident.title for incident in incidents} == {"refused by the argument checks"}
    assert (
        "9 requests were refused before any page was looked at (EIO, EFAULT, EINVAL). Nothing was changed."
        in incidents[0].summary
    )
    assert ("arguments that the kernel did not read", "EFAULT") in [(row[1], row[2]) for row in rows(incidents[0])]
    assert [row[4] for row in incidents[0].rows() if row[2].startswith("gfn") and row[3] == "EINVAL"] == [
        "attributes 0x1",
        "attributes 0xc",
        "flags 0x1",
    ]


@pytest.mark.parametrize("case", ["simple_tp", "st_conv_tp"])
def test_static_tracepoints_show_attempts_and_the_story_says_that_results_are_missing(case: str) -> None:
    incident = only(case)
    assert (incident.blame, incident.title) == ("unknown", "result not seen")
    assert "The state of these pages is unknown" in incident.summary
    assert "return probes on kvm_vm_ioctl and kvm_gmem_ioctl" in about(incident, "Missing")
    assert not incident.complete


@pytest.mark.parametrize("case", ["half_done", "enomem", "ip_enomem"])
def test_a_kernel_log_of_the_same_thread_says_why_there_was_no_memory(case: str, tmp_path: Path) -> None:
    report = post_mortem_of(read_together(files_of(case), tmp_path))
    incidents = [incident for incident in report.incidents if about(incident, "Memory")]
    assert incidents
    for incident in incidents:
        assert "fault injection (failslab)" in about(incident, "Memory")
        assert "[joined by thread]" in about(incident, "Memory")
        assert "dmesg.txt" in about(incident, "Lines")
        assert "why memory ran out" not in about(incident, "Missing")
    assert {incident.blame for incident in incidents if incident.kind is not IncidentKind.PARTLY_APPLIED} <= {"nobody"}
    assert not [incident for incident in report.incidents if "fault injection" in incident.summary], (
        "one failure is one incident"
    )


def test_the_kernel_log_of_another_thread_does_not_say_why_there_was_no_memory(tmp_path: Path) -> None:
    files = files_of("half_done")
    others = {**files, "dmesg.txt": [line.replace(b"PID: 112 ", b"PID: 113 ") for line in files["dmesg.txt"]]}
    incidents = [incident for incident in post_mortem_of(read_together(others, tmp_path)).incidents]
    assert not any(about(incident, "Memory") for incident in incidents)
    assert any("why memory ran out" in about(incident, "Missing") for incident in incidents)
