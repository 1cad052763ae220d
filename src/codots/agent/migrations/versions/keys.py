"""API keys."""

from alembic import op

from codots.agent.sql import sa

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "keys",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("hash", sa.Text, nullable=False, unique=True),
        sa.Column("worlds", sa.Text),
        sa.Column("writes", sa.Boolean, nullable=False),
        sa.Column("per_minute", sa.Integer),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("revoked", sa.Float),
    )
