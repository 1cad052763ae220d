"""Rows of the tables as records, inside an open transaction `c`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from codots.agent.records import (
    ConflictError,
    Finish,
    Task,
    UnknownError,
    UnknownWorldError,
    Version,
    World,
    dump,
    shortened,
)
from codots.agent.schema import finishes, tasks, transcripts, turns, versions, worlds
from codots.agent.sql import sa
from codots.context.rewrite import Turn
from codots.core.rng import digest
from codots.core.suggest import nearest

AUTOMATIC = "task-"
"""Start of the names of tasks that were given none."""
TASK = ("number", "name", "rules", "description", "version", "arm", "null_share", "created")
FINISH = ("number", "reward", "feedback", "outcome", "revealed", "created")
TASKS = sa.select(tasks, *(finishes.c[name].label(f"finish_{name}") for name in FINISH)).select_from(
    tasks.outerjoin(finishes, finishes.c.task_id == tasks.c.id)
)
"""Tasks with how they ended."""
# Statements of every chat are made once: to make one takes longer than to run it.
_WORLD = sa.select(worlds).where(worlds.c.name == sa.bindparam("name"))
_LOCKED_WORLD = _WORLD.with_for_update()
_VERSION = sa.select(versions).where(
    versions.c.world_id == sa.bindparam("world"), versions.c.number == sa.bindparam("number")
)
_NAMED = TASKS.where(tasks.c.world_id == sa.bindparam("world"), tasks.c.name == sa.bindparam("name"))
_OF_KEY = (
    TASKS.where(tasks.c.world_id == sa.bindparam("world"), tasks.c.key == sa.bindparam("key"))
    .order_by(tasks.c.number.desc())
    .limit(1)
)
_BY_ID = TASKS.where(tasks.c.id == sa.bindparam("id"))
_HEAD = (
    sa.select(versions).where(versions.c.world_id == sa.bindparam("world")).order_by(versions.c.number.desc()).limit(1)
)
_COUNTS = {
    name: sa.update(worlds)
    .where(worlds.c.id == sa.bindparam("world"))
    .values({name: worlds.c[name] + 1})
    .returning(worlds.c[name])
    for name in ("tasks", "finished")
}
_TASK = sa.insert(tasks).returning(tasks.c.id)
_TURN = sa.insert(turns)
_NEWEST_BEFORE = sa.select(sa.func.max(turns.c.created)).where(
    turns.c.task_id == sa.bindparam("task"), turns.c.position < sa.bindparam("position")
)


def find_world(c: sa.Connection, world: str) -> Any:
    """Return the row of a world, or None."""
    return c.execute(_WORLD, {"name": world}).one_or_none()


def known_world(c: sa.Connection, world: str, lock: bool = False) -> Any:
    """Return the row of a world. With `lock`, other transactions that lock it wait until this one ends."""
    if (row := c.execute(_LOCKED_WORLD if lock else _WORLD, {"name": world}).one_or_none()) is None:
        names = list(c.execute(sa.select(worlds.c.name)).scalars())
        others = nearest(world, names, "world") if names else f"unknown world {world!r}; there is none yet"
        raise UnknownWorldError(others, world)
    return row


def as_world(row: Any) -> World:
    """Return a row of a world as a record."""
    values = {name: getattr(row, name) for name in ("low", "high", "tasks", "finished", "created")}
    return World(row.name, json.loads(row.strategy), **values)


def as_version(row: Any) -> Version:
    """Return a row of a version as a record."""
    return Version(**{name: getattr(row, name) for name in Version.__dataclass_fields__})


def head(c: sa.Connection, world_id: int) -> Version:
    """Return the newest version of a world."""
    return as_version(c.execute(_HEAD, {"world": world_id}).one())


def known_version(c: sa.Connection, world: Any, number: int) -> Version:
    """Return a version of a world."""
    if not isinstance(number, int):
        raise UnknownError(f"{world.name} has no version {number!r}; expected a number")
    row = c.execute(_VERSION, {"world": world.id, "number": number}).one_or_none()
    if row is None:
        ends = sa.select(sa.func.min(versions.c.number), sa.func.max(versions.c.number))
        first, last = c.execute(ends.where(versions.c.world_id == world.id)).one()
        if first < number < last:
            raise UnknownError(f"version {number} of {world.name} was pruned")
        raise UnknownError(f"{world.name} has no version {number}; expected one from {first} to {last}")
    return as_version(row)


def insert_version(c: sa.Connection, world_id: int, version: Version) -> None:
    """Add a version."""
    c.execute(sa.insert(versions).values(world_id=world_id, **vars(version)))


def insert_episode(c: sa.Connection, task_id: int, kind: str, episode: dict[str, Any]) -> None:
    """Add the solve or update episode of a task."""
    c.execute(sa.insert(transcripts).values(task_id=task_id, kind=kind, episode=dump(episode)))


def count(c: sa.Connection, world_id: int, name: str) -> int:
    """Add 1 to a counter of a world, `tasks` or `finished`, and return it."""
    number: int = c.execute(_COUNTS[name], {"world": world_id}).scalar_one()
    return number


def find_task(c: sa.Connection, world: Any, name: str) -> Any:
    """Return the row of a task, or None."""
    return c.execute(_NAMED, {"world": world.id, "name": name}).one_or_none()


def known_task(c: sa.Connection, world: Any, name: str) -> Any:
    """Return the row of a task."""
    if (row := find_task(c, world, name)) is None:
        newest = sa.select(tasks.c.name).where(tasks.c.world_id == world.id).order_by(tasks.c.number.desc()).limit(20)
        names = list(c.execute(newest).scalars())
        missing = f"unknown task {name!r}; {world.name} has none yet"
        raise UnknownError(nearest(name, names, f"task of {world.name}") if names else missing)
    return row


def task_of_key(c: sa.Connection, world: Any, key: str) -> Any:
    """Return the row of the newest task with a key, or None."""
    return c.execute(_OF_KEY, {"world": world.id, "key": key}).one_or_none()


def start_task(
    c: sa.Connection,
    world: Any,
    name: str | None,
    key: str | None,
    rules: str,
    description: str,
    null_share: float,
) -> Any:
    """Add a task with the newest context of a world, whose row is locked, and return its row.

    A share of the tasks gets no context. None is drawn while the context is empty: there is nothing to withhold.
    """
    if name is not None and name.startswith(AUTOMATIC):
        raise UnknownError(f"unknown task {name!r}; names that start with {AUTOMATIC} are given by the store")
    newest, number = head(c, world.id), count(c, world.id, "tasks") - 1
    name, share = name or f"{AUTOMATIC}{number}", null_share if newest.context else 0.0
    arm = "null" if withheld(world.name, name, share) else "own"
    values = {"name": name, "number": number, "rules": rules, "description": description}
    drawn = {"version": newest.number, "arm": arm, "null_share": share}
    added = {"world_id": world.id, "key": key, "created": time.time()} | values | drawn
    id = c.execute(_TASK, added).scalar_one()
    return c.execute(_BY_ID, {"id": id}).one()


def withheld(world: str, task: str, share: float) -> bool:
    """Return whether a task gets no context: drawn from its name and its world's, alike in every process."""
    return digest("null share", world, task) < share * 2**128


