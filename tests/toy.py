"""Small domains for tests: guess a number that is fixed per world, and talk freely."""

from dataclasses import dataclass
from typing import Any

from codots.core.rng import digest, stream
from codots.domains.base import Domain, Step


@dataclass(frozen=True)
class View:
    """What a policy sees: the last guess, whether it hit, and the number of guesses left."""

    numbers: int
    left: int
    guess: int | None = None
    hit: bool = False


@dataclass
class GuessEnv:
    """An episode of one or two guesses."""

    hidden: int
    view: View

    def observe(self) -> str:
        return f"Guess a number below {self.view.numbers}."

    def step(self, text: str) -> Step:
        if len(text) > 1 or text not in "0123456789"[: self.view.numbers] or not text:
            return Step("", 0.0, True, "not a number", "malformed", self.view)
        hit, left = int(text) == self.hidden, self.view.left - 1
        self.view = View(self.view.numbers, left, int(text), hit)
        stop = "hit" if hit else "late" if left == 0 else None
        return Step("yes" if hit else "no", float(hit), stop is not None, stop or "", stop, self.view)


class GuessPolicy:
    """A policy that guesses uniformly among the possible numbers."""

    def __init__(self, possible: list[int], adaptive: bool, rng: Any) -> None:
        self.possible, self.adaptive, self.rng = possible, adaptive, rng

    def act(self, view: View) -> str:
        self.see(view)
        return str(self.possible[self.rng.integers(len(self.possible))])

    def end(self, step: Step) -> None:
        self.see(step.view)

    def see(self, view: View) -> None:
        if self.adaptive and isinstance(view, View) and view.guess is not None:
            self.possible = [n for n in self.possible if (n == view.guess) == view.hit]


class Guess(Domain):
    """A domain that passes the contract; subclasses in tests break one rule each."""

    id = "guess-v0"
    presets = {"few": 4, "many": 8}  # noqa: RUF012
    exact = True

    def make_world(self, rng, dials):
        return int(rng.integers(dials))

    def make_task(self, world, position, rng):
        return int(rng.integers(1, 3))

    def make_env(self, task, *, style="natural", memory=None, rng):
        return GuessEnv(task.world.hidden, View(task.world.dials, task.content))

    def rules_text(self, task, style):
        return "Find the hidden number. It is the same in every task of this world."

    def policy(self, name, world):
        possible = [world.hidden] if name == "informed" else list(range(world.dials))
        return GuessPolicy(possible, name == "bayes", stream(*world.names, name))


@dataclass
class TalkEnv:
    """An episode of three turns that accepts any text."""

    view: int = 0
    said: str = ""

    def observe(self) -> str:
        return "Say something."

    def step(self, text: str) -> Step:
        self.view, self.said = self.view + 1, self.said + text
        done = self.view == 3
        reward = digest(self.said) % 101 / 100 if done else 0.0
        return Step(f"I heard {len(text)} letters.", reward, done, "Enough." if done else "", "end" if done else None)


class Talk(Guess):
    """A domain whose episodes have three turns and accept any text, for untrained models."""

    id = "talk-v0"

    def make_env(self, task, *, style="natural", memory=None, rng):
        return TalkEnv()
