"""Measure what codots adds to a chat: an open loop of requests before an upstream that answers at once.

    python benchmarks/agent_latency.py --rate 100 --seconds 60

Each task has four turns; every turn reads the context, and is recorded with a sync to disk before it is answered. The
added latency of a request is its time minus the median time of the same request without codots. Saturation is the rate
of a closed loop of 32 clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import agent_upstream
from agent_kills import free_port

TURNS = 4
RULES = {"role": "system", "content": "You write patches for a repository. " * 20}


def turn(task: int, at: int) -> bytes:
    """Return the request of one turn of a task."""
    said = [{"role": "assistant", "content": "an answer"}, {"role": "user", "content": "2 tests fail. " * 20}]
    messages = [RULES, {"role": "user", "content": f"Fix issue {task}."}, *said * at]
    body = json.dumps({"model": "m", "messages": messages, "metadata": {"task": f"issue-{task}"}}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Pool:
    """Connections to a server."""

    def __init__(self, port: int) -> None:
        self.port, self.free = port, []

    async def ask(self, request: bytes) -> float:
        """Send a request, and return the seconds until its answer."""
        began = time.perf_counter()
        reader, writer = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        status, size = await reader.readline(), 0
        while (line := await reader.readline()).strip():
            if line.lower().startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        body = await reader.readexactly(size)
        assert b" 200 " in status, body
        self.free.append((reader, writer))
        return time.perf_counter() - began


async def open_loop(pool: Pool, rate: float, seconds: float, first: int) -> list[float]:
    """Start a request at each tick, whatever the earlier ones do."""
    began, running = time.perf_counter(), []
    for i in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + i / rate - time.perf_counter()))
        running.append(asyncio.create_task(pool.ask(turn(first + i // TURNS, i % TURNS))))
    return await asyncio.gather(*running)


async def closed_loop(pool: Pool, clients: int, seconds: float, first: int) -> float:
    """Return the requests per second of clients that each wait for their answers."""
    over, count = time.perf_counter() + seconds, 0

    async def client(number: int) -> None:
        nonlocal count
        task = first + number
        while time.perf_counter() < over:
            for at in range(TURNS):
                await pool.ask(turn(task, at))
                count += 1
            task += clients

    await asyncio.gather(*map(client, range(clients)))
    return count / seconds


def quantile(values: list[float], share: float) -> float:
    """Return a quantile, in milliseconds."""
    return round(1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))], 2)


async def measure(options: argparse.Namespace, upstream: int, server: int) -> dict:
    """Return the added latency and the saturation."""
    direct, through = Pool(upstream), Pool(server)
    await open_loop(through, options.rate, 2, 10_000_000)
    bare = await open_loop(direct, options.rate, 5, 0)
    seconds = await open_loop(through, options.rate, options.seconds, 0)
    base = sorted(bare)[len(bare) // 2]
    added = [one - base for one in seconds]
    found = {f"added p{share:g} ms": quantile(added, share / 100) for share in (50, 90, 99, 99.9)}
    saturation = await closed_loop(through, 32, options.seconds / 4, 20_000_000)
    return {"requests": len(seconds), "rate": options.rate, **found, "saturation per s": round(saturation)}


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ready, upstream, server = context.Event(), free_port(), free_port()
    behind = context.Process(target=agent_upstream.run, args=(upstream, ready), daemon=True)
    behind.start()
    ready.wait()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1"}
        store = ["--store", str(Path(folder) / "agent.db"), "--port", str(server)]
        command = [sys.executable, "-m", "codots", "serve", "openai:m", *store]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as served:
            served.stdout.readline()
            print(json.dumps(asyncio.run(measure(options, upstream, server))))
            served.terminate()
    behind.kill()


if __name__ == "__main__":
    main()
