"""A domain that registers itself when its module is imported, like a user's own domain, and samplers of a user."""

import copy
import os
import signal
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

from codots.domains.registry import register
from codots.engine.plan import lockstep
from codots.sampler.local import LocalSampler
from tests.toy import Guess, Talk


class RegisteredTalk(Talk):
    """Talk under another id."""

    id = "registered-talk-v0"


register(RegisteredTalk())


def forgetful(worker):
    """Return a sampler that has its own copy of the model, and so never serves new weights."""
    return LocalSampler(copy.deepcopy(worker.model), worker.render.stop_ids)


def foreign(worker):
    """Return a sampler whose tokenizer has a token more than that of the learner."""
    worker.render.tokenizer.add_tokens(["<foreign>"])
    return lockstep(worker)


def lockstep_on_threads(worker):
    """Return a lockstep sampler, if this process has the environment of the driver."""
    if (found := os.environ.get("CODOTS_TEST_WORD")) != "shipped":
        raise ValueError(f"CODOTS_TEST_WORD is {found!r}")
    return lockstep(worker)


def once(what):
    """Do something in the first process that asks, as a file in a folder of the test tells."""
    with suppress(FileExistsError):
        Path(os.environ["CODOTS_TEST_ONCE"]).touch(exist_ok=False)
        what()


class DeadlyTalk(Talk):
    """Its second task kills, stops or hangs the process that plays it, as the preset says; all but `always` once."""

    id = "deadly-talk-v0"
    presets = {"kill": 4, "stop": 5, "hang": 6, "always": 7}  # noqa: RUF012

    def make_env(self, task, *, style="natural", memory=None, rng):
        fault = {4: signal.SIGKILL, 5: signal.SIGSTOP}.get(task.world.dials)
        if task.position == 1 and task.world.dials == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        if task.position == 1:
            once(partial(os.kill, os.getpid(), fault) if fault else threading.Event().wait)
        return super().make_env(task, style=style, memory=memory, rng=rng)


class DeadlyGuess(Guess):
    """One pack of its second step kills the process that plays it, but only once."""

    id = "deadly-guess-v0"
    styles = ("natural", "compact")

    def make_env(self, task, *, style="natural", memory=None, rng):
        if (task.names[3], task.position) == (3, 1):
            once(partial(os.kill, os.getpid(), signal.SIGKILL))
        return super().make_env(task, style=style, memory=memory, rng=rng)


register(DeadlyTalk())
register(DeadlyGuess())
