"""Environments of a life: in this process, or of a blocking domain in a process of their own."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Self, cast

from codots.domains.base import Env, Pack, Step
from codots.rollout.env_server import MAX_ORDER, SIZE, kind_of

log = logging.getLogger("codots")
START_SECONDS = 90.0
"""Time in which a process must have the domain of a life, in seconds."""
CLOSE_SECONDS = 10.0
"""Time in which the processes must end after `close`, in seconds."""


class EnvProcess:
    """A process that plays the environments of one life at a time."""

    def __init__(self, name: int, connection: socket.socket) -> None:
        self.name, self._connection = name, connection
        connection.setblocking(False)

    @property
    def alive(self) -> bool:
        """Whether the process has neither ended nor sent anything that was not asked for."""
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    async def call(self, seconds: float, method: str, *arguments: Any) -> Any:
        """Call a method of the environments there. Raises an error of the same name and message as there.

        Raises TimeoutError after `seconds`, and RuntimeError if the process ends before it answers.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                await loop.sock_sendall(self._connection, pickle.dumps((method, arguments)))
                (size,) = SIZE.unpack(await self._read(SIZE.size))
                kind, value = pickle.loads(await self._read(size))
        except TimeoutError:
            raise TimeoutError(f"the environment did not answer within {seconds:g} s") from None
        except OSError as error:
            raise RuntimeError("the process of the environment ended before it answered") from error
        if kind == "error":
            name, message = value
            raise type(name, (Exception,), {})(message)
        return value

    async def _read(self, size: int) -> bytearray:
        data, loop = bytearray(), asyncio.get_running_loop()
        while len(data) < size:
            part = await loop.sock_recv(self._connection, min(size - len(data), 1 << 20))
            if not part:
                raise ConnectionError
            data += part
        return data

    def close(self) -> None:
        """Close the connection, upon which a process that does not hang ends."""
        self._connection.close()


