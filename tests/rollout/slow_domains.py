"""Blocking domains that register themselves when this module is imported, so that other processes can load them."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codots.domains.registry import register
from tests.toy import Guess, GuessEnv, View


class UnpicklableError(Exception):
    """An error that only this process can hold."""

    def __init__(self, message):
        super().__init__(message, lambda: None)
        self.message = message

    def __str__(self):
        return self.message


def once(name, what):
    """Do something in the first process that asks, as a file in a folder of the test tells."""
    with suppress(FileExistsError):
        (Path(os.environ["CODOTS_TEST_FAULTS"]) / name).touch(exist_ok=False)
        what()


def hang():
    """Start a program, write the process ids of both, and never return. SIGTERM does not end it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (Path(os.environ["CODOTS_TEST_FAULTS"]) / "pids").write_text(f"{os.getpid()} {program.pid}")
    threading.Event().wait()


def fail():
    raise UnpicklableError("the shop is closed")


FAULTS = {"hang": hang, "die": lambda: os.kill(os.getpid(), signal.SIGKILL), "exit": sys.exit, "fail": fail}


@dataclass
class FaultyEnv(GuessEnv):
    """Its steps fail as CODOTS_TEST_FAULT says, in packs with an even number: once, or always."""

    memory: list
    index: int
    unpicklable: object = None

    def observe(self):
        self.memory.append(1)
        return f"{super().observe()} This is task {len(self.memory)}."

    def step(self, text):
        name, _, how = os.environ.get("CODOTS_TEST_FAULT", "").partition(":")
        if name and self.index % 2 == 0:
            (once if how == "once" else lambda _, fault: fault())(f"{name} {self.index}", FAULTS[name])
        self.unpicklable = lambda: None
        return super().step(text)


class Faulty(Guess):
    """A blocking domain with a memory, whose environments fail on request."""

    id = "faulty-v0"
    blocking = True
    step_timeout = 20.0

    def make_memory(self, world):
        return []

    def make_env(self, task, *, style="natural", memory=None, rng):
        return FaultyEnv(task.world.hidden, View(task.world.dials, task.content), memory, task.names[3])


class Process(Faulty):
    """Its first observation is the id of the process that plays it."""

    id = "process-v0"

    def make_env(self, task, *, style="natural", memory=None, rng):
        return ProcessEnv(task.world.hidden, View(task.world.dials, task.content), memory, task.names[3])


class ProcessEnv(FaultyEnv):
    def observe(self):
        return str(os.getpid())


class Unregistered(Faulty):
    """A domain that the import of this module does not register."""

    id = "unregistered-v0"


DOMAINS = [register(Faulty()), register(Process())]
