"""Environment of the bandit: options, action parsing and payouts."""

from __future__ import annotations

from dataclasses import dataclass
from string import punctuation
from typing import NamedTuple

from codots.domains.base import Rng, Step
from codots.domains.family import action


class Option(NamedTuple):
    """An option, with its name in each style."""

    label: str
    code: str

    def name(self, style: str) -> str:
        """Return the name in this style."""
        return self.code if style == "compact" else self.label


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    options: int
    """Number of options, k."""
    chance: float = 1.0
    """Probability that the right option pays."""
    stray: float = 0.0
    """Probability that another option pays."""
    change: tuple[int, int] | None = None
    """First and last position at which the right option may change, or None if it never changes."""

    def paying(self, option: Option, right: Option) -> float:
        """Return the probability that an option pays."""
        return self.chance if option == right else self.stray


@dataclass(frozen=True)
class Secret:
    """The hidden part of a world, including the public options."""

    options: tuple[Option, ...]
    right: Option


@dataclass(frozen=True)
class View:
    """Public state of a task."""

    options: tuple[Option, ...]
    """The options in the order shown."""
    style: str
    chosen: Option | None = None
    """The option chosen, or None before the choice and after malformed text."""
    paid: bool = False


class BanditEnv:
    """One task: a single choice."""

    def __init__(self, shown: tuple[Option, ...], secret: Secret, dials: Dials, style: str, rng: Rng) -> None:
        self.secret, self.dials, self.luck = secret, dials, rng.random()
        self.view = View(shown, style)

    def observe(self) -> str:
        """Return the names of the options, in the natural style as the replies that choose them."""
        style = self.view.style
        replies = [write_option(option, style) for option in self.view.options]
        return " ".join(replies) if style == "compact" else "\n".join(["Reply with one line:", *replies])

    def step(self, text: str) -> Step:
        """Choose the option named in the text."""
        view = self.view
        compact = view.style == "compact"
        option = read_option(text, view)
        if option is None:
            feedback = "malformed" if compact else MALFORMED
            return Step("", 0.0, True, feedback, "malformed", view)
        paid = self.luck < self.dials.paying(option, self.secret.right)
        self.view = View(view.options, view.style, option, paid)
        stop = "paid" if paid else "empty"
        result = f"{option.code}={paid:d}" if compact else f"{option.label} {'pays' if paid else 'is empty'}."
        return Step(result, float(paid), True, stop if compact else FEEDBACK[stop], stop, self.view)


FEEDBACK = {"paid": "You were paid.", "empty": "You were not paid."}
MALFORMED = "The reply did not hold one of the options, like <action> name </action>; the task is lost."


def read_option(text: str, view: View) -> Option | None:
    """Return the option named in a reply, or None if the reply is malformed. Case and punctuation do not matter."""
    named = (text.split() or [""])[-1] if view.style == "compact" else action(text) or ""
    named = named.strip().strip(punctuation).strip().lower()
    return next((option for option in view.options if option.name(view.style).lower() == named), None)


def write_option(option: Option, style: str) -> str:
    """Return a reply that chooses this option."""
    return option.code if style == "compact" else f"<action> {option.label} </action>"