def given_context(c: sa.Connection, world: Any, task: Any) -> str:
    """Return the context that the row of a task was given. Raises UnknownError if its version was pruned."""
    return "" if task.arm == "null" else known_version(c, world, task.version).context


def open_task(c: sa.Connection, world: Any, name: str) -> Any:
    """Return the row of a task that is not finished."""
    row = known_task(c, world, name)
    check_open(world, row)
    return row


def check_open(world: Any, task: Any) -> None:
    """Raise ConflictError for the row of a finished task."""
    if task.finish_number is not None:
        raise ConflictError(f"the task {task.name!r} of {world.name} is finished; expected an open task")


def as_task(world: str, row: Any) -> Task:
    """Return a row of a task as a record."""
    ended = {name: getattr(row, f"finish_{name}") for name in FINISH}
    finish = None if ended["number"] is None else Finish(**ended)
    return Task(world, **{name: getattr(row, name) for name in TASK}, finish=finish)


def add_turns(c: sa.Connection, task_id: int, position: int, said: Sequence[Turn], asked: float) -> None:
    """Add turns, shortened where they are too long, from a position on, for which the model was asked at this time."""
    for at, turn in enumerate(said, start=position):
        texts = {"observation": shortened(turn.observation), "reply": shortened(turn.reply)}
        c.execute(_TURN, {"task_id": task_id, "position": at, "created": asked} | texts)


def newest_before(c: sa.Connection, task_id: int, position: int) -> float:
    """Return when the newest turn before a position was asked for, or 0 if there is none."""
    return c.execute(_NEWEST_BEFORE, {"task": task_id, "position": position}).scalar_one() or 0.0


def read_turns(c: sa.Connection, task_id: int) -> tuple[Turn, ...]:
    """Return the turns of a task. A turn replaces those that were asked for before it, from its position on."""
    kept: list[Turn] = []
    for row in c.execute(sa.select(turns).where(turns.c.task_id == task_id).order_by(turns.c.created, turns.c.id)):
        kept[row.position :] = [Turn(row.observation, row.reply)]
    return tuple(kept)
