"""Contexts that the guard holds back: a person adopts or drops each."""

from __future__ import annotations

import time
from typing import Any

from codots.agent import rows
from codots.agent.records import ConflictError, Held, UnknownError, Version
from codots.agent.schema import quarantine, versions, worlds
from codots.agent.sql import sa
from codots.agent.store import Store

_HELD = sa.select(quarantine, versions.c.source, versions.c.model).select_from(
    quarantine.join(
        versions, sa.and_(versions.c.world_id == quarantine.c.world_id, versions.c.number == quarantine.c.number)
    )
)


def list_held(store: Store, world: str, decided: bool = False) -> list[Held]:
    """Return the contexts of a world that wait for a person, oldest first; with `decided`, also those of the past."""
    with store.read() as c:
        of_world = quarantine.c.world_id == rows.known_world(c, world).id
        wanted = of_world if decided else of_world & quarantine.c.decision.is_(None)
        return [_as_held(row) for row in c.execute(_HELD.where(wanted).order_by(quarantine.c.number))]


def read_held(store: Store, world: str, number: int) -> Held:
    """Return the context that was held back in the version of a number. Raises UnknownError if there is none."""
    with store.read() as c:
        return _as_held(_known(c, rows.known_world(c, world), number))


def adopt(store: Store, world: str, number: int, replace: bool = False) -> Version:
    """Make a context that was held back the newest version.

    Raises ConflictError if it was decided on before, or if the context has changed since it was held back. Then
    `replace` puts it in place of the newest one, and what was learned since is only in the history.
    """
    with store.write() as c:
        row = rows.known_world(c, world, lock=True)
        held, head = _waiting(c, row, number), rows.head(c, row.id)
        if not replace and head.context != rows.known_version(c, row, number).context:
            raise ConflictError(
                f"the context of {world} has changed since version {number}; expected replace, which puts the held "
                f"context in place of version {head.number}, or drop"
            )
        written = (held.context, held.model, head.strategy, held.tokens)
        new = Version(head.number + 1, head.number, "adopt", held.source, *written, "", head.learned, time.time())
        rows.insert_version(c, row.id, new)
        _decide(c, row, number, "adopted")
    return new


def drop(store: Store, world: str, number: int) -> Held:
    """Decide that a context which was held back stays out. Raises ConflictError if it was decided on before."""
    with store.write() as c:
        row = rows.known_world(c, world, lock=True)
        _waiting(c, row, number)
        _decide(c, row, number, "dropped")
    return read_held(store, world, number)


def count_waiting(store: Store) -> dict[str, int]:
    """Return the number of contexts that wait for a person, for each world."""
    counts = sa.select(worlds.c.name, sa.func.count(quarantine.c.id)).select_from(
        worlds.outerjoin(quarantine, (quarantine.c.world_id == worlds.c.id) & quarantine.c.decision.is_(None))
    )
    with store.read() as c:
        found = c.execute(counts.group_by(worlds.c.name).order_by(worlds.c.name)).all()
    return {row[0]: row[1] for row in found}


def _known(c: sa.Connection, world: Any, number: int) -> Any:
    of_world = quarantine.c.world_id == world.id
    found = c.execute(_HELD.where(of_world, quarantine.c.number == number)).one_or_none()
    if found is None:
        waits = of_world & quarantine.c.decision.is_(None)
        numbers = c.execute(sa.select(quarantine.c.number).where(waits).order_by(quarantine.c.number)).scalars()
        known = ", ".join(map(str, numbers))
        others = f"expected one of {known}" if known else "nothing waits there"
        raise UnknownError(f"version {number!r:.20} of {world.name} was not held back; {others}")
    return found


def _waiting(c: sa.Connection, world: Any, number: int) -> Any:
    row = _known(c, world, number)
    if row.decision is not None:
        raise ConflictError(f"the held context of version {number} of {world.name} was {row.decision} before")
    return row


def _decide(c: sa.Connection, world: Any, number: int, decision: str) -> None:
    this = (quarantine.c.world_id == world.id) & (quarantine.c.number == number)
    c.execute(sa.update(quarantine).where(this).values(decision=decision, decided=time.time()))


def _as_held(row: Any) -> Held:
    return Held(**{name: getattr(row, name) for name in Held.__dataclass_fields__})
