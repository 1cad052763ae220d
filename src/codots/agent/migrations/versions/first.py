"""The first schema: worlds, versions, tasks, turns, finishes, transcripts."""

from alembic import op

from codots.agent.sql import sa

revision, down_revision = "0001", None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "worlds",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("low", sa.Float, nullable=False),
        sa.Column("high", sa.Float, nullable=False),
        sa.Column("tasks", sa.Integer, nullable=False),
        sa.Column("finished", sa.Integer, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("world_id", sa.Integer, sa.ForeignKey("worlds.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("parent", sa.Integer),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("cause", "source", "context", "model", "strategy")),
        sa.Column("tokens", sa.Integer),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("learned", sa.Integer, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.UniqueConstraint("world_id", "number", name="one_chain"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("world_id", sa.Integer, sa.ForeignKey("worlds.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("rules", "description")),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.UniqueConstraint("world_id", "number", name="task_number"),
        sa.UniqueConstraint("world_id", "name", name="task_name"),
    )
    op.create_index("task_key", "tasks", ["world_id", "key", "number"])
    op.create_table(
        "turns",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("observation", sa.Text, nullable=False),
        sa.Column("reply", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_index("turns_of_task", "turns", ["task_id"])
    op.create_table(
        "finishes",
        sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), primary_key=True),
        sa.Column("world_id", sa.Integer, sa.ForeignKey("worlds.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("reward", sa.Float),
        sa.Column("revealed", sa.Boolean, nullable=False),
        sa.Column("feedback", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.UniqueConstraint("world_id", "number", name="finish_number"),
    )
    op.create_table(
        "transcripts",
        sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("episode", sa.Text, nullable=False),
    )
