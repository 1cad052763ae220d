"""Tasks without context: which arm a task is of, and with which probability it was drawn."""

from alembic import op

from codots.agent.sql import sa

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Add the columns. All earlier tasks were given their context."""
    op.add_column("tasks", sa.Column("arm", sa.Text, nullable=False, server_default="own"))
    op.add_column("tasks", sa.Column("null_share", sa.Float, nullable=False, server_default="0"))
