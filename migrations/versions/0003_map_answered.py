"""The view of a new kind of event: the answer to a request to map again."""

from alembic import op

revision = "0003"
down_revision = "0002"

VIEWS = """
56 map_answered: actor user, start, npages, space, conversion, result
"""


def upgrade() -> None:
    op.execute(
        "CREATE VIEW map_answered AS SELECT seq, t, source, line, "
        'actor AS "user", start, npages, space, conversion, result, detail FROM event WHERE kind = 56'
    )
