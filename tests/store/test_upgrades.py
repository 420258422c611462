"""A store of an older schema becomes a current one when it is next written; what is on record stays as it is."""

import pytest

from gmemstate.model.errors import NotALedger
from tests.store.places import Place, assert_chained, conversion, guests, record_of


@pytest.fixture
def old(place: Place) -> Place:
    """A ledger as 0001 has made it."""
    with place.open() as ledger:
        ledger.record(*guests(1))
        ledger.record(*conversion(2, 0))
    place.sql("DROP TABLE snapshot")
    place.sql("DROP VIEW map_answered")
    place.sql("UPDATE alembic_version SET version_num = '0001'")
    return place


def test_whoever_opens_an_old_ledger_to_write_upgrades_it(old: Place) -> None:
    with old.open() as ledger:
        before = record_of(ledger)
        assert ledger.record(*conversion(2, 0x10)).seq == 7
        assert record_of(ledger)[0][:5] == before[0]
        assert ledger.check().problems == ()
        assert_chained(ledger)
    assert old.sql("SELECT version_num FROM alembic_version") == [("0003",)]


def test_whoever_only_reads_an_old_ledger_is_told_what_upgrades_it(old: Place) -> None:
    with pytest.raises(NotALedger, match=r"has the older schema 0001; `gmemstate --db .* rebuild` upgrades it"):
        old.open(readonly=True)
    assert old.sql("SELECT version_num FROM alembic_version") == [("0001",)]
