"""Reference policies of the bandit."""

from __future__ import annotations

from itertools import permutations

from codots.domains.bandit.env import Dials, Option, View, write_option
from codots.domains.bandit.notes import LIKELY, NOT, SURE, read_claims, write_claim
from codots.domains.base import Rng, Step
from codots.domains.drift import Drift

DOUBT = 1e-3
"""Minimum likelihood of a claim that was read, so that observations can contradict it."""
KNOWN = 0.95
"""Probability from which `bayes` states that an option pays, without `probably`."""


class Random:
    """Policy that chooses uniformly, after reading a context among the options that it claims or leaves open."""

    def __init__(self, options: tuple[Option, ...], rng: Rng) -> None:
        self.options, self.rng = options, rng
        self.claims: dict[Option, int] = {}
        self.last: View | None = None

    def act(self, view: View) -> str:
        best = max(self.claims.get(option, 0) for option in view.options)
        left = [option for option in view.options if self.claims.get(option, 0) == best]
        return write_option(left[self.rng.integers(len(left))], view.style)

    def end(self, step: Step) -> None:
        """Remember the outcome, which `shown` states. This policy does not learn."""
        self.last = step.view

    def read(self, context: str) -> None:
        """Read which options are claimed to pay. Of two lines about an option, the first is the newer one."""
        self.claims = read_claims("\n".join(reversed(context.splitlines())), self.options)

    def shown(self, style: str) -> dict[str, str]:
        """Return whether the chosen option paid."""
        if self.last is None or self.last.chosen is None:
            return {}
        return {"pays": write_claim([self.last.chosen], SURE if self.last.paid else NOT, style)}


class Informed:
    """Policy that chooses the right option."""

    def __init__(self, right: Option) -> None:
        self.right = right

    def act(self, view: View) -> str:
        return write_option(self.right, view.style)

    def end(self, step: Step) -> None:
        """Ignore the outcome; the right option is already known."""


class Bayes:
    """Policy that maximizes the expected reward of each task exactly, given everything seen in the life.

    It weighs every option that may be right, with every change that may come. A claim that it reads counts like what
    would have been seen: a sure one like two payouts, a likely one like one, a denied one like none in one try.
    """

    def __init__(self, options: tuple[Option, ...], dials: Dials) -> None:
        self.options, self.dials = options, dials
        self.position = 0
        self.weights = dict.fromkeys(possible_rules(options, dials), 1.0)
        """The probability of each rule, up to a factor."""

    def act(self, view: View) -> str:
        chances = self.chances(self.position)
        return write_option(max(view.options, key=lambda option: round(chances[option], 12)), view.style)

    def end(self, step: Step) -> None:
        view: View = step.view
        if view.chosen:
            self._see(view.chosen, view.paid)
        self.position += 1

    def read(self, context: str) -> None:
        """Read which options pay and which do not."""
        for option, kind in read_claims(context, self.options).items():
            for _ in range(abs(kind)):
                self._see(option, kind > 0, DOUBT)

    def notes(self, style: str) -> dict[str, str]:
        """Return the option that pays, surely or probably, or the options that have become unlikely."""
        chances = self.chances(max(self.position - 1, 0))
        best = max(chances, key=lambda option: chances[option])
        unlikely = [option for option in self.options if chances[option] < 0.5 / len(self.options)]
        if chances[best] > 0.5:
            return {"pays": write_claim([best], SURE if chances[best] >= KNOWN else LIKELY, style)}
        return {"pays": write_claim(unlikely, NOT, style)} if unlikely else {}

    def chances(self, position: int) -> dict[Option, float]:
        """Return the probability of each option to be the right one at a position."""
        chances = dict.fromkeys(self.options, 0.0)
        for rule, weight in self.weights.items():
            chances[rule.at(position)] += weight
        total = sum(chances.values())
        return {option: chance / total for option, chance in chances.items()}

    def _see(self, option: Option, paid: bool, least: float = 0.0) -> None:
        for rule in self.weights:
            pays = self.dials.paying(option, rule.at(self.position))
            self.weights[rule] *= max(pays if paid else 1 - pays, least)


def possible_rules(options: tuple[Option, ...], dials: Dials) -> list[Drift]:
    """Return which option may be right before and after which position. All of these rules are equally likely."""
    if dials.change is None:
        return [Drift(option, option, 0) for option in options]
    first, last = dials.change
    return [Drift(*pair, position) for pair in permutations(options, 2) for position in range(first, last + 1)]
