"""Environment of optimal control, with observations, reply parsing and rewards."""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass, field, replace
from typing import Literal

from codots.core.templates import Prompts
from codots.domains.base import Step
from codots.domains.optimal_control.law import LawError, read_law
from codots.domains.optimal_control.point import STEER, Fit, Goal, Plant, Simulation, least_loss, loss, run

ELEMENT = re.compile(r"\s*<law>([^<>]*)</law>\s*")
ENTITY = re.compile(r"&(?!(?:lt|gt|amp|quot|apos);)")
render = Prompts(__package__)
FEEDBACK_LENGTH = 500  # characters of the feedback on a malformed reply


@dataclass(frozen=True)
class Rules:
    """Settings that differ between versions."""

    strict_reply: bool
    """Whether the reply must end with the law in an XML element and contain no code fence."""
    unreadable: float
    """Reward of a reply that contains no readable law."""
    base: float
    """Minimum reward of a law that runs to the end."""
    regret: bool
    """Whether the reward compares the loss with the least possible loss, on a scale that also separates bad laws."""
    failure_shown: bool
    """Whether the table shows the steps before a law failed."""
    exact_numbers: bool
    """Whether the numbers of a task are rounded to three decimals when drawn, so that the shown numbers are exact."""
    apart: float
    """Minimum distance between start and target position."""
    split_tasks: bool
    """Whether each task belongs either to `train` or to the held-out splits."""

    def reward(self, cost: float, least: float) -> float:
        """Return the reward of a run with loss `cost`, given the least possible loss."""
        if not self.regret:
            return 1 / (1 + cost)
        missed = math.sqrt(max(0.0, cost - least))
        return self.base + (1 - self.base) / (1 + math.log1p(missed))


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    x0: float
    """Bound of the start position, which is drawn from [-x0, x0]. The next three fields are bounds of the same kind."""
    v0: float
    x_target: float
    v_target: float = 0.0
    horizon: tuple[int, int] = (12, 12)
    """Minimum and maximum number of steps. Both must be at most 16."""
    penalty: tuple[float, ...] = (0.03,)
    """Prices of pushing, one of which is drawn uniformly for each task."""
    a: tuple[float, float] = (0.55, 1.20)
    b: tuple[float, float] = (-1.5, 1.5)
    """Range of b. If the range does not cross 0, the rules state the sign."""
    least_b: float = 0.35
    """Minimum absolute value of b."""
    noise: float = 0.0
    """Standard deviation of the noise added to the velocity at each step."""
    aid: bool = False
    """Whether the environment does the arithmetic by providing `steer(a, b)` and fitting a and b to each run."""
    memory: Literal["context", "environment"] = "context"
    """What carries knowledge across the tasks of a life: the context alone, or also the environment, which then shows
    the last law and where it ended."""


@dataclass(frozen=True)
class View:
    """The public state of an episode. It contains only what the texts show."""

    goal: Goal
    """The goal with numbers rounded as shown."""
    strict_reply: bool
    aid: bool
    law: str = ""
    rows: tuple[tuple[float, ...], ...] = ()
    """x, v and u of each step, rounded as shown. The last row has no u."""


@dataclass(frozen=True)
class Last:
    """The last law that ran to the end, its task and reward, and the final errors relative to the target."""

    law: str
    goal: Goal
    reward: float
    x_missed: float
    v_missed: float


@dataclass
class Memory:
    """State that the environment carries across the tasks of a life."""

    last: Last | None = None


@dataclass
class ControlEnv:
    """The environment of one task, which takes one law."""

    plant: Plant
    goal: Goal
    rules: Rules
    dials: Dials
    gusts: tuple[float, ...]
    memory: Memory | None
    view: View = field(init=False)

    def __post_init__(self) -> None:
        self.view = View(self.goal.shown, self.rules.strict_reply, self.dials.aid)

    def observe(self) -> str:
        """Return the description of the task, and the last law if the environment remembers it."""
        return render("task", goal=self.goal, last=self.memory.last if self.memory else None)

    def step(self, text: str) -> Step:
        """Run the law in the text."""
        try:
            written = read_reply(text, self.rules.strict_reply)
            law = read_law(written, STEER if self.dials.aid else {})
        except LawError as error:
            feedback = f"The reply held no law that can be read: {error}. The point was not moved."
            return Step("", self.rules.unreadable, True, feedback[:FEEDBACK_LENGTH], "malformed", self.view)
        done = run(self.plant, self.goal, law, self.gusts)
        visible = self.rules.failure_shown or not done.failure
        self.view = replace(self.view, law=written, rows=shown(done) if visible else ())
        if done.failure:
            return Step(self._table(), 0.0, True, f"The law gave out {done.failure}.", "failed", self.view)
        return self._end(written, done)

    def _end(self, written: str, done: Simulation) -> Step:
        cost = loss(self.goal, done)
        least = least_loss(self.plant, self.goal, self.gusts) if self.rules.regret else 0.0
        reward = self.rules.reward(cost, least)
        if self.memory is not None:
            x_missed, v_missed = done.x[-1] - self.goal.x_target, done.v[-1] - self.goal.v_target
            self.memory.last = Last(written, self.goal, reward, x_missed, v_missed)
        text = render("feedback", done=done, goal=self.goal, cost=cost, least=least, reward=reward, rules=self.rules)
        return Step(self._table(), reward, True, text, "done", self.view)

    def _table(self) -> str:
        fit = Fit().add(*columns(self.view.rows)).solve() if self.dials.aid else None
        return table(self.view, self.dials.aid, fit)


def table(view: View, aid: bool = False, fit: Plant | None = None) -> str:
    """Return the shown run as a table, with the fit of a and b if `aid` is true. Empty if there are no rows."""
    return render("table", rows=view.rows, aid=aid, fit=fit) if view.rows else ""


def shown(done: Simulation) -> tuple[tuple[float, ...], ...]:
    """Return the rows of the shown table, which are rounded to three decimals."""
    rows = [(x, v, *done.u[t : t + 1]) for t, (x, v) in enumerate(zip(done.x, done.v, strict=True))]
    return tuple(tuple(round(number, 3) + 0.0 for number in row) for row in rows)


def columns(rows: tuple[tuple[float, ...], ...]) -> tuple[list[float], list[float]]:
    """Return the velocities and the pushes of a table."""
    return [row[1] for row in rows], [row[2] for row in rows if len(row) > 2]


def read_reply(text: str, strict: bool) -> str:
    """Extract the law from a reply. Raises LawError if the reply has the wrong form."""
    if text.count("<action>") != 1 or text.count("</action>") != 1:
        raise LawError("expected exactly one <action> and one </action>")
    inside, closed, after = text.partition("<action>")[2].partition("</action>")
    if not closed:
        raise LawError("expected </action> after <action>")
    return _strict(text, inside, after) if strict else inside.strip()


def _strict(text: str, inside: str, after: str) -> str:
    if "```" in text:
        raise LawError("the reply holds a code fence")
    if after.strip():
        raise LawError("something stands after </action>")
    element = ELEMENT.fullmatch(inside)
    if element is None or ENTITY.search(element[1]):
        raise LawError("expected <action><law>LAW</law></action>, with &lt; and &amp; for the signs that XML keeps")
    return html.unescape(element[1]).strip()


def write_reply(law: str, thought: str, strict: bool) -> str:
    """Return a reply with this law."""
    return (
        f"{thought} <action><law>{html.escape(law)}</law></action>" if strict else f"{thought} <action>{law}</action>"
    )
