"""Reference policies for Gymnasium environments."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from codots.domains.base import Rng, Step
from codots.domains.bridges.gymnasium.env import View
from codots.domains.bridges.gymnasium.model import Floats, model_of
from codots.domains.bridges.gymnasium.upstream import Spec

TURN_DECAY = 1e-4
"""Fraction of the later return that each turn costs. It is too small to change returns but prevents idling."""
MISSING_PROBABILITY = 1e-3
"""Probability added to each likelihood, so that no order is excluded by an outcome that the model lacks."""


def write_action(action: int, codes: tuple[int, ...]) -> str:
    """Return a reply with the code of this action."""
    return f"<action>{codes.index(action) + 1}</action>"


class Random:
    """Policy that draws codes uniformly."""

    def __init__(self, spec: Spec, rng: Rng) -> None:
        self.spec, self.rng = spec, rng

    def act(self, view: View) -> str:
        return f"<action>{self.rng.integers(self.spec.actions) + 1}</action>"

    def end(self, step: Step) -> None:
        """Ignore the outcome."""


class Informed:
    """Policy that takes the best action under the environment's outcomes and the true codes."""

    def __init__(self, spec: Spec, turns: int, codes: tuple[int, ...]) -> None:
        self.spec, self.turns, self.codes = spec, turns, codes
        self._values: tuple[object, list[Floats]] | None = None

    def act(self, view: View) -> str:
        return write_action(self.best(view), self.codes)

    def best(self, view: View) -> int:
        """Return the best action, or action 0 if the model lacks the observation."""
        model = model_of(self.spec, view.board, self.turns)
        if self._values is None or self._values[0] != view.board:
            self._values = view.board, model.values(self.turns, TURN_DECAY)
        state = model.states.get(view.seen)
        return 0 if state is None else int(self._values[1][view.turn][state].argmax())

    def end(self, step: Step) -> None:
        """Ignore the outcome; the world is already known."""


class AdaptivePolicy(Informed):
    """Policy that at every turn draws a mapping of codes to actions from the posterior, and acts as if it were true."""

    def __init__(self, spec: Spec, turns: int, rng: Rng) -> None:
        super().__init__(spec, turns, ())
        self.rng = rng
        self.orders = np.array(list(permutations(range(spec.actions))))
        self.weights = np.full(len(self.orders), 1 / len(self.orders))

    def act(self, view: View) -> str:
        self._update(view)
        drawn = self.orders[self.rng.choice(len(self.orders), p=self.weights)]
        return write_action(self.best(view), tuple(drawn.tolist()))

    def end(self, step: Step) -> None:
        self._update(step.view)

    def _update(self, view: View) -> None:
        if view.code is None:
            return
        model = model_of(self.spec, view.board, self.turns)
        probabilities = model.likelihood(view.before, view.seen, view.ended)
        if probabilities is not None:
            self.weights = self.weights * (probabilities + MISSING_PROBABILITY)[self.orders[:, int(view.code) - 1]]
            self.weights /= self.weights.sum()
