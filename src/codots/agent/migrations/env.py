"""Alembic runs this file to migrate a store; the open connection is in the attributes of its config."""

from alembic import context

from codots.agent.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
