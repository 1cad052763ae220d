"""Wrapper that hides an environment's actions behind codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codots.core.templates import Prompts
from codots.domains.base import Step
from codots.domains.bridges.gymnasium.upstream import Spec, open_env, picture, plain
from codots.domains.family import action

render = Prompts(__package__)


@dataclass(frozen=True)
class Start:
    """The public content of a task."""

    seed: int
    """Seed of the environment's start and random outcomes."""
    board: tuple[str, ...] | None
    """The map, or None if the environment takes no map."""
    seen: Any
    """The first observation."""
    zero: float
    """Return that maps to reward 0."""
    one: float
    """Return that maps to reward 1, which is the best possible return from this start."""

    def reward(self, total: float) -> float:
        """Map a return to a reward between 0 and 1."""
        return min(1.0, max(0.0, (total - self.zero) / (self.one - self.zero)))


@dataclass(frozen=True)
class View:
    """The public state of an episode."""

    board: tuple[str, ...] | None
    seen: Any
    turn: int
    """Actions taken so far."""
    picture: str = ""
    code: str | None = None
    """The last code, or None before the first action."""
    before: Any = None
    """The observation before the last code."""
    ended: bool = False
    """Whether the environment terminated the episode. Reaching a turn limit does not count."""
    paid: float = 0.0
    """Environment reward of the last action."""


class CodedEnv:
    """One episode of an environment whose actions are chosen by codes."""

    def __init__(self, spec: Spec, start: Start, codes: tuple[int, ...], turns: int) -> None:
        self.spec, self.start, self.codes, self.turns = spec, start, codes, turns
        self.env = open_env(spec, start.board)
        self.total = 0.0
        seen = plain(self.env.reset(seed=start.seed)[0])
        self.view = View(start.board, seen, 0, self._picture())

    def _picture(self) -> str:
        return picture(self.env) if self.spec.drawn else ""

    def observe(self) -> str:
        """Return the opening observation."""
        return self._situation()

    def step(self, text: str) -> Step:
        """Take the action of the code in the text."""
        code = (action(text) or "").strip()
        if code not in codes(self.spec):
            self.env.close()
            feedback = f"The reply did not name one code of 1 to {self.spec.actions} in <action></action>."
            return Step("", 0.0, True, feedback, "malformed", self.view)
        before = self.view
        seen, pays, ends, cut, _ = self.env.step(self.spec.first + self.codes[int(code) - 1])
        self.total += float(pays)
        turn = before.turn + 1
        self.view = View(before.board, plain(seen), turn, self._picture(), code, before.seen, bool(ends), float(pays))
        message = f"Code {code} was taken; it paid {float(pays):g}."
        if ends or cut or turn == self.turns:
            return self._end(message, "ended" if ends else "late")
        return Step(f"{message}\n{self._situation()}", 0.0, False, view=self.view)

    def _end(self, message: str, stop: str) -> Step:
        self.env.close()
        reward = self.start.reward(self.total)
        feedback = f"All in all it paid {self.total:g}, which counts as {reward:.2f} of 1."
        return Step(f"{message}\n{self._shown()}", reward, True, f"{ENDINGS[stop]} {feedback}", stop, self.view)

    def _situation(self) -> str:
        return f"Turn {self.view.turn + 1} of {self.turns}.\n{self._shown()}"

    def _shown(self) -> str:
        return render("shown", kind=self.spec.kind, seen=self.view.seen, picture=self.view.picture)


ENDINGS = {"ended": "The episode came to its end.", "late": "The turns ran out."}


def codes(spec: Spec) -> tuple[str, ...]:
    """Return the codes of an environment, counted from 1."""
    return tuple(str(i + 1) for i in range(spec.actions))
