"""The store of an agent: worlds, the versions of their contexts, tasks, and how they ended.

Finishes of a world are numbered, and every version says how many of them it has learned from. So the newest version of
a world also says which update is due, and `append`, which only ever follows the newest version, counts each once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from codots.agent import rows
from codots.agent.changes import Change, Joining, Said
from codots.agent.database import Database
from codots.agent.records import (
    Cause,
    ConflictError,
    Finish,
    Joined,
    Outcome,
    StaleError,
    Task,
    Version,
    World,
    check_is_text,
    check_name,
    check_reward,
    check_text,
    dump,
    shortened,
)
from codots.agent.schema import finishes, quarantine, tasks, versions, worlds
from codots.agent.sql import sa
from codots.context.rewrite import Rewrite, Trajectory, Turn


class Store(Database):
    """Worlds, versions and tasks in a database. Every method is one transaction, and durable when it returns.

    Threads and processes may share a store. Raises UnknownError, with the nearest name, for an unknown world or task.
    """

    def create(self, world: str, strategy: dict[str, Any], bounds: tuple[float, float] = (0.0, 1.0)) -> World:
        """Return a world, which is made with an empty context if it does not exist.

        `strategy` holds the settings of its strategy, `bounds` the lowest and the highest reward.
        """
        check_name(world, "world")
        if not _is_range(bounds):
            raise ValueError(f"the bounds of rewards are {bounds!r}; expected a low and a high number, such as (0, 1)")
        try:
            with self.write() as c:
                if rows.find_world(c, world) is None:
                    _create(c, world, strategy, bounds)
        except sa.exc.IntegrityError:
            pass  # another process has just made it
        return self.world(world)

    def world(self, world: str) -> World:
        """Return a world."""
        with self.read() as c:
            return rows.as_world(rows.known_world(c, world))

    def worlds(self) -> list[World]:
        """Return all worlds by name."""
        with self.read() as c:
            return [rows.as_world(row) for row in c.execute(sa.select(worlds).order_by(worlds.c.name))]

    def head(self, world: str) -> Version:
        """Return the newest version of a world's context."""
        with self.read() as c:
            return rows.head(c, rows.known_world(c, world).id)

    def version(self, world: str, number: int) -> Version:
        """Return one version. Raises UnknownError if it does not exist or was pruned."""
        with self.read() as c:
            return rows.known_version(c, rows.known_world(c, world), number)

    def history(self, world: str, limit: int | None = None) -> list[Version]:
        """Return the versions of a world, oldest first; with a limit, the newest ones."""
        with self.read() as c:
            of_world = sa.select(versions).where(versions.c.world_id == rows.known_world(c, world).id)
            found = c.execute(of_world.order_by(versions.c.number.desc()).limit(limit)).all()
        return [rows.as_version(row) for row in reversed(found)]

    def before(self, world: str, number: int) -> Version | None:
        """Return the newest version before a number that was not pruned, or None."""
        with self.read() as c:
            older = sa.and_(versions.c.world_id == rows.known_world(c, world).id, versions.c.number < number)
            newest = sa.select(versions).where(older).order_by(versions.c.number.desc()).limit(1)
            found = c.execute(newest).one_or_none()
        return None if found is None else rows.as_version(found)

    def append(
        self,
        world: str,
        parent: Version,
        context: str,
        cause: Cause,
        source: str,
        *,
        model: str = "",
        tokens: int | None = None,
        failure: str = "",
        episode: dict[str, Any] | None = None,
        held: dict[str, Any] | None = None,
    ) -> Version:
        """Add a version after its parent. Raises StaleError if the parent is no longer the newest one.

        A version of cause `task` has learned from the next finish; `episode` is the update that wrote it, and `held`
        the context, its tokens, the reason and the passage of one that the guard holds back.
        """
        with self.write() as c:
            row = rows.known_world(c, world, lock=True)
            if rows.head(c, row.id).number != parent.number:
                raise StaleError(f"{world} has a newer version than {parent.number}")
            learned = parent.learned + (cause == "task")
            how, at = _name(json.loads(row.strategy)), parent.number
            new = Version(at + 1, at, cause, source, context, model, how, tokens, failure, learned, time.time())
            rows.insert_version(c, row.id, new)
            if episode is not None:
                finished = sa.and_(finishes.c.world_id == row.id, finishes.c.number == learned)
                task_id = c.execute(sa.select(finishes.c.task_id).where(finished)).scalar_one()
                rows.insert_episode(c, task_id, "update", episode)
            if held is not None:
                values = {"world_id": row.id, "number": new.number, "created": new.created} | held
                c.execute(sa.insert(quarantine).values(values))
        return new

    def put(self, world: str, context: str, cause: Cause, source: str, **details: Any) -> Version:
        """Add a version after the newest one, whichever that is."""
        while True:
            try:
                return self.append(world, self.head(world), context, cause, source, **details)
            except StaleError:
                continue

    def rollback(self, world: str, number: int) -> Version:
        """Add a version with the context of an earlier one."""
        old = self.version(world, number)
        return self.put(world, old.context, "rollback", f"version {number}", model=old.model, tokens=old.tokens)

    def fork(self, world: str, new: str) -> World:
        """Make a new world that starts with the newest context of another. Raises ConflictError if it exists."""
        check_name(new, "world")
        with self.write() as c:
            row = rows.known_world(c, world, lock=True)
            if rows.find_world(c, new) is not None:
                raise ConflictError(f"the world {new!r} exists; expected a new name")
            old = rows.head(c, row.id)
            id = _create(c, new, json.loads(row.strategy), (row.low, row.high))
            source = f"{world}, version {old.number}"
            new_one = replace(old, number=1, parent=0, cause="fork", source=source, failure="", learned=0)
            rows.insert_version(c, id, replace(new_one, created=time.time()))
        return self.world(new)

    def start(
        self, world: str, description: str, rules: str = "", name: str | None = None, null_share: float = 0.0
    ) -> Task:
        """Start a task with the newest context or, for a share of the tasks, without it.

        Raises ConflictError if the name is taken.
        """
        check_text(description, "description")
        check_text(rules, "rules text")
        if name is not None:
            check_name(name, "task")
        if name is not None and name.startswith(rows.AUTOMATIC):
            raise ValueError(f"the task {name!r}; names that start with {rows.AUTOMATIC} are given by the store")
        with self.write() as c:
            row = rows.known_world(c, world, lock=True)
            if name is not None and rows.find_task(c, row, name) is not None:
                raise ConflictError(f"the task {name!r} of {world} exists; expected a new name")
            return rows.as_task(world, rows.start_task(c, row, name, None, rules, description, null_share))

    def find(self, wanted: Joining) -> Joined | None:
        """Return a task that goes on, or None if it has to be started. Raises ConflictError if it is finished."""
        with self.read() as c:
            return wanted.find(c, rows.known_world(c, wanted.world))

    def task(self, world: str, name: str) -> Task:
        """Return a task by its name."""
        with self.read() as c:
            return rows.as_task(world, rows.known_task(c, rows.known_world(c, world), name))

    def given(self, task: Task) -> str:
        """Return the context that a task was given: none, if it was withheld."""
        return "" if task.arm == "null" else self.version(task.world, task.version).context

    def tasks(self, world: str, limit: int = 100) -> list[Task]:
        """Return the newest tasks of a world, newest first."""
        with self.read() as c:
            of_world = rows.TASKS.where(tasks.c.world_id == rows.known_world(c, world).id)
            newest = of_world.order_by(tasks.c.number.desc()).limit(limit)
            return [rows.as_task(world, row) for row in c.execute(newest)]

    def record(self, world: str, name: str, position: int, turn: Turn, asked: float | None = None) -> None:
        """Record a turn of an open task. It replaces those from its position on, unless they were asked for later.

        `asked` is the time of the request for its reply, in seconds since 1970, by default now.
        """
        said = Said(world, name, position, turn, time.time() if asked is None else asked)
        (refused,) = self.make_all([said])
        if refused:
            raise refused

    def make_all(self, changes: Sequence[Change]) -> list[Any]:
        """Make changes in one transaction, and return for each its result, or the ValueError of why it was refused."""
        results: list[Any] = [None] * len(changes)
        with self.write() as c:
            for i in sorted(range(len(changes)), key=lambda i: changes[i].world):  # one order of locks: no deadlock
                try:
                    # The lock of the world keeps a finish from coming between the checks of a change and its writes.
                    results[i] = changes[i].apply(c, rows.known_world(c, changes[i].world, lock=True))
                except ValueError as error:
                    results[i] = error
        return results

    def turns(self, world: str, name: str) -> tuple[Turn, ...]:
        """Return the recorded turns of a task."""
        with self.read() as c:
            return rows.read_turns(c, rows.known_task(c, rows.known_world(c, world), name).id)

    def finish(self, world: str, name: str, told: Outcome) -> Finish:
        """End a task, and queue its update. Raises ConflictError if it has ended before."""
        check_text(told.feedback, "feedback")
        check_is_text(told.outcome, "outcome")
        with self.write() as c:
            row = rows.known_world(c, world, lock=True)
            check_reward(told.reward, row.low, row.high)
            id, number = rows.open_task(c, row, name).id, rows.count(c, row.id, "finished")
            finish = Finish(number, told.reward, told.feedback, shortened(told.outcome), told.revealed, time.time())
            c.execute(sa.insert(finishes).values(task_id=id, world_id=row.id, **vars(finish)))
            rows.add_turns(c, id, 0, told.turns, finish.created)
            if told.episode is not None:
                rows.insert_episode(c, id, "solve", told.episode)
        return finish

    def due(self, world: str) -> tuple[Version, Task, Trajectory] | None:
        """Return the update that is due: the newest version, the next finished task and its trajectory, or None."""
        with self.read() as c:
            row = rows.known_world(c, world)
            head = rows.head(c, row.id)
            next = rows.TASKS.where(finishes.c.world_id == row.id, finishes.c.number == head.learned + 1)
            if (found := c.execute(next).one_or_none()) is None:
                return None
            task, said = rows.as_task(world, found), rows.read_turns(c, found.id)
        said = said or (Turn(task.description, ""),)  # no turn was recorded
        assert task.finish is not None
        reward = task.finish.reward if task.finish.revealed else None
        return head, task, Trajectory(task.rules, said, task.finish.outcome, reward, task.finish.feedback)

    def version_after(self, world: str, number: int) -> Version | None:
        """Return the version that learned from the finish of a number, or None if its update is due."""
        with self.read() as c:
            of_world = versions.c.world_id == rows.known_world(c, world).id
            # No version has learned from more finishes than its number, so earlier ones need not be read.
            since = sa.select(versions).where(of_world, versions.c.number >= number, versions.c.learned >= number)
            found = c.execute(since.order_by(versions.c.number).limit(1)).one_or_none()
        return None if found is None else rows.as_version(found)

    def worlds_due(self) -> list[str]:
        """Return the worlds that have an update due."""
        newest = sa.select(versions.c.learned).where(versions.c.world_id == worlds.c.id)
        learned = newest.order_by(versions.c.number.desc()).limit(1).scalar_subquery()
        with self.read() as c:
            return list(c.execute(sa.select(worlds.c.name).where(worlds.c.finished > learned)).scalars())


def _is_range(bounds: Any) -> bool:
    """Return whether these are a low and a high number."""
    try:
        low, high = bounds
        return bool(-math.inf < low < high < math.inf)
    except (TypeError, ValueError):
        return False


def _create(c: sa.Connection, world: str, strategy: dict[str, Any], bounds: Sequence[float]) -> int:
    """Add a world with an empty context, and return its id."""
    (low, high), now = bounds, time.time()
    counts = {"low": low, "high": high, "tasks": 0, "finished": 0, "created": now}
    new = sa.insert(worlds).values(name=world, strategy=dump(strategy), **counts)
    id: int = c.execute(new.returning(worlds.c.id)).scalar_one()
    rows.insert_version(c, id, Version(0, None, "start", "", "", "", _name(strategy), 0, "", 0, now))
    return id


def _name(strategy: dict[str, Any]) -> str:
    """Return the name of a strategy, given its settings."""
    return str(strategy.get("strategy", Rewrite.name))
