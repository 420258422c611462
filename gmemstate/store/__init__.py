"""The ledger on disk: the only room that knows SQLAlchemy and Alembic."""
