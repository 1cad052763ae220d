"""The reference policies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from codots.domains.base import Rng, Step
from codots.domains.bridges.reasoning_gym.problems import SPAN, Lot, Problem, draw_lot, make_problem


@dataclass(frozen=True)
class View:
    """The public state of a task."""

    number: int
    """Of the problem, in the lot of the world."""
    question: str
    told: str | None = None
    """The answer that scores 1, once the task is over."""


def write_answer(answer: str) -> str:
    """Write a reply with this answer."""
    return f"<action>{answer}</action>"


class Random:
    """The right answer to another problem of the family, of a lot of its own."""

    def __init__(self, rng: Rng, name: str, levels: tuple[int, int]) -> None:
        self.rng, self.name = rng, name
        self.lot = draw_lot(rng, name, *levels)

    def act(self, view: View) -> str:
        return write_answer(draw_problem(self.rng, self.name, self.lot).answer)

    def end(self, step: Step) -> None:
        """Random play learns nothing."""


@dataclass
class Informed:
    """Makes the problem anew, with its answer."""

    name: str
    lot: Lot

    def act(self, view: View) -> str:
        problem = make_problem(self.name, self.lot, view.number)
        return write_answer(problem.answer if problem else "")

    def end(self, step: Step) -> None:
        """There is nothing left to learn."""


class Habit(Random):
    """The answer that it was told most often in its life, the latest of equals; before there is one, a random one."""

    def __init__(self, rng: Rng, name: str, levels: tuple[int, int]) -> None:
        super().__init__(rng, name, levels)
        self.told: list[str] = []

    def act(self, view: View) -> str:
        return write_answer(Counter(reversed(self.told)).most_common(1)[0][0]) if self.told else super().act(view)

    def end(self, step: Step) -> None:
        if step.view.told is not None:
            self.told.append(step.view.told)


def draw_problem(rng: Rng, name: str, lot: Lot) -> Problem:
    """Draw a problem of a lot. Raises RuntimeError where the family cannot make any."""
    for _ in range(100):
        problem = make_problem(name, lot, int(rng.integers(SPAN)))
        if problem is not None:
            return problem
    raise RuntimeError(f"reasoning-gym:{name} made no problem in 100 tries under {dict(lot.levels)}")
