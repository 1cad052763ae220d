"""Reference policies for Reasoning Gym."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from codots.domains.base import Rng, Step
from codots.domains.bridges.reasoning_gym.problems import LOT_SIZE, Lot, Problem, draw_lot, make_problem


@dataclass(frozen=True)
class View:
    """The public state of a task."""

    number: int
    """Number of the problem within the world's lot."""
    question: str
    answer: str | None = None
    """An answer that scores 1. None until the task is over."""


def write_answer(answer: str) -> str:
    """Return a reply with this answer."""
    return f"<action>{answer}</action>"


class Random:
    """Policy that gives the right answer to another problem of the family, from a separate lot."""

    def __init__(self, rng: Rng, name: str, levels: tuple[int, int]) -> None:
        self.rng, self.name = rng, name
        self.lot = draw_lot(rng, name, *levels)

    def act(self, view: View) -> str:
        return write_answer(draw_problem(self.rng, self.name, self.lot).answer)

    def end(self, step: Step) -> None:
        """Ignore the outcome."""


@dataclass
class Informed:
    """Policy that regenerates the problem and gives its answer."""

    name: str
    lot: Lot

    def act(self, view: View) -> str:
        problem = make_problem(self.name, self.lot, view.number)
        return write_answer(problem.answer if problem else "")

    def end(self, step: Step) -> None:
        """Ignore the outcome; the world is already known."""


class AdaptivePolicy(Random):
    """Policy that repeats the most frequent answer shown in the life, the latest on ties, after a random start."""

    def __init__(self, rng: Rng, name: str, levels: tuple[int, int]) -> None:
        super().__init__(rng, name, levels)
        self.answers: list[str] = []

    def act(self, view: View) -> str:
        return write_answer(Counter(reversed(self.answers)).most_common(1)[0][0]) if self.answers else super().act(view)

    def end(self, step: Step) -> None:
        if step.view.answer is not None:
            self.answers.append(step.view.answer)


def draw_problem(rng: Rng, name: str, lot: Lot) -> Problem:
    """Draw a problem of a lot. Raises RuntimeError if the family generates none in 100 tries."""
    for _ in range(100):
        problem = make_problem(name, lot, int(rng.integers(LOT_SIZE)))
        if problem is not None:
            return problem
    raise RuntimeError(f"reasoning-gym:{name} generated no problem in 100 tries under {dict(lot.levels)}")
