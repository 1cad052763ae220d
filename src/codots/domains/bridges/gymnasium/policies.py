"""The reference policies."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from codots.domains.base import Rng, Step
from codots.domains.bridges.gymnasium.env import View
from codots.domains.bridges.gymnasium.model import Floats, model_of
from codots.domains.bridges.gymnasium.upstream import Spec

HURRY = 1e-4
"""What a turn costs those who know: too little to change what they earn, enough to keep them from idling."""
SMALL = 1e-3
"""Chance of what the outcomes that are known do not hold."""


def write_action(action: int, codes: tuple[int, ...]) -> str:
    """Write a reply with the code of this action."""
    return f"<action>{codes.index(action) + 1}</action>"


class Random:
    """Codes drawn evenly."""

    def __init__(self, spec: Spec, rng: Rng) -> None:
        self.spec, self.rng = spec, rng

    def act(self, view: View) -> str:
        return f"<action>{self.rng.integers(self.spec.actions) + 1}</action>"

    def end(self, step: Step) -> None:
        """Random play learns nothing."""


class Informed:
    """The best action by the outcomes of the environment, through the true codes."""

    def __init__(self, spec: Spec, turns: int, codes: tuple[int, ...]) -> None:
        self.spec, self.turns, self.codes = spec, turns, codes
        self._values: tuple[object, list[Floats]] | None = None

    def act(self, view: View) -> str:
        return write_action(self.best(view), self.codes)

    def best(self, view: View) -> int:
        """The best action, 0 where nothing is known of what is seen."""
        model = model_of(self.spec, view.board, self.turns)
        if self._values is None or self._values[0] != view.board:
            self._values = view.board, model.values(self.turns, HURRY)
        state = model.states.get(view.seen)
        return 0 if state is None else int(self._values[1][view.turn][state].argmax())

    def end(self, step: Step) -> None:
        """There is nothing left to learn."""


class Learner(Informed):
    """Draws an order of the codes from the posterior given all that it saw in its life, and takes it for the truth."""

    def __init__(self, spec: Spec, turns: int, rng: Rng) -> None:
        super().__init__(spec, turns, ())
        self.rng = rng
        self.orders = np.array(list(permutations(range(spec.actions))))
        self.weights = np.full(len(self.orders), 1 / len(self.orders))

    def act(self, view: View) -> str:
        self._learn(view)
        drawn = self.orders[self.rng.choice(len(self.orders), p=self.weights)]
        return write_action(self.best(view), tuple(drawn.tolist()))

    def end(self, step: Step) -> None:
        self._learn(step.view)

    def _learn(self, view: View) -> None:
        if view.code is None:
            return
        model = model_of(self.spec, view.board, self.turns)
        likely = model.likelihood(view.before, view.seen, view.ended)
        if likely is not None:
            self.weights = self.weights * (likely + SMALL)[self.orders[:, int(view.code) - 1]]
            self.weights /= self.weights.sum()
