"""Passwords are printed nowhere; what others have written is escaped where it is printed."""

import json
from pathlib import Path

import pytest

from gmemstate.cli.render import ascii_escapes
from gmemstate.text import named, plain_lines
from tests.audit import hostile_records as hostile
from tests.cli.running import run, say
from tests.cli.test_hostile import clean

URLS = (
    "postgresql://joe:s3cret@db.example/gmem", "postgresql://joe:s3 cret@db.example/gmem",
        "postgresql://joe:s3%63ret@db.example/gmem",
    "postgresql://db.example/gmem?password=s3cret", "postgresql://db.example/gmem?password=s3%20cret&user=joe",
    "postgresql+psycopg://joe:s3@cret@db.example/gmem", "postgresql://joe:s3/cret@db.example/gmem",
)  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_the_name_of_a_database_has_its_host_and_name_only(url: str) -> None:
    shown = named(url)
    assert "s3" not in shown
    assert "cret" not in shown
    assert "joe" not in shown


@pytest.mark.parametrize("url", [*URLS, "host=db.example password='s3 cret' dbname=gmem://"])
def test_no_verb_prints_a_password(url: str) -> None:
    for verb in ("status", "check", "export"):
        ran = say("--db", url.replace("db.example", "127.0.0.1:1"), verb, *(["-"] if verb == "export" else []))
        assert ran.code in (2, 4)
        assert "s3" not in ran.out + ran.err
        assert "cret" not in ran.out + ran.err


NASTY = "\x1b]0;pwned\x07\x9b31m\u202egnp\u2066\ud800"


@pytest.mark.parametrize("verb", ["status", "events", "postmortem", "why", "conversions", "host", "check", "replay"])
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_what_a_foreign_record_says_is_escaped(verb: str, form: tuple[str, ...], half_done: Path, tmp_path: Path) -> None:
    from gmemstate.ledger.ledger import Ledger
    from gmemstate.model.events import DETAIL, details

    with Ledger.open(half_done, readonly=True) as ledger:
        rows = list(ledger.record_.events())
    texts = [
        (*row[:DETAIL], json.dumps({name: NASTY if isinstance(fact, str) and name in ("name", "comm") else fact
                                    for name, fact in details(row[DETAIL]).items()}) if row[DETAIL] else None)
        for row in rows
    ]  # fmt: skip
    path = hostile.write(tmp_path / "a.jsonl", texts)
    ran = say("--db", path, verb, *(["gfn:0x100000"] if verb == "why" else []), *form)
    assert ran.code in (0, 1, 3)
    assert clean(ran.out)
    assert clean(ran.err)


def test_json_means_the_same_with_its_escapes() -> None:
    text = json.dumps({"a": NASTY, "b": "äöü\U0001f600\U000e0001"}, ensure_ascii=False, indent=2)
    assert json.loads(ascii_escapes(text)) == json.loads(text)
    assert clean(ascii_escapes(text))
    assert clean(plain_lines(NASTY + "\nä"))


@pytest.mark.parametrize("locale", ["C", "en_US.ISO-8859-1", "POSIX"])
def test_data_is_utf_8_and_text_is_replaced_whatever_the_locale(locale: str, half_done: Path, tmp_path: Path) -> None:
    env = {"LC_ALL": locale, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    name = tmp_path / "ä\u4f60.jsonl"
    name.write_text("")
    out = run("--db", half_done, "export", "-", env=env).out
    (tmp_path / "b.jsonl").write_text(out, encoding="utf-8")
    assert run("--db", tmp_path / "new.db", "import", tmp_path / "b.jsonl", env=env).code == 0
    for verb in ("status", "postmortem", "events", "conversions"):
        assert run("--db", half_done, verb, env=env).code in (0, 1)


def test_no_checkpoint_is_made_of_a_damaged_record(half_done: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(half_done.read_bytes())
    from tests.audit.alterations import tamper

    assert say("--db", path, "checkpoint").code == 0
    tamper(path, "UPDATE event SET t = t + 1 WHERE seq = 20")
    ran = say("--db", path, "checkpoint")
    assert (ran.code, ran.out) == (4, "")
    assert "BATCH-HASH" in ran.err