class EnvProcesses:
    """Processes that play environments. They are kept from life to life, and end with `close` or with this process.

    They are forks of a process without the model, so that they start fast and share memory.
    """

    def __init__(self) -> None:
        self._names = count()
        self._idle: list[EnvProcess] = []
        self._orders: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._in_threads: set[str] = set()
        """Ids of domains that other processes cannot load."""

    async def begin(self, pack: Pack, views: bool) -> EnvProcess | None:
        """Return a process for a life of this pack, or None if the life must be played in this process.

        That is the case on systems without a fork server, and for domains that another process cannot load.
        """
        domain = pack.domain
        if sys.platform != "linux" or domain.id in self._in_threads:
            return None
        try:
            data, to_import = pickle.dumps(pack), pickle.dumps(domain)[: MAX_ORDER // 2]
        except Exception as error:
            self._warn(domain.id, f"{type(error).__name__}: {error}")
            return None
        process = self._take(to_import)
        try:
            missing = await process.call(START_SECONDS, "begin", data, kind_of(pack), dict(os.environ), views)
        except BaseException:
            self.kill(process)
            raise
        if missing is None:
            return process
        self.give_back(process)
        self._warn(domain.id, missing)
        return None

    def _warn(self, domain: str, why: str) -> None:
        """Say once why the steps of a domain run in threads."""
        if domain not in self._in_threads:
            self._in_threads.add(domain)
            why = " ".join(why.partition(";")[0].split())
            log.warning(
                f"steps of {domain} run in threads, where one that hangs cannot be killed, because another process "
                f"cannot load the domain ({why}); expected a domain in a module that can be imported"
            )

    def _take(self, domain: bytes) -> EnvProcess:
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            process.close()
        name, (here, there) = next(self._names), socket.socketpair()
        with there:
            self._order(("fork", name, domain), there.fileno())
        return EnvProcess(name, here)

    def give_back(self, process: EnvProcess) -> None:
        """Keep a process for another life."""
        self._idle.append(process)

    def kill(self, process: EnvProcess) -> None:
        """Kill a process, and the programs that it has started."""
        process.close()
        if self._orders is not None:
            with suppress(OSError):
                self._orders.send(pickle.dumps(("kill", process.name)))

    def _order(self, order: Any, *fds: int) -> None:
        """Send an order to the fork server. Start the server before, if it is not running."""
        data = pickle.dumps(order)
        if self._orders is not None:
            try:
                socket.send_fds(self._orders, [data], fds)
                return
            except OSError:  # it has died
                self._end_server()
        self._start_server()
        assert self._orders is not None
        socket.send_fds(self._orders, [data], fds)

    def _start_server(self) -> None:
        self._orders, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.settimeout(START_SECONDS)
        code = f"import sys; sys.path[:] = {list(map(str, sys.path))}; from codots.rollout.env_server import serve; "
        with there:
            self._server = subprocess.Popen(
                [sys.executable, "-u", "-c", f"{code}serve({there.fileno()})"],
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                start_new_session=True,  # no Ctrl-C reaches it
            )

    def _end_server(self) -> None:
        if self._orders is None or self._server is None:
            return
        self._orders.close()
        try:
            self._server.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._orders = self._server = None

    def close(self) -> None:
        """Kill all processes."""
        while self._idle:
            self._idle.pop().close()
        self._end_server()


class Environments:
    """The environments of one life, one after another. Leaving the context ends what still runs.

    Environments of a blocking domain are in a process of their own, if there are `processes`, and otherwise their steps
    run in threads. Those of other domains block the event loop.
    """

    def __init__(self, pack: Pack, style: str, processes: EnvProcesses | None = None, *, views: bool = False) -> None:
        """`views` tells whether `view` is read."""
        self.pack, self.style = pack, style
        self._domain, self._views = pack.domain, views
        self._processes = processes if pack.domain.blocking else None
        self._process: EnvProcess | None = None
        self._env: Env | None = None
        self._memory: object | None = None
        self._view: Any = None
        self._begun = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        process, self._process = self._process, None
        if process is not None and self._processes is not None:
            (self._processes.give_back if kind is None else self._processes.kill)(process)

    @property
    def view(self) -> Any:
        """View of the environment that was opened last."""
        return self._view if self._env is None else self._env.view

    async def open(self, number: int) -> str:
        """Open the environment of a task, given by its index in the pack, and return its first observation."""
        if not self._begun:
            await self._begin()
        if self._process is not None:
            observation, self._view = await self._call("open", number, self.style)
            return str(observation)
        self._env = self.pack.tasks[number].env(style=self.style, memory=self._memory)
        return self._env.observe()

    async def step(self, text: str) -> Step:
        """Apply the model's text. Raises TimeoutError after the `step_timeout` of a blocking domain."""
        if self._process is not None:
            step, self._view = await self._call("step", text)
            return cast(Step, step)
        assert self._env is not None
        act = partial(self._env.step, text)
        return await in_thread(act, self._domain.step_timeout) if self._domain.blocking else act()

    async def _begin(self) -> None:
        if self._processes is not None:
            self._process = await self._processes.begin(self.pack, self._views)
        if self._process is None:
            self._memory = self._domain.make_memory(self.pack.world)
        self._begun = True

    async def _call(self, method: str, *arguments: Any) -> Any:
        assert self._process is not None
        return await self._process.call(self._domain.step_timeout, method, *arguments)


async def in_thread(call: Callable[[], Step], seconds: float) -> Step:
    """Run a call in its own thread. After `seconds`, abandon the thread and raise TimeoutError."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Step] = loop.create_future()

    def settle(step: Step | None, error: Exception | None) -> None:
        if done.done():
            return  # timed out
        if step is None:
            done.set_exception(error or RuntimeError("the environment returned no step"))
        else:
            done.set_result(step)

    def work() -> None:
        step = failure = None
        try:
            step = call()
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the loop may be closed
            loop.call_soon_threadsafe(settle, step, failure)

    threading.Thread(target=work, daemon=True).start()
    try:
        return await asyncio.wait_for(done, seconds)
    except TimeoutError as error:
        if done.done() and not done.cancelled():
            raise  # raised by the environment itself
        raise TimeoutError(f"the environment did not answer within {seconds:g} s") from error
