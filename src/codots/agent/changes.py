"""Changes of a world that chats make. Those that come at once share a transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from codots.agent import rows
from codots.agent.records import Joined, check_name, shortened
from codots.agent.sql import sa
from codots.context.rewrite import Turn


@dataclass(frozen=True)
class Joining:
    """A task to go on with: the open one of a name or, without a name, of a key. It is started if there is none."""

    world: str
    name: str | None
    key: str
    rules: str
    description: str
    """Of rules and a description that are too long, the beginning and the end are kept."""
    said: tuple[Turn, ...] = ()
    """Turns with which the task begins, if it is the first of its chat: those of a chat that began elsewhere."""
    null_share: float = 0.0
    """Probability with which a task that is started gets no context."""

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "task")

    def find(self, c: sa.Connection, world: Any) -> Joined | None:
        """Return the task, or None if there is none. Raises ConflictError if the task of the name is finished."""
        row = rows.find_task(c, world, self.name) if self.name else rows.task_of_key(c, world, self.key)
        if row is None or (self.name is None and row.finish_number is not None):
            return None
        rows.check_open(world, row)
        return Joined(rows.as_task(world.name, row), rows.given_context(c, world, row), json.loads(world.strategy))

    def apply(self, c: sa.Connection, world: Any) -> Joined:
        """Return the task, which is started if there is none."""
        if (found := self.find(c, world)) is None:
            key = self.key if self.name is None else None
            said = () if key and rows.task_of_key(c, world, key) else self.said  # the earlier task of the chat has them
            texts = (shortened(self.rules), shortened(self.description))
            row = rows.start_task(c, world, self.name, key, *texts, self.null_share)
            rows.add_turns(c, row.id, 0, said, 0.0)  # asked for before all others, at a time that is not known
            found = self.find(c, world)
        assert found is not None
        return found


@dataclass(frozen=True)
class Said:
    """A turn to record. It replaces those from its position on, unless they were asked for later."""

    world: str
    task: str
    position: int
    """Number of replies before it."""
    turn: Turn
    asked: float
    """When its reply was asked for, in seconds since 1970."""

    def apply(self, c: sa.Connection, world: Any) -> None:
        """Record the turn. Raises ConflictError if the task is finished."""
        id = rows.open_task(c, world, self.task).id
        # A turn was asked for after those that it answers, whatever the clocks of two servers say.
        asked = max(self.asked, rows.newest_before(c, id, self.position)) if self.position else self.asked
        rows.add_turns(c, id, self.position, [self.turn], asked)


Change = Joining | Said
