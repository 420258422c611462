"""Names of processes and files are anybody's: what a terminal or a browser would obey is shown, not obeyed."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.running import Ran, on_terminal, run, say
from tests.postmortem.page import Page
from tests.traces import lines_of

COMMS = {
    "an escape": b"\x1b[31;5mred\x07",
    "a title": b"\x1b]0;pwned\x07\x9b",
    "tags": b"<b onload>&amp;",
    "a script": b"<script>alert()",
    "bidi": "\u202egnp\u2066\u200b".encode(),
    "no utf-8": b"\xff\xfe\x80caf\xe9",
    "nothing known": b"<...>",
    "newlines": b"a\rb\x0bc\x0c\xe2\x80\xa8",
}
VERBS = ("conversions", "requests", "state", "messed-up", "events", "status", "replay", "postmortem")
BIDI = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def trace(comm: bytes, folder: Path, name: str = "trace.txt") -> Path:
    """The trace of half_done by a program of another name."""
    path = folder / name
    path.write_bytes(b"\n".join(line.replace(b"gmem_cases", comm) for line in lines_of("half_done")) + b"\n")
    return path


def clean(text: str, more: str = "") -> bool:
    """Whether there is nothing that a terminal obeys, and nothing that turns text round or hides."""
    return not BIDI.search(text) and all(char.isprintable() or char in "\n" + more for char in text)


@pytest.fixture(params=COMMS.values(), ids=COMMS, scope="module")
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    ran = say("--db", folder / "a.db", "ingest", trace(request.param, folder))
    assert ran.code == 0
    assert "0 not understood" in ran.out
    return folder / "a.db"


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_passes_on_what_a_terminal_obeys(verb: str, form: tuple[str, ...], ledger: Path) -> None:
    ran = say("--db", ledger, verb, *form)
    assert ran.code == 0
    assert clean(ran.out)
    assert clean(ran.err)
    if form and verb != "events":
        json.loads(ran.out)


def test_the_page_shows_tags_as_text(ledger: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert say("--db", ledger, "postmortem", "--html", target).code == 0
    source = target.read_text(encoding="utf-8")
    page = Page.of(source)
    assert page.tags <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span",
        "article", "table", "tr", "th",
                         "td", "dl", "dt", "dd"}  # fmt: skip
    assert page.loads == []
    assert clean(source)
    assert say("--db", ledger, "status").out.split("guests")[1].split(" (")[1].split(" 112)")[0] in page.text


def test_a_terminal_is_not_obeyed_either(tmp_path: Path) -> None:
    assert say("--db", tmp_path / "a.db", "ingest", trace(COMMS["an escape"], tmp_path)).code == 0
    shown = on_terminal("--db", tmp_path / "a.db", "postmortem").err
    assert clean(shown)
    assert r"\x1b[31;5mred\x07" in shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mred.txt", r"a\x1b[31mred.txt"),
        ("<i>a&b.txt", "<i>a&b.txt"),
        ("\u202etxt.a", r"\u202etxt.a"),
        ("a\nb.txt", r"a\x0ab.txt"),
    ],
)
def test_a_file_name_is_shown_not_obeyed(name: str, shown: str, tmp_path: Path) -> None:
    path = trace(b"gmem_cases", tmp_path, name)
    for ran in (
        say("--db", tmp_path / "a.db", "ingest", path),
        say("--db", tmp_path / "a.db", "status"),
        say("--db", tmp_path / "a.db", "postmortem", "--html", tmp_path / "page.html"),
    ):
        assert ran.code == 0
        assert shown in ran.out
        assert clean(ran.out + ran.err)
    page = Page.of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert shown in page.text
    assert "i" not in page.tags
    path.unlink()
    refused = say("--db", tmp_path / "a.db", "ingest", path)
    assert refused.code == 4
    assert shown in refused.err
    assert clean(refused.err)


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("name", ["a\x1b[31mred.db", "\u202ebd.db", "\udcff.db"])
def test_the_name_of_a_ledger_is_shown_not_obeyed(name: str, form: tuple[str, ...], half_done: Path, tmp_path: Path) -> None:
    ledger = Path(shutil.copy(half_done, tmp_path / name))
    ran = say("--db", ledger, "status", *form)
    assert ran.code == 0
    assert clean(ran.out)
    ran.out.encode()
    refused = say("--db", tmp_path / f"no {name}", "status")
    assert refused.code == 4
    assert clean(refused.err)


def test_a_file_name_that_is_no_text_at_all_is_shown_by_its_bytes(tmp_path: Path) -> None:
    trace(b"gmem_cases", tmp_path, "\udcff.txt")
    ran = run("--db", tmp_path / "a.db", "ingest", tmp_path / "\udcff.txt")
    assert ran.code == 0
    assert r"\udcff.txt: 76 events" in ran.out
    assert say("--db", tmp_path / "a.db", "status").code == 0


# --- the page -------------------------------------------------------------------------------------------------------


def written(ran: Ran, target: Path) -> str:
    assert ran.code == 0
    assert f"written: {target}\n" in ran.err
    return target.read_text(encoding="utf-8")


def test_a_page_is_whole_in_itself(both: Path, tmp_path: Path) -> None:
    source = written(say("--db", both, "postmortem", "--html", tmp_path / "page.html"), tmp_path / "page.html")
    page = Page.of(source)
    assert source.startswith("<!doctype html>\n")
    assert page.policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert page.loads == []
    assert not re.search(r"url\(|@import|https?:|//[a-z]", page.style)
    assert "script" not in page.tags
    assert page.articles == ["incident-1", "incident-2", "incident-3"]


def test_the_demo_writes_its_page_beside_the_reader_and_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = say("demo")
    page = Page.of(written(ran, Path("gmemstate-demo.html")))
    assert str(tmp_path / "gmemstate-demo.html") in ran.out
    assert len(page.articles) == 2
    assert page.loads == []
    for words in ("It has a wrong view of 128 pages.", "VMM held a page"):
        assert words in page.text
        assert words in ran.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gmemstate-demo.html"]


HOSTILE_LOG = b"""\
time="\x1b]0;pwned\x07 01-02" level=error msg="qemu: Convert non guest_memfd backed memory region (0xf0000,+0x1000) to private"
Jan  1 00:00:00 \x1b[31mhost kernel: SEV-SNP: Leaking PFN range 0x1000-0x1200
error: kvm run failed \xe2\x80\xaeInput/output error
qemu-kvm: \x1b[2J\x9b31m\xff\xfe: No such file or directory
[ 7.0] WARNING: arch/x86/kvm/vmx/tdx.c:1 at tdx_mem_page_aug+0x1/0x2 [kvm_intel], CPU#3: \x1b[5mCPU 3/KVM/77
[ 7.1] Memory failure: 0x1234: recovery action for \x1b[31m\xe2\x80\xa8page: Failed
[ 7.2] kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x7654321077, level_state 0x400
TDX guest reports fatal error. Error code: 0x1 Error message: \x1b]8;;http://a/\x07click<script>alert()
"""


def test_no_answer_about_a_hostile_log_passes_on_what_a_terminal_obeys(tmp_path: Path) -> None:
    """Kernel logs and logs of VMMs, which have texts, names, hosts and times of anybody in them."""
    path, ledger = tmp_path / "a.log", tmp_path / "a.db"
    path.write_bytes(HOSTILE_LOG)
    for ran in (
        say("--db", ledger, "ingest", path),
        *(say("--db", ledger, verb) for verb in (*VERBS, "host")),
        *(say("--db", ledger, verb, "--json") for verb in (*VERBS, "host")),
        *(say("decode", line.decode("utf-8", "surrogateescape")) for line in HOSTILE_LOG.splitlines()),
        say("--db", ledger, "postmortem", "--html", tmp_path / "page.html"),
    ):
        assert ran.code in (0, 1, 3)
        assert clean(ran.out)
        assert clean(ran.err)
    page = Page.of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.loads == []
    assert "click" in page.text
