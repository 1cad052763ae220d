"""A scripted OpenAI-compatible server that answers at once, for the benchmarks of deployed agents.

A chat gets a short answer. An update gets the number of updates so far, read from the notes: so the context of a world
says how many tasks it has learned from. With `faults`, that share of each kind of failure comes instead of an answer.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

FAULTS = ("429", "500", "hang", "cut", "garbage")
"""Kinds of failures: an error status, no answer at all, half of an answer, and what is not JSON."""
UPDATE = "rewrite them"
"""What only the system prompt of an update says."""


def is_update(request: dict) -> bool:
    """Return whether a request is the update of a context."""
    return UPDATE in request["messages"][0]["content"]


def answer(request: dict) -> str:
    """Return the text of an answer."""
    if not is_update(request):
        return "an answer"
    notes = request["messages"][-1]["content"].partition("# Notes so far\n")[2].split("\n")[0]
    return f"<context>{1 if notes == 'none' else int(notes) + 1}</context>"


class Upstream:
    """The server. `sent` counts what it has sent to chats, and `sent_to_updates` to updates, by kind."""

    def __init__(self, faults: float = 0.0, seed: int = 0) -> None:
        self.faults, self.rng = faults, random.Random(seed)
        self.sent, self.sent_to_updates = Counter(), Counter()

    async def start(self, port: int = 0) -> int:
        """Listen on this machine, and return the port."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1000)
        return self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readline():
                size = 0
                while (line := await reader.readline()).strip():
                    if line.lower().startswith(b"content-length:"):
                        size = int(line.partition(b":")[2])
                if not await self._answer(json.loads(await reader.readexactly(size)), writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side, or this one, has ended
        finally:
            writer.close()

    async def _answer(self, request: dict, writer: asyncio.StreamWriter) -> bool:
        """Send an answer or a fault, and return whether the connection stays."""
        draw = self.rng.random()
        fault = FAULTS[int(draw / self.faults)] if draw < self.faults * len(FAULTS) else ""
        (self.sent_to_updates if is_update(request) else self.sent)[fault or "good"] += 1
        if fault == "hang":
            await asyncio.sleep(3600)
        head, body = self._good(request)
        if fault in ("429", "500"):
            head, body = b"HTTP/1.1 " + fault.encode() + b" no\r\ncontent-type: application/json", b'{"error": "no"}'
        if fault == "garbage":
            body = b"data: {<\n\n" if request.get("stream") else b"<html>"
        writer.write(head + f"\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        writer.write(body[: len(body) // 2] if fault == "cut" else body)
        await writer.drain()
        return fault != "cut"

    def _good(self, request: dict) -> tuple[bytes, bytes]:
        head, text = b"HTTP/1.1 200 OK\r\ncontent-type: ", answer(request)
        made = {"id": "1", "created": 1, "model": "m"}
        if not request.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = made | {"object": "chat.completion", "choices": [choice]}
            return head + b"application/json", json.dumps(body).encode()
        ends = (({"content": text[:2]}, None), ({"content": text[2:]}, None), ({}, "stop"))
        choices = [{"index": 0, "delta": delta, "finish_reason": end} for delta, end in ends]
        chunks = [made | {"object": "chat.completion.chunk", "choices": [choice]} for choice in choices]
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        return head + b"text/event-stream", f"{events}data: [DONE]\n\n".encode()


def run(port: int, ready: object) -> None:
    """Serve in a process of its own; `ready` is set when the server listens."""

    async def serve() -> None:
        await Upstream().start(port)
        ready.set()
        await asyncio.Event().wait()

    asyncio.run(serve())
