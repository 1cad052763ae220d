"""A skilled policy with noise on every word, for imitation in the compact style.

Each word of a reply is skilled or naive by an independent draw, so no other word of the life tells whether this one is
skilled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from codots.domains.base import Rng
from codots.domains.frozen_lake.board import DIRECTIONS, good_directions
from codots.domains.frozen_lake.env import CODES, DEFAULT, Dials, Mapping, View, write_code
from codots.domains.frozen_lake.policies import Bayes, claimed_code
from codots.domains.noise import Noise


@dataclass(frozen=True)
class LakeNoise(Noise):
    """Probabilities that control the actions and the notes of a policy."""

    # A skilled direction comes from the exact optimum, a naive one from a shortest path. Ties go to the first
    # direction, because a model learns a fixed rule faster than random draws and plans more reliably with it.
    thought: float = 1.0
    """Probability that the intended direction is optimal."""
    # A naive code trusts the context. If the context claims no code for the intended direction, it is a guess.
    code: float = 1.0
    """Probability that the code uses what the episode has shown."""
    habit: float = 0.7  # other guesses are uniform draws
    """Probability that a guess uses the code of standard FrozenLake."""


class NoisyPolicy(Bayes):
    """Policy that draws for each word whether it is skilled or naive."""

    def __init__(self, dials: Dials, noise: LakeNoise, rng: Rng) -> None:
        super().__init__(dials)
        self.noise, self.rng = noise, rng

    def act(self, view: View) -> str:
        self.observe(view)
        belief = self.belief
        thought = self._thought(view, belief)
        return write_code(self._code(belief, thought), thought, view.style)

    def _thought(self, view: View, belief: list[Mapping]) -> str:
        shortest = good_directions(view.board, view.at)
        if self.rng.random() >= self.noise.thought:
            return shortest[0]
        possible = {mapping[code] for mapping in belief for code in self.best(view, belief)}
        return next(d for d in (*shortest, *DIRECTIONS) if d in possible)

    def _code(self, belief: list[Mapping], thought: str) -> str:
        if self.rng.random() < self.noise.code:
            return self._choice([c for i, c in enumerate(CODES) if any(m[i] == thought for m in belief)])
        if trusted := claimed_code(self.claims, thought):
            return trusted
        return CODES[DEFAULT.index(thought)] if self.rng.random() < self.noise.habit else self._choice(CODES)

    def _choice(self, words: Iterable[str]) -> str:
        words = list(words)
        return words[self.rng.integers(len(words))]
