"""Fork server for processes that play environments. It imports domains, but not the model."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import struct
import traceback
from contextlib import suppress
from dataclasses import replace
from typing import Any

from codots.core.processes import STOP_SIGNALS
from codots.domains.base import Env, Pack, Step

SIZE = struct.Struct("!Q")
"""Number of bytes of an answer, which comes before the answer."""
MAX_ORDER = 1 << 16
"""Maximum size of an order to the fork server, in bytes."""
IMPORT_SECONDS = 60
"""Time in which a domain must be imported, in seconds. Otherwise the fork server ends."""
PR_SET_PDEATHSIG = 1


def serve(fd: int) -> None:
    """Fork and kill processes as the other end of this socket orders, until it is closed. Then kill all of them.

    An order is `("fork", name, domain)`, with a pickled domain and the socket of the new process, or `("kill", name)`.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _leave_to_owner)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    orders, pids = socket.socket(fileno=fd), dict[int, int]()
    try:
        while True:
            order, fds, _, _ = socket.recv_fds(orders, MAX_ORDER, 1)
            if not order:
                return
            _forget_ended(pids)
            match pickle.loads(order):
                case "fork", name, domain:
                    _preload(domain)
                    pids[name] = _fork(orders, fds[0])
                case "kill", name:
                    _kill(pids.pop(name, None))
    finally:
        for pid in pids.values():
            _kill(pid)


def _leave_to_owner(number: int, frame: Any) -> None:
    """Do nothing. Unlike an ignored signal, this is not inherited by the programs that environments start."""


def _preload(domain: bytes) -> None:
    """Import a domain before the fork. A process that cannot import it says why."""
    signal.alarm(IMPORT_SECONDS)
    with suppress(Exception):
        pickle.loads(domain)
    signal.alarm(0)


def _fork(orders: socket.socket, fd: int) -> int:
    """Start a process that answers calls on a socket, in a process group of its own."""
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == server:
                orders.close()
                answer_calls(socket.socket(fileno=fd))
        except (EOFError, OSError):
            pass  # the other end is closed
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    with suppress(OSError):  # in both processes, since either may be first
        os.setpgid(pid, pid)
    os.close(fd)
    return pid


def _forget_ended(pids: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while ended := os.waitpid(-1, os.WNOHANG)[0]:
            for name in [name for name, pid in pids.items() if pid == ended]:
                del pids[name]


def _kill(pid: int | None) -> None:
    """Kill a process, and the programs that it has started."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


class Environments:
    """The environments of one life after another, by calls."""

    pack: Pack
    views: bool
    env: Env | None
    memory: object | None

    def begin(self, pack: bytes, kind: str, variables: dict[str, str], views: bool) -> str | None:
        """Begin a life with a pickled pack and the environment variables of the caller.

        Return why this process does not have the domain, whose type is named by `kind`, or None if it does.
        """
        if variables != dict(os.environ):
            os.environ.clear()
            os.environ.update(variables)
        try:
            found: Pack = pickle.loads(pack)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if kind_of(found) != kind:
            return f"{found.domain.id} is {kind_of(found)} there"
        self.pack, self.views, self.env = found, views, None
        return None

    def open(self, number: int, style: str) -> tuple[str, Any]:
        """Open the environment of a task, and return its first observation and view."""
        if self.env is None:
            self.memory = self.pack.domain.make_memory(self.pack.world)
        env: Env = self.pack.tasks[number].env(style=style, memory=self.memory)
        self.env = env
        return env.observe(), env.view if self.views else None

    def step(self, text: str) -> tuple[Step, Any]:
        """Apply a text, and return the step and the view."""
        assert self.env is not None
        step = self.env.step(text)
        return (step, self.env.view) if self.views else (replace(step, view=None), None)


def kind_of(pack: Pack) -> str:
    """Return the full name of the type of a pack's domain."""
    kind = type(pack.domain)
    return f"{kind.__module__}.{kind.__qualname__}"


def answer_calls(connection: socket.socket) -> None:
    """Answer calls with `("result", value)` or `("error", (name, message))`, until the connection is closed."""
    environments, stream = Environments(), connection.makefile("rwb")
    while True:
        method, arguments = pickle.load(stream)
        try:
            answer = pickle.dumps(("result", getattr(environments, method)(*arguments)))
        except Exception as error:
            answer = pickle.dumps(("error", (type(error).__name__, str(error))))
        stream.write(SIZE.pack(len(answer)))
        stream.write(answer)
        stream.flush()
