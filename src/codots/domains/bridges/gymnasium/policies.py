"""Reference policies for Gymnasium environments."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import numpy as np

from codots.domains.base import Rng, Step
from codots.domains.bridges.gymnasium.env import View
from codots.domains.bridges.gymnasium.model import Floats, model_of
from codots.domains.bridges.gymnasium.notes import read_claims, read_estimates, write_claim, write_estimate
from codots.domains.bridges.gymnasium.upstream import Spec

TURN_DECAY = 1e-4
"""Fraction of the later return that each turn costs. It is too small to change returns but prevents idling."""
MISSING_PROBABILITY = 1e-3
"""Probability added to each likelihood, so that no order is excluded by an outcome that the model lacks."""
WRONG_CLAIM = 1e-3
"""Weight of an order for each claim in the context that it contradicts."""
SURE = 0.99
"""Minimum posterior probability of an action that is written as a claim."""


def write_code(code: int) -> str:
    """Return a reply with this code, counted from 0."""
    return f"<action>{code + 1}</action>"


@lru_cache(maxsize=64)
def _values(spec: Spec, board: tuple[str, ...] | None, turns: int) -> list[Floats]:
    """Return the values of a model, from a cache, because every task of a reader has a new policy."""
    return model_of(spec, board, turns).values(turns, TURN_DECAY)


class Informed:
    """Policy that takes the best action under the environment's outcomes and the true codes."""

    def __init__(self, spec: Spec, turns: int, codes: tuple[int, ...]) -> None:
        self.spec, self.turns, self.codes = spec, turns, codes

    def act(self, view: View) -> str:
        return write_code(self.codes.index(self.best(view)))

    def best(self, view: View) -> int:
        """Return the best action, or action 0 if the model lacks the observation."""
        state = model_of(self.spec, view.board, self.turns).states.get(view.seen)
        values = _values(self.spec, view.board, self.turns)
        return 0 if state is None else int(values[view.turn][state].argmax())

    def end(self, step: Step) -> None:
        """Ignore the outcome; the world is already known."""


class Random(Informed):
    """Policy that draws codes uniformly.

    If it has read a context, it takes the best action, by a code drawn from those without a claim if the context claims
    no code for that action.
    """

    def __init__(self, spec: Spec, turns: int, rng: Rng) -> None:
        super().__init__(spec, turns, ())
        self.rng = rng
        self.claims: dict[int, int] | None = None
        """The claimed action of each code, or None if no context was read."""

    def act(self, view: View) -> str:
        codes = [*range(self.spec.actions)]
        if self.claims is not None:
            best, claims = self.best(view), self.claims
            codes = [c for c in codes if claims.get(c) == best] or [c for c in codes if c not in claims] or codes
        return write_code(codes[self.rng.integers(len(codes))])

    def read(self, context: str) -> None:
        """Read which code has which action."""
        self.claims = dict(read_claims(self.spec, context))


class AdaptivePolicy(Informed):
    """Policy that at every turn draws a mapping of codes to actions from the posterior, and acts as if it were true."""

    def __init__(self, spec: Spec, turns: int, rng: Rng) -> None:
        super().__init__(spec, turns, ())
        self.rng = rng
        self.orders = np.array(list(permutations(range(spec.actions))))
        self.weights = np.full(len(self.orders), 1 / len(self.orders))
        """Posterior probability of each order."""
        self.estimates = np.full((spec.actions, spec.actions), 1 / spec.actions)
        """Probability of each action of each code, from what is known about this code alone."""

    def act(self, view: View) -> str:
        self._update(view)
        drawn = self.orders[self.rng.choice(len(self.orders), p=self.weights)]
        return write_code(drawn.tolist().index(self.best(view)))

    def end(self, step: Step) -> None:
        self._update(step.view)

    def read(self, context: str) -> None:
        """Read which code has which action, for certain or by estimate."""
        for code, action in dict(read_claims(self.spec, context)).items():
            self._weigh(code, np.where(np.arange(self.spec.actions) == action, 1.0, WRONG_CLAIM))
        for code, estimate in read_estimates(self.spec, context).items():
            self._weigh(code, estimate)

    def notes(self, style: str) -> dict[str, str]:
        """Return the action of each code: for certain, or as an estimate if something is known about it."""
        notes = {}
        for code, estimate in enumerate(self.estimates):
            chances = np.bincount(self.orders[:, code], self.weights)
            if chances.max() >= SURE:
                notes[str(code + 1)] = write_claim(self.spec, code, int(chances.argmax()))
            elif np.ptp(estimate) > 0:
                notes[str(code + 1)] = write_estimate(self.spec, code, estimate)
        return notes

    def _update(self, view: View) -> None:
        if view.code is None:
            return
        model = model_of(self.spec, view.board, self.turns)
        probabilities = model.likelihood(view.before, view.seen, view.ended)
        if probabilities is not None:
            self._weigh(int(view.code) - 1, probabilities + MISSING_PROBABILITY)

    def _weigh(self, code: int, likelihood: Floats) -> None:
        """Update the posterior by the likelihood of each action of a code."""
        self.weights = self.weights * likelihood[self.orders[:, code]]
        self.weights /= self.weights.sum()
        self.estimates[code] = self.estimates[code] * likelihood
        self.estimates[code] /= self.estimates[code].sum()
