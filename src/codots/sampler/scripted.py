"""A sampler that answers from a script: it reads the same text as a model, and its words become the same ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from codots.core.rng import Names
from codots.core.transcript import Sampled, StopReason
from codots.model.renderer import Render
from codots.sampler.base import SamplingParams

Script = Callable[[str], str]
"""Answers the new text of a session; one script serves one session."""


def scripted(text: str, render: Render, version: int = 0) -> Sampled:
    """Give the answer of a sampler that said this text; the logprob of a scripted id is 0."""
    ids = render.reply(text)
    return Sampled(ids, [0.0] * len(ids), StopReason.STOP, [version] * len(ids))


class ScriptedSession:
    """One script at work."""

    def __init__(self, render: Render, script: Script, version: int) -> None:
        self.render, self.script, self.version = render, script, version

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Decode, ask the script, encode."""
        return scripted(self.script(self.render.text(ids)), self.render, self.version)


class ScriptedSampler:
    """Give each session its own script, made from the session's name."""

    def __init__(self, render: Render, make_script: Callable[[Names], Script]) -> None:
        self.render, self.make_script, self.version = render, make_script, 0

    def session(self, names: Names) -> ScriptedSession:
        """Open a session with a fresh script."""
        return ScriptedSession(self.render, self.make_script(names), self.version)

    async def load(self, weights: Any, version: int) -> None:
        """A script has no weights; only the version moves on."""
        self.version = version
