"""What a store forgets: old versions with their transcripts, or a whole world."""

from __future__ import annotations

from codots.agent import rows
from codots.agent.schema import finishes, quarantine, tasks, transcripts, turns, versions, worlds
from codots.agent.sql import sa
from codots.agent.store import Store

_finished = sa.exists().where(finishes.c.task_id == tasks.c.id)


def prune(store: Store, world: str, keep: int) -> tuple[int, int, int]:
    """Delete old versions of a world, and what was said in the tasks that they have learned from.

    The newest `keep` versions stay, those that open tasks were given, and those that wait in quarantine. Tasks stay
    with their rewards and feedback. Return the number of versions deleted, of tasks without their turns, and of
    versions that are left.
    """
    if keep < 1:
        raise ValueError(f"keep {keep} versions; expected at least 1")
    with store.write() as c:
        row = rows.known_world(c, world, lock=True)
        first = rows.head(c, row.id).number - keep + 1
        given = sa.select(tasks.c.version).where(tasks.c.world_id == row.id, ~_finished)
        waits = sa.select(quarantine.c.number).where(quarantine.c.world_id == row.id, quarantine.c.decision.is_(None))
        older = sa.and_(versions.c.world_id == row.id, versions.c.number < first)
        old = sa.and_(older, versions.c.number.not_in(given), versions.c.number.not_in(waits))
        learned = c.execute(sa.select(sa.func.max(versions.c.learned)).where(old)).scalar() or 0
        done = sa.select(finishes.c.task_id).where(finishes.c.world_id == row.id, finishes.c.number <= learned)
        said = c.execute(
            sa.select(sa.func.count(turns.c.task_id.distinct())).where(turns.c.task_id.in_(done))
        ).scalar_one()
        _delete_said(c, done)
        gone = c.execute(sa.delete(versions).where(old)).rowcount
        kept = sa.select(versions.c.number).where(versions.c.world_id == row.id)
        c.execute(sa.delete(quarantine).where(quarantine.c.world_id == row.id, quarantine.c.number.not_in(kept)))
        left = c.execute(sa.select(sa.func.count()).where(versions.c.world_id == row.id)).scalar_one()
    return gone, said, left


def forget(store: Store, world: str) -> None:
    """Delete a world with all that is known of it. In SQLite, its bytes are overwritten.

    Raises ValueError if another process reads the log of SQLite, which may still hold them; to forget again clears it.
    """
    store.flush()
    with store.write() as c:
        id = rows.known_world(c, world, lock=True).id
        _delete_said(c, sa.select(tasks.c.id).where(tasks.c.world_id == id))
        for table in (finishes, tasks, versions, quarantine):
            c.execute(sa.delete(table).where(table.c.world_id == id))
        c.execute(sa.delete(worlds).where(worlds.c.id == id))
    store.flush()


def _delete_said(c: sa.Connection, task_ids: sa.Select[tuple[int]]) -> None:
    for table in (turns, transcripts):
        c.execute(sa.delete(table).where(table.c.task_id.in_(task_ids)))
