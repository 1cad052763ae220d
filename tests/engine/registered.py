"""A domain that registers itself when its module is imported, like a user's own domain, and samplers of a user."""

import copy
import os

from codots.domains.registry import register
from codots.engine.worker import lockstep
from codots.sampler.local import LocalSampler
from tests.toy import Talk


class RegisteredTalk(Talk):
    """Talk under another id."""

    id = "registered-talk-v0"


register(RegisteredTalk())


def forgetful(worker):
    """Return a sampler that has its own copy of the model, and so never serves new weights."""
    return LocalSampler(copy.deepcopy(worker.model), worker.render.stop_ids)


def lockstep_on_threads(worker):
    """Return a lockstep sampler, if this process has the environment of the driver."""
    if (found := os.environ.get("CODOTS_TEST_WORD")) != "shipped":
        raise ValueError(f"CODOTS_TEST_WORD is {found!r}")
    return lockstep(worker)
