"""Measure a store: many clients of one world, and a store of many tasks.

    python benchmarks/agent_store.py --clients 32 --finishes 2000 --store agent.db
    python benchmarks/agent_store.py --tasks 1000000

The first form finishes tasks from many threads while two others run the updates, and checks the chain. `--store` may be
a URL of PostgreSQL. The second fills a new store, and times reading a context and appending a version.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from codots.agent.records import Outcome, StaleError
from codots.agent.schema import finishes, tasks, turns, versions, worlds
from codots.agent.sql import sa
from codots.agent.store import Store
from codots.context.rewrite import Rewrite, Turn

PER_WORLD = 1000
SAID = (Turn("2 + 2?", "5"), Turn("no", "4"))


def race(where: str, clients: int, total: int) -> dict:
    """Finish tasks of one world from many clients, with two racing updaters; return what is in the store."""
    began = time.monotonic()
    with Store(where) as store, Store(where) as other:
        store.create("world", Rewrite().settings())
        stale, over = [0, 0], threading.Event()

        def finish(client: int) -> None:
            for _ in range(total // clients + (client < total % clients)):
                task = store.start("world", "2 + 2?", "Add.")
                store.finish("world", task.name, Outcome(0.5, turns=SAID))

        def update(own: Store, number: int) -> None:
            while own.head("world").learned < total and not over.is_set():
                if (due := own.due("world")) is None:
                    time.sleep(0.001)
                    continue
                head, task, _ = due
                try:
                    own.append("world", head, str(head.learned + 1), "task", task.name)
                except StaleError:
                    stale[number] += 1

        with ThreadPoolExecutor(clients + 2) as pool:
            updating = [pool.submit(update, one, i) for i, one in enumerate((store, other))]
            list(pool.map(finish, range(clients)))
            finished = time.monotonic() - began
            for one in updating:
                one.result()
        chain = store.history("world")
        sources = {version.source for version in chain if version.cause == "task"}
        assert [v.number for v in chain] == list(range(total + 1)), "the chain has a gap"
        assert len(sources) == total, "an update is missing or counted twice"
    seconds = {"finished": round(finished, 1), "learned": round(time.monotonic() - began, 1)}
    return {"clients": clients, "updates": len(chain) - 1, "conflicts": sum(stale), "seconds": seconds}


def fill(store: Store, count: int) -> None:
    """Add finished tasks with their turns and versions, in many worlds, in large transactions."""
    settings, now = json.dumps(Rewrite().settings()), time.time()
    for world in range(1, count // PER_WORLD + 1):
        ids = [world * PER_WORLD + i for i in range(PER_WORLD)]
        head = {"world_id": world, "created": now}
        named = {"name": f"world-{world}", "strategy": settings, "low": 0.0, "high": 1.0, "created": now}
        with store.write() as c:
            c.execute(sa.insert(worlds), [named | {"id": world, "tasks": PER_WORLD, "finished": PER_WORLD}])
            c.execute(sa.insert(versions), [head | version(i) for i in range(PER_WORLD + 1)])
            c.execute(sa.insert(tasks), [head | task(id, i) for i, id in enumerate(ids)])
            c.execute(sa.insert(turns), [said(id, at, now) for id in ids for at in range(2)])
            c.execute(sa.insert(finishes), [head | ended(id, i) for i, id in enumerate(ids, start=1)])


def version(number: int) -> dict:
    texts = {"cause": "task", "source": f"task-{number - 1}", "context": "note " * 200, "model": "m", "failure": ""}
    counts = {"number": number, "parent": number - 1 if number else None, "learned": number, "tokens": 200}
    return texts | counts | {"strategy": "rewrite"}


def task(id: int, number: int) -> dict:
    texts = {"name": f"task-{number}", "rules": "Add.", "description": "2 + 2?"}
    return texts | {"id": id, "number": number, "version": number}


def said(id: int, at: int, now: float) -> dict:
    return {"task_id": id, "position": at, "observation": "2 + 2? " * 20, "reply": "4 " * 20, "created": now}


def ended(id: int, number: int) -> dict:
    return {"task_id": id, "number": number, "reward": 1.0, "revealed": True, "feedback": "right", "outcome": ""}


def large(where: str, count: int) -> dict:
    """Fill a new store and time it."""
    with Store(where) as store:
        fill(store, count)
        reads, appends = [], []
        for i in range(2000):
            name = f"world-{1 + i * 7919 % (count // PER_WORLD)}"
            began = time.perf_counter()
            head = store.head(name)
            reads.append(time.perf_counter() - began)
            began = time.perf_counter()
            store.append(name, head, head.context, "import", "benchmark")
            appends.append(time.perf_counter() - began)
    size = Path(where).stat().st_size / 2**30 if "://" not in where else None
    found = {name: {p: ms(times, p) for p in (50, 99)} for name, times in (("read", reads), ("append", appends))}
    return {"tasks": count, "GiB": size and round(size, 2), "ms": found}


def ms(times: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    return round(1000 * sorted(times)[int(share / 100 * len(times))], 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--finishes", type=int, default=2000)
    parser.add_argument("--tasks", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="codots-store-") as folder:
        where = options.store or str(Path(folder) / "agent.db")
        found = large(where, options.tasks) if options.tasks else race(where, options.clients, options.finishes)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
