"""Measure what `codots serve` adds to a chat, in front of an upstream that answers at once.

    python benchmarks/agent_latency.py --rate 100 --seconds 60

An open loop sends requests at random times, at a mean rate, whatever the earlier ones do; the time of a request counts
from when it was due. 50 agents work at once, and each task has four turns: every turn reads the context, and is on disk
before it is answered. The same requests go to the upstream directly, before that, through the same client: added are
the times through the server minus the median without it. Saturation is the rate of 32 clients that each wait for their
answers. Server, upstream and client are one process each; their CPU time shows which one is the bottleneck. With
`--keys`, the server asks for an API key and writes an audit log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import agent_upstream
from agent_kills import free_port

TURNS, AGENTS, CLIENTS = 4, 50, 32
WARM_SECONDS = 3.0
RULES = {"role": "system", "content": "You write patches for a repository. " * 20}
TICKS = os.sysconf("SC_CLK_TCK")


def turn(task: str, at: int, key: str) -> bytes:
    """Return the request of one turn of a task, with an API key unless it is empty."""
    said = [{"role": "assistant", "content": "an answer"}, {"role": "user", "content": "2 tests fail. " * 20}]
    messages = [RULES, {"role": "user", "content": f"Fix issue {task}."}, *said * at]
    body = json.dumps({"model": "m", "messages": messages, "metadata": {"task": f"issue-{task}"}}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {key}\r\n" if key else ""
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def requests(phase: str, key: str) -> Iterator[bytes]:
    """Yield the requests of agents that take turns, whose tasks have names of the phase."""
    for i in count():
        yield turn(f"{phase}-{i // (AGENTS * TURNS) * AGENTS + i % AGENTS}", i // AGENTS % TURNS, key)


class Pool:
    """Connections to a server, for one phase."""

    def __init__(self, port: int) -> None:
        self.port, self.free = port, []

    async def ask(self, request: bytes) -> None:
        """Send a request, and wait for its answer."""
        reader, writer = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        status, size = await reader.readline(), 0
        while (line := await reader.readline()).strip():
            if line.lower().startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        body = await reader.readexactly(size)
        if b" 200 " not in status:
            raise SystemExit(f"port {self.port} answered {status!r} {body!r}")
        self.free.append((reader, writer))


async def open_loop(port: int, key: str, phase: str, rate: float, seconds: float) -> tuple[list[float], list[float]]:
    """Return the seconds from when each request was due to its answer, and to when it was sent."""
    pool, asked, rng, due = Pool(port), requests(phase, key), random.Random(0), time.perf_counter()
    took, late, running, end = [], [], set(), time.perf_counter() + seconds

    async def ask(request: bytes, due: float) -> None:
        late.append(time.perf_counter() - due)
        await pool.ask(request)
        took.append(time.perf_counter() - due)

    while (due := due + rng.expovariate(rate)) < end:
        request = next(asked)
        await asyncio.sleep(due - time.perf_counter())
        running.add(asyncio.create_task(ask(request, due)))
    await asyncio.gather(*running)
    return took, late


async def closed_loop(port: int, key: str, phase: str, seconds: float) -> float:
    """Return the requests per second of clients that each wait for their answers."""
    pool, end, done = Pool(port), time.perf_counter() + seconds, 0

    async def client(number: int) -> None:
        nonlocal done
        for i in count():
            request = turn(f"{phase}-{number}-{i // TURNS}", i % TURNS, key)
            if time.perf_counter() > end:
                return
            await pool.ask(request)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*map(client, range(CLIENTS)))
    return done / (time.perf_counter() - began)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Cores:
    """Cores that each process is busy with, while a block runs."""

    def __init__(self, **pids: int) -> None:
        self.pids, self.busy = pids, {}

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure a block."""
        before, began = {name: cpu_seconds(pid) for name, pid in self.pids.items()}, time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.busy = {name: round((cpu_seconds(pid) - before[name]) / seconds, 2) for name, pid in self.pids.items()}


def ms(values: list[float]) -> dict[str, float]:
    """Return quantiles in milliseconds."""
    ordered = sorted(values)
    at = {share: ordered[min(len(ordered) - 1, int(share / 100 * len(ordered)))] for share in (50, 90, 99, 99.9)}
    return {f"p{share:g}": round(1000 * value, 2) for share, value in at.items()}


async def measure(rate: float, seconds: float, upstream: int, server: int, cores: Cores, key: str) -> dict:
    """Return what was measured."""
    for port in (upstream, server):
        await open_loop(port, key, "warm", rate, WARM_SECONDS)
    direct, _ = await open_loop(upstream, key, "direct", rate, seconds / 4)
    with cores.measured():
        through, late = await open_loop(server, key, "through", rate, seconds)
    median = sorted(direct)[len(direct) // 2]
    found = {"requests": len(through), "added ms": ms([one - median for one in through])}
    found |= {"direct ms": ms(direct), "sent late ms": ms(late), "cores": cores.busy}
    alone = await closed_loop(upstream, key, "alone", seconds / 8)
    with cores.measured():
        saturation = await closed_loop(server, key, "full", seconds / 4)
    return found | {"saturation per s": round(saturation), "direct per s": round(alone), "cores then": cores.busy}


@contextmanager
def servers(upstream: int, server: int, keys: bool) -> Iterator[tuple[Cores, str]]:
    """Run the upstream and the server before it, and measure their processes and this one. Yield the API key, too."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    behind = context.Process(target=agent_upstream.run, args=(upstream, ready), daemon=True)
    behind.start()
    ready.wait()
    environment = os.environ | {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1"}
    with tempfile.TemporaryDirectory(prefix="codots-latency-") as folder:
        store = ["--store", str(Path(folder) / "agent.db")]
        command = [sys.executable, "-m", "codots"]
        made = [*command, "keys", "create", "benchmark", *store]
        key = subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip() if keys else ""
        command += ["serve", "openai:m", *store, "--port", str(server)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as served:
            try:
                served.stdout.readline()
                yield Cores(server=served.pid, upstream=behind.pid, client=os.getpid()), key
            finally:
                served.kill()
                behind.kill()


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--keys", action="store_true", help="let the server ask for an API key")
    options = parser.parse_args()
    upstream, server = free_port(), free_port()
    with servers(upstream, server, options.keys) as (cores, key):
        print(json.dumps(asyncio.run(measure(options.rate, options.seconds, upstream, server, cores, key))))


if __name__ == "__main__":
    main()
