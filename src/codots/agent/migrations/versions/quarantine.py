"""Contexts that the guard holds back."""

from alembic import op

from codots.agent.sql import sa

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "quarantine",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("world_id", sa.Integer, sa.ForeignKey("worlds.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("context", "reason", "passage")),
        sa.Column("tokens", sa.Integer),
        sa.Column("decision", sa.Text),
        sa.Column("decided", sa.Float),
        sa.Column("created", sa.Float, nullable=False),
        sa.UniqueConstraint("world_id", "number", name="held_number"),
    )
