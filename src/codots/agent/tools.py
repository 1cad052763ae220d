"""Tools of the Model Context Protocol, for agents whose own model solves the tasks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field, ValidationError

from codots import __version__
from codots.agent.access import LOCAL, caller, check, explained
from codots.agent.gateway import Gateway
from codots.agent.records import ForbiddenError, Outcome
from codots.agent.serving import POLL_SECONDS, Stop, drain
from codots.agent.sql import reason, sa
from codots.context.rewrite import Turn
from codots.core.processes import stop_signals_to
from codots.core.redact import without_secrets
from codots.core.suggest import check_known

T = TypeVar("T")
MAX_WAIT = 600.0
"""Longest time that a call may wait for an update, in seconds."""
INSTRUCTIONS = (
    "Notes of a world that get better with every task. Call start_task before you work on a task, and follow the notes "
    "that it returns. Call finish_task when you know how the task went: the notes are then rewritten for the next task."
)


class Tools:
    """The tools of one gateway. A world that is not named is that of the gateway."""

    def __init__(self, service: Gateway) -> None:
        self.service, self.store = service, service.store

    async def list_worlds(self) -> dict[str, Any]:
        """List the worlds that have notes, with the number of tasks and the newest version of the notes."""
        worlds = [world for world in await _run(self.store.worlds) if caller.get().allows(world.name, write=False)]
        heads = await _run(lambda: [self.store.head(world.name) for world in worlds])
        rows = zip(worlds, heads, strict=True)
        return {"worlds": [{"name": w.name, "tasks": w.tasks, "version": head.number} for w, head in rows]}

    async def read_context(self, world: str | None = None) -> dict[str, Any]:
        """Read the newest notes of a world."""
        at = self._at(world, write=False)
        head = await _run(lambda: self.store.head(at))
        return {"world": at, "version": head.number, "context": head.context}

    async def start_task(self, description: str, world: str | None = None, rules: str = "") -> dict[str, Any]:
        """Start a task in a world, and return its name and the notes to work with.

        `description` is the task as it was given to you, `rules` what holds for every task of this kind.
        """
        at = self._at(world)
        task, context = await _run(lambda: self.service.start(at, description, rules))
        return {"world": at, "task": task.name, "version": task.version, "context": context}

    async def finish_task(
        self,
        task: str,
        reward: Annotated[float, Field(strict=True)] | None = None,
        feedback: str = "",
        summary: str = "",
        turns: list[Turn] | None = None,
        outcome: str = "",
        world: str | None = None,
        wait: Annotated[float, Field(strict=True, ge=0, le=MAX_WAIT)] = 0.0,
    ) -> dict[str, Any]:
        """Say how a task ended; the notes are then rewritten in the background.

        `reward` is between 0 and 1 in most worlds, and `feedback` what you were told. `summary` says what you did and
        saw; or give `turns`, what you observed and replied, and `outcome`, what came of the last reply. The answer
        means that all this is on disk. `wait` is for how many seconds, at most 600, it waits for the new notes.
        """
        at, said = self._at(world), tuple(turns or ())
        number = await _run(lambda: self._finish(at, task, summary, Outcome(reward, feedback, outcome, turns=said)))
        update = await self.service.version_after(at, number, wait)
        return {"world": at, "task": task, "number": number, **update}

    def _at(self, world: str | None, write: bool = True) -> str:
        """Return the world of a call, if its caller may use it."""
        with _explained():
            check(world or self.service.world, write)
        return world or self.service.world

    def _finish(self, world: str, name: str, summary: str, told: Outcome) -> int:
        if summary:
            told = replace(told, turns=(*told.turns, Turn(self.store.task(world, name).description, summary)))
        return self.service.finish(world, name, told).number


async def _run(call: Callable[[], T]) -> T:
    with _explained():
        return await asyncio.to_thread(call)


@contextmanager
def _explained() -> Iterator[None]:
    """Raise what a client has done wrong, and a failure of the store, as an error that it may read."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, ForbiddenError):
            caller.get().status = 403
        raise ToolError(explained(error)) from None
    except sa.exc.SQLAlchemyError as error:
        raise ToolError(without_secrets(reason(error))) from None


class Server(MCPServer[Any]):
    """A server that says in one line what is wrong with the arguments of a call, also if it does not know one."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool with the rights of the key of this request, not of the one that opened the session."""
        known = {tool.name: tool.input_schema["properties"] for tool in await self.list_tools()}
        request = getattr(context and context.request_context, "request", None)
        of = LOCAL if request is None else request.scope["caller"]
        if of is not LOCAL:
            of.route = f"tool {name}" if name in known else "tool"
        token = caller.set(of)
        try:
            return await self._call(name, arguments, known, context)
        finally:
            caller.reset(token)

    async def _call(self, name: str, arguments: dict[str, Any], known: dict[str, Any], context: Any) -> Any:
        with _explained():
            check_known(name, known, "tool")
            for given in arguments:
                check_known(given, known[name], f"argument of {name}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            found = error.__cause__.errors()[0]
            raise ToolError(f"{name}: {'.'.join(map(str, found['loc']))}: {found['msg']}") from None


def make_server(service: Gateway) -> MCPServer[Any]:
    """Return a server with the tools of a gateway."""
    server = Server("codots", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")
    tools = Tools(service)
    given = (tools.list_worlds, tools.start_task, tools.finish_task)
    # A task that gets no notes must not read them by another tool.
    for tool in given if service.null_share else (*given, tools.read_context):
        server.add_tool(tool)
    return server


def make_app(service: Gateway, host: str) -> Any:
    """Return the tools as an application. A session is that of the key that opened it."""
    app = make_server(service).streamable_http_app(host=host)
    app.add_middleware(_Sessions)
    return app


class _Sessions:
    """Names the caller to the MCP SDK, which gives a session to no other one."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (of := scope.get("caller")) is not None and of.key is not None:
            scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=of.key.name, scopes=[]))
        await self.app(scope, receive, send)


def serve_stdio(service: Gateway) -> None:
    """Serve the tools over stdin and stdout until stdin ends or a stop signal; then finish the running updates."""
    stop = Stop()

    async def work() -> None:
        serving = asyncio.create_task(make_server(service).run_stdio_async())
        while not serving.done() and not stop.signals:
            await asyncio.wait([serving], timeout=POLL_SECONDS)
        await drain(service, stop)
        if not serving.done():
            os._exit(0)  # a thread that reads from stdin cannot be ended
        await serving

    with stop_signals_to(stop):
        asyncio.run(work())
