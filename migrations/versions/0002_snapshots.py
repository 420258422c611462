"""Snapshots: the whole memory at some seqs, so that a moment long ago need not be folded from the first event."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "snapshot",
        sa.Column("seq", INTEGER, primary_key=True, autoincrement=False),
        sa.Column("fold", INTEGER, nullable=False),
        sa.Column("latest", INTEGER),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
