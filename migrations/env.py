"""The Alembic environment: runs on a connection that the store hands over."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    from sqlalchemy import create_engine

    url = context.get_x_argument(as_dictionary=True).get("url", "sqlite:///gmemstate.db")
    connection = create_engine(url).connect()

# SQLite can undo DDL, and a migration that is killed must be undone: Alembic has to be told.
context.configure(connection=connection, target_metadata=None, transactional_ddl=True)
context.run_migrations()
