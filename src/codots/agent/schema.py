"""Tables of the store. Rows are added, never changed, but for the counters of a world and what a person decides."""

from __future__ import annotations

from codots.agent.sql import sa

SCHEMA = "0004"
"""Revision of these tables: the newest one in `migrations`."""
metadata = sa.MetaData()


class Text(sa.TypeDecorator[str]):
    """Text without NUL characters, which PostgreSQL cannot store, and without halves of surrogate pairs."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Return the value with a replacement character for each NUL, and `?` for each half of a surrogate pair."""
        if value is None:
            return None
        value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return value if is_unicode(value) else value.encode(errors="replace").decode()


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded: whether it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _world() -> sa.Column[int]:
    return sa.Column("world_id", sa.Integer, sa.ForeignKey("worlds.id"), nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)


def _time() -> sa.Column[float]:
    return sa.Column("created", sa.Float, nullable=False)


worlds = sa.Table(
    "worlds",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    _text("strategy"),
    sa.Column("low", sa.Float, nullable=False),
    sa.Column("high", sa.Float, nullable=False),
    _number("tasks"),
    _number("finished"),
    _time(),
)
versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _world(),
    _number("number"),
    sa.Column("parent", sa.Integer),
    _text("cause"),
    _text("source"),
    _text("context"),
    _text("model"),
    _text("strategy"),
    sa.Column("tokens", sa.Integer),
    _text("failure"),
    _number("learned"),
    _time(),
    sa.UniqueConstraint("world_id", "number", name="one_chain"),  # the compare-and-swap of Store.append
)
tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _world(),
    _number("number"),
    _text("name"),
    sa.Column("key", sa.Text),
    _text("rules"),
    _text("description"),
    _number("version"),
    sa.Column("arm", sa.Text, nullable=False, server_default="own"),
    sa.Column("null_share", sa.Float, nullable=False, server_default="0"),
    _time(),
    sa.UniqueConstraint("world_id", "number", name="task_number"),
    sa.UniqueConstraint("world_id", "name", name="task_name"),
    sa.Index("task_key", "world_id", "key", "number"),
)
turns = sa.Table(
    "turns",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), nullable=False),
    _number("position"),
    _text("observation"),
    _text("reply"),
    _time(),
    sa.Index("turns_of_task", "task_id"),
)
finishes = sa.Table(
    "finishes",
    metadata,
    sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), primary_key=True),
    _world(),
    _number("number"),
    sa.Column("reward", sa.Float),
    sa.Column("revealed", sa.Boolean, nullable=False),
    _text("feedback"),
    _text("outcome"),
    _time(),
    sa.UniqueConstraint("world_id", "number", name="finish_number"),
)
transcripts = sa.Table(
    "transcripts",
    metadata,
    sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    _text("episode"),
)
quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _world(),
    _number("number"),
    _text("context"),
    _text("reason"),
    _text("passage"),
    sa.Column("tokens", sa.Integer),
    sa.Column("decision", sa.Text),
    sa.Column("decided", sa.Float),
    _time(),
    sa.UniqueConstraint("world_id", "number", name="held_number"),
)
keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("worlds", sa.Text),
    sa.Column("writes", sa.Boolean, nullable=False),
    sa.Column("per_minute", sa.Integer),
    _time(),
    sa.Column("revoked", sa.Float),
)
