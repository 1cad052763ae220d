"""A sampler whose answers are a function of the text, encoded like the answers of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from codots.core.rng import Names
from codots.core.transcript import Sampled, StopReason
from codots.model.renderer import Render
from codots.sampler.base import SamplingParams

Script = Callable[[str], str]
"""Function from the new text of a session to the answer; each session has its own function."""


def scripted(text: str, render: Render, version: int = 0) -> Sampled:
    """Return this text as a sampled answer, with logprob 0 for each id."""
    ids = render.reply(text)
    return Sampled(ids, [0.0] * len(ids), StopReason.STOP, [version] * len(ids))


class ScriptedSession:
    """One session answered by a script."""

    def __init__(self, render: Render, script: Script, version: int) -> None:
        self.render, self.script, self.version = render, script, version

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Decode the ids, call the script, and encode its answer."""
        return scripted(self.script(self.render.text(ids)), self.render, self.version)


class ScriptedSampler:
    """Sampler that answers each session with its own script, created from the session's name."""

    def __init__(self, render: Render, make_script: Callable[[Names], Script]) -> None:
        self.render, self.make_script, self.version = render, make_script, 0

    def session(self, names: Names) -> ScriptedSession:
        """Open a session with a new script."""
        return ScriptedSession(self.render, self.make_script(names), self.version)

    async def load(self, weights: Any, version: int) -> None:
        """Set the version; scripts have no weights."""
        self.version = version
