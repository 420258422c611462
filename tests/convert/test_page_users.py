"""Users of pages that callers supply: whatever they do, the error names them, and the conversion can be resolved."""

from pathlib import Path
from typing import Any

import pytest

import gmemstate
from gmemstate.convert.engine.users import UnmapAnswer, host
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import PageUserFailed, UsageError
from gmemstate.model.events import ConvertReturned, Dialect, Interrupted, User
from gmemstate.model.verdict import Label
from tests.convert.test_live import GMEM, VM, guest, states


class Vfio:
    """A user as a caller writes one: no base class."""

    name, kind = "vfio", User.HOST

    def unmap(self, start: int, end: int, *, ask: bool) -> UnmapAnswer:
        return UnmapAnswer(0, 0)

    def references(self, start: int, end: int, *, drained: bool) -> int:
        return 0


def raises(*_: object, **__: object) -> Any:
    raise OSError("the container is gone")


def made(**attributes: Any) -> Any:
    """A user with other attributes; a method that is None is missing."""
    missing = [name for name, value in attributes.items() if value is None]
    body = {name: value for name, value in {**vars(Vfio), **attributes}.items() if name not in missing}
    return type("Vfio", (), {name: value for name, value in body.items() if name not in ("__dict__", "__weakref__")})()


def answers(answer: object) -> Any:
    return lambda *_, **__: answer


BAD: list[tuple[str, Any, str]] = [
    ("name", None, r"user 1 \(Vfio\): name raised AttributeError"),
    ("name", property(raises), r"user 1 \(Vfio\): name raised OSError: the container is gone"),
    ("name", 5, r"user 1 \(Vfio\): name is 5, not a printable string"),
    ("name", "\ud800", r"user 1 \(Vfio\): name is '\\ud800', not a printable string"),
    ("kind", None, r"user 1 \(Vfio\): kind raised AttributeError"),
    ("kind", property(raises), r"user 1 \(Vfio\): kind raised OSError"),
    ("kind", "host", r"user 1 \(Vfio\): kind is 'host', not a"),
    ("kind", 99, r"user 1 \(Vfio\): kind is 99, not a"),
    ("kind", True, r"user 1 \(Vfio\): kind is True, not a"),
    ("unmap", None, r"user 'vfio': unmap raised AttributeError"),
    ("unmap", raises, r"user 'vfio': unmap\(\) raised OSError: the container is gone"),
    ("unmap", 0, r"user 'vfio': unmap .*is 0, not a method"),
    ("unmap", lambda _self: UnmapAnswer(), r"user 'vfio': unmap\(\) raised TypeError"),
    ("unmap", answers(0), r"user 'vfio': unmap\(\) answered 0, not an UnmapAnswer"),
    ("unmap", answers(None), r"user 'vfio': unmap\(\) answered None, not an UnmapAnswer"),
    ("unmap", answers((0, 1)), r"user 'vfio': unmap\(\) answered \(0, 1\), not an UnmapAnswer"),
    (
        "unmap",
        answers(UnmapAnswer(-16)),
        r"user 'vfio': unmap\(\) answered result -16, neither None nor a number from 0 to 4095",
    ),
    ("unmap", answers(UnmapAnswer(4096)), r"user 'vfio': unmap\(\) answered result 4096"),
    ("unmap", answers(UnmapAnswer("EBUSY")), r"user 'vfio': unmap\(\) answered result 'EBUSY'"),  # type: ignore[arg-type]
    ("unmap", answers(UnmapAnswer(False)), r"user 'vfio': unmap\(\) answered result False"),
    ("unmap", answers(UnmapAnswer(0, -1)), r"user 'vfio': unmap\(\) answered entries -1"),
    ("unmap", answers(UnmapAnswer(0, 1 << 63)), r"user 'vfio': unmap\(\) answered entries 9223372036854775808"),
    ("unmap", answers(UnmapAnswer(0, 1.5)), r"user 'vfio': unmap\(\) answered entries 1.5"),  # type: ignore[arg-type]
    ("references", None, r"user 'vfio': references raised AttributeError"),
    ("references", raises, r"user 'vfio': references\(\) raised OSError: the container is gone"),
    ("references", 1024, r"user 'vfio': references .*is 1024, not a method"),
    ("references", answers(None), r"user 'vfio': references\(\) answered None, not a number from 0 to 2147483647"),
    ("references", answers(-1), r"user 'vfio': references\(\) answered -1"),
    ("references", answers(1 << 31), r"user 'vfio': references\(\) answered 2147483648"),
    ("references", answers(True), r"user 'vfio': references\(\) answered True"),
    ("references", answers("1"), r"user 'vfio': references\(\) answered '1'"),
]


