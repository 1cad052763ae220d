"""Put `codots serve` under load before an upstream that fails in every way, and check that it loses nothing.

    python benchmarks/agent_faults.py --faults 0.1 --seconds 60     # half of the requests fail
    python benchmarks/agent_faults.py --faults 0.2 --seconds 60     # all of them

The share `--faults` of all requests fails in each way: status 429, status 500, no answer, half an answer, an answer
that is not JSON. Every other chat is a stream. A client finishes each task, however its chat has ended. Checked are:
every error that a client gets has a kind and one line that says what happened; the metrics count each failure once, by
kind; no task is lost; and once the upstream answers again, every world has learned once from each of its tasks, in one
chain.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import agent_upstream
import httpx
from agent_kills import MESSAGES, check, free_port, wait_for

from codots.agent.server import make_app
from codots.agent.serving import gateway, listening, serve
from codots.agent.store import Store
from codots.agent.upstream import Upstream

WORLDS = 4
KINDS = {"429": "rate_limit", "500": "server_error", "hang": "timeout", "cut": "cut", "garbage": "garbage"}
"""What each failure of the upstream is called by codots."""
STATUS = {"rate_limit": 429, "server_error": 502, "timeout": 504, "cut": 502, "garbage": 502}
CUT_LATER = 200
"""Status of a stream that fails after its first chunk."""
WAIT_SECONDS = 300


def run_server(port: int, store: str, upstream: int, timeout: float) -> None:
    """Serve with short timeouts until the process is stopped."""
    os.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{upstream}/v1"
    with gateway(store, "openai:m", "default") as service:
        endpoint = replace(service.upstream.endpoint, tries=2, pause=0.01, timeout=timeout)
        service.upstream = Upstream(endpoint)
        service.updater.model.sampler.endpoint = endpoint
        serve(service, make_app(service), listening("127.0.0.1", port))


class Client:
    """One client, which works on tasks until the end. Several share what they have seen."""

    def __init__(self, http: httpx.AsyncClient, acknowledged: list, seen: Counter) -> None:
        self.http, self.acknowledged, self.seen = http, acknowledged, seen

    async def work(self, number: int, end: float) -> None:
        """Chat, and finish the task however that ended."""
        world, at = f"world-{number % WORLDS}", 0
        while time.monotonic() < end:
            name, at = f"client-{number}-{at}", at + 1
            named = {"world": world, "task": name}
            body = {"model": "m", "messages": MESSAGES, "metadata": named, "stream": at % 2 == 0}
            answer = await self.http.post("/v1/chat/completions", json=body)
            self.seen[kind_of(answer)] += 1
            told = await self.http.post(f"/v1/worlds/{world}/tasks/{name}/finish", json={"reward": 0.5})
            assert told.status_code == 200, told.text
            self.acknowledged.append((world, name))


def kind_of(answer: httpx.Response) -> str:
    """Return how a chat ended. Raises AssertionError for an error that says too little."""
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    found = json.loads(events[-1] if events and events[-1] != "[DONE]" else answer.text if not events else "{}")
    if (error := found.get("error")) is None:
        assert answer.status_code == 200, answer.text
        return "answered"
    kind, message = error["type"], error["message"]
    assert answer.status_code in (STATUS[kind], CUT_LATER), (answer.status_code, error)
    assert re.fullmatch("openai:m at http.*", message), message  # one line
    return kind


def counted(metrics: str) -> dict[str, int]:
    """Return the failed tries of chats by kind, as the metrics of the server tell."""
    found = re.findall(r'codots_upstream_failures_total\{kind="(\w+)"\} (\d+)', metrics)
    return {kind: int(count) for kind, count in found}


async def load(url: str, upstream: agent_upstream.Upstream, clients: int, seconds: float) -> dict:
    """Let the clients work; then let the upstream answer, and wait for the updates. Return what was seen."""
    acknowledged, seen = [], Counter()
    async with httpx.AsyncClient(base_url=url, timeout=WAIT_SECONDS, trust_env=False) as http:
        for world in range(WORLDS):
            (await http.put(f"/v1/worlds/world-{world}", json={})).raise_for_status()
        one, end = Client(http, acknowledged, seen), time.monotonic() + seconds
        await asyncio.gather(*(one.work(number, end) for number in range(clients)))
        failures = counted((await http.get("/metrics")).text)
        others = check_counts(failures, upstream.sent, seen["answered"])
        upstream.faults = 0.0
        for world in range(WORLDS):
            acknowledged += await learn_all(http, f"world-{world}")
    to_updates = {KINDS.get(kind, kind): count for kind, count in upstream.sent_to_updates.items()}
    found = {"chats": dict(seen), "failures": failures, "other timeouts": others, "sent to updates": to_updates}
    return found | {"acknowledged": acknowledged}


def check_counts(failures: dict[str, int], sent: Counter, answered: int) -> int:
    """Check that each try is counted, by what was sent. Return the timeouts that the upstream did not cause.

    A busy server also gives up tries that the upstream has answered, or has not read yet.
    """
    for fault, kind in KINDS.items():
        assert kind == "timeout" or failures.get(kind, 0) <= sent[fault], (failures, sent)
    assert sum(failures.values()) + answered >= sum(sent.values()), (failures, answered, sent)
    return failures.get("timeout", 0) - sent["hang"]


async def learn_all(http: httpx.AsyncClient, world: str) -> list[tuple[str, str]]:
    """Finish tasks until one is learned from: an update that began before may still get a bad answer."""
    names, done = [], {"version": None}
    while not done["version"]:
        name = (await http.post(f"/v1/worlds/{world}/tasks", json={"description": "The last."})).json()["name"]
        told = await http.post(f"/v1/worlds/{world}/tasks/{name}/finish", params={"wait": WAIT_SECONDS}, json={})
        done = told.json()
        names.append((world, name))
    return names


async def attack(options: argparse.Namespace, port: int, upstream_port: int) -> dict:
    """Run the upstream in this process, and put the server under load."""
    upstream = agent_upstream.Upstream(options.faults)
    await upstream.start(upstream_port)
    await asyncio.to_thread(wait_for, port)
    try:
        return await load(f"http://127.0.0.1:{port}", upstream, options.clients, options.seconds)
    finally:
        upstream.server.close()


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--faults", type=float, default=0.1, help="share of each kind of failure, at most 0.2")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds after which a hanging request is given up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="codots-faults-") as folder:
        store, port, upstream = str(Path(folder) / "agent.db"), free_port(), free_port()
        arguments = (port, store, upstream, options.timeout)
        server = multiprocessing.get_context("fork").Process(target=run_server, args=arguments, daemon=True)
        server.start()
        try:
            found = asyncio.run(attack(options, port, upstream))
        finally:
            server.terminate()
            server.join()
        with Store(store) as opened:
            found |= check(opened, found["acknowledged"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
