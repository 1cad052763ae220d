"""Kill a server with kill -9 again and again under load, and check that it loses and repeats nothing.

    python benchmarks/agent_kills.py --kills 200 --clients 8

Clients start tasks, chat and finish them, in several worlds. The server runs in a process that is killed at random
moments and restarted on the same store. At the end, every acknowledged finish must be in the store, and the context of
each world, which counts its updates, must be the number of its finishes: no update is lost or counted twice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import agent_upstream
import httpx

from codots.agent.server import make_app
from codots.agent.serving import gateway, listening, serve
from codots.agent.store import Store

WORLDS = 4
FORK = multiprocessing.get_context("fork")  # the imports are done once
MESSAGES = [{"role": "system", "content": "Open a door."}, {"role": "user", "content": "Which door?"}]


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def run_server(port: int, store: str) -> None:
    """Serve until the process is killed."""
    with gateway(store, "openai:m", "default") as service:
        serve(service, make_app(service), listening("127.0.0.1", port))


def restart(kills: int, port: int, store: str, seed: int) -> None:
    """Start the server and kill it a random time after it listens, again and again."""
    rng = random.Random(seed)
    for _ in range(kills):
        server = FORK.Process(target=run_server, args=(port, store))
        server.start()
        wait_for(port)
        time.sleep(rng.uniform(0.0, 1.0))
        server.kill()
        server.join()


def wait_for(port: int) -> None:
    """Wait until a server listens."""
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)


def client(url: str, number: int, acknowledged: list, over: threading.Event) -> None:
    """Chat and finish tasks until the end; note what was acknowledged. What fails is tried again as a new task."""
    world, at = f"world-{number % WORLDS}", 0
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        while not over.is_set():
            at += 1
            name = f"client-{number}-{at}"
            try:
                http.put(f"/v1/worlds/{world}", json={}).raise_for_status()
                body = {"model": "m", "messages": MESSAGES, "metadata": {"world": world, "task": name}}
                http.post("/v1/chat/completions", json=body).raise_for_status()
                told = {"reward": 0.5, "feedback": name}
                http.post(f"/v1/worlds/{world}/tasks/{name}/finish", json=told).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.02)  # the server is down
            else:
                acknowledged.append((world, name))


def check(store: Store, acknowledged: list) -> dict:
    """Return what was found. Raises AssertionError if a promise is broken."""
    finishes = 0
    for world in store.worlds():
        done = {task.name for task in store.tasks(world.name, 10**9) if task.finish}
        lost = {name for at, name in acknowledged if at == world.name} - done
        assert not lost, f"{world.name} has lost {len(lost)} finishes"
        versions = store.history(world.name)
        assert [v.number for v in versions] == list(range(len(versions)))
        learned = [v.source for v in versions if v.cause == "task"]
        assert sorted(learned) == sorted(done), f"{world.name} has not learned once from each finish"
        assert versions[-1].context == (str(len(done)) if done else "")
        finishes += len(done)
    return {"acknowledged": len(acknowledged), "finishes": finishes, "lost": 0, "twice": 0}


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    store = str(Path(tempfile.mkdtemp(prefix="codots-kills-")) / "agent.db")
    ready, upstream_port, port = FORK.Event(), free_port(), free_port()
    upstream = FORK.Process(target=agent_upstream.run, args=(upstream_port, ready), daemon=True)
    upstream.start()
    ready.wait()
    os.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{upstream_port}/v1"
    acknowledged, over, url = [], threading.Event(), f"http://127.0.0.1:{port}"
    servers = FORK.Process(target=restart, args=(options.kills, port, store, options.seed))
    servers.start()  # before the threads of the clients
    clients = [threading.Thread(target=client, args=(url, i, acknowledged, over)) for i in range(options.clients)]
    for one in clients:
        one.start()
    servers.join()
    over.set()
    for one in clients:
        one.join()
    last = FORK.Process(target=run_server, args=(port, store))
    last.start()
    with Store(store) as opened:
        while opened.worlds_due():
            time.sleep(0.1)
        found = check(opened, acknowledged)
    last.terminate()
    last.join()
    upstream.kill()
    print(json.dumps({"kills": options.kills, **found, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