@pytest.mark.parametrize("dialect", [Dialect.RFC_V2, Dialect.INPLACE, Dialect.CHECK_FIRST])
@pytest.mark.parametrize(("attribute", "value", "text"), BAD, ids=[f"{name}-{n}" for n, (name, *_) in enumerate(BAD)])
def test_a_user_that_fails_is_named_and_leaves_an_interrupted_conversion_that_can_be_rolled_back(
    tmp_path: Path, dialect: Dialect, attribute: str, value: Any, text: str
) -> None:
    with gmemstate.open(tmp_path / "vm.db", durable=False) as ledger:
        ledger.record(*guest(dialect))
        with pytest.raises(PageUserFailed, match=text) as failed:
            ledger.convert(GMEM, 0, 8, "private", users=[made(**{attribute: value})])
        left = failed.value.data["conversion"]
        assert failed.value.data["method"] == attribute
        assert f'conversion {left} is left interrupted: ledger.resolve({left}, "roll-back")' in str(failed.value)
        assert [event.conversion for event in (one.event for one in ledger.events()) if isinstance(event, Interrupted)] == [
            left
        ]
        assert not [event for event in (one.event for one in ledger.events()) if isinstance(event, ConvertReturned)]
        assert ledger.resolve(left, "roll-back").label is Label.DECLARED
        assert states(ledger) == [(0, 16, "shared")]
        assert not ledger.history().findings
        assert ledger.convert(GMEM, 0, 8, "private", users=[Vfio()]).errno == 0


def test_on_mainline_the_guest_is_asked_too(tmp_path: Path) -> None:
    with gmemstate.open(tmp_path / "vm.db", durable=False) as ledger:
        ledger.record(*guest(Dialect.MAINLINE))
        with pytest.raises(PageUserFailed, match="user 'vcpu'"):
            ledger.convert(VM, 0x100, 0x108, "private", users=[host("vmm"), made(name="vcpu", kind=User.GUEST, unmap=raises)])


def test_what_a_user_raises_on_purpose_is_its_own_affair(ledger: Ledger) -> None:
    """The cause stays on the error, so that a harness sees its own exception."""
    with pytest.raises(PageUserFailed) as failed:
        ledger.convert(GMEM, 0, 8, "private", users=[made(unmap=raises)])
    assert isinstance(failed.value.__cause__, OSError)


def test_users_without_faults_of_theirs_need_no_base_class(ledger: Ledger) -> None:
    result = ledger.convert(GMEM, 0, 8, "private", users=[Vfio()])
    assert (result.errno, result.label) == (0, Label.COMMITTED)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with gmemstate.open(tmp_path / "vm.db", durable=False) as made:
        made.record(*guest(Dialect.INPLACE))
        yield made


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((GMEM, 0, 8, "PRIVATE"), {}, "cannot convert to 'PRIVATE': say private or shared"),
        ((GMEM, -1, 8, "private"), {}, "invalid range"),
        ((GMEM, 8, 4, "private"), {}, "invalid range"),
        ((GMEM, 0, (1 << 52) + 1, "private"), {}, "invalid range"),
        ((99, 0, 8, "private"), {}, "99 is neither a guest nor a guest_memfd"),
        ((GMEM, 0, 8, "private"), {"dialect": "rfc-v2"}, "name a dialect"),
        ((GMEM, 0, 8, "private"), {"dialect": Dialect.MAINLINE}, "the VM holds the attribute"),
        ((GMEM, 0, 8, "private"), {"policy": "track"}, "the dialect inplace cannot have the policy track"),
        ((GMEM, 0, 8, "private"), {"policy": "no such thing"}, "the dialect inplace cannot have the policy no such thing"),
    ],
)
def test_an_argument_without_a_meaning_is_refused_and_nothing_is_recorded(
    ledger: Ledger, arguments: Any, options: dict[str, Any], text: str
) -> None:
    before = ledger.head()
    with pytest.raises(UsageError, match=text):
        ledger.convert(*arguments, **options)
    assert ledger.head() == before


def test_the_result_of_a_conversion_as_plain_data_says_what_the_result_says(ledger: Ledger) -> None:
    result = ledger.convert(
        GMEM, 0, 16, "private", users=[host("A", range(16)), made(name="pin", kind=User.PIN, references=answers(1))]
    )
    data = result.to_json()
    assert (data["id"], data["errno"], data["label"]) == (result.id, 11, "failed_residue")
    assert data["applied"] == {"extent": "none", "ranges": [], "unit": "idx", "basis": "implied"}
    assert [(left["what"], left["start"], left["end"]) for left in data["residue"]] == [("host mapping", "0x0", "0x10")]
    assert [event["seq"] for event in data["events"]] == [one.seq for one in result.events]
