"""Environment of alchemy, with observations, action parsing, rewards and episode ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import NamedTuple

from codots.core.templates import Prompts
from codots.domains.alchemy.book import Book, Pair, Table, opening_stock, ordered
from codots.domains.alchemy.draw import Dials, Rules
from codots.domains.base import Step
from codots.domains.family import action

render = Prompts(__package__)
LETTERS = frozenset(ascii_lowercase)
UNKNOWN = -1


@dataclass(frozen=True)
class Order:
    """The content of a task: an order for one element."""

    target: int
    copies: int
    """Number of copies of each base element in the initial stock. 1 if attempts do not use up copies."""


class View(NamedTuple):
    """Public state of an episode. This is a named tuple, because every round creates a view and tuples are cheap."""

    table: Table
    target: int
    rounds: int
    limited: bool
    style: str
    stock: tuple[int, ...]
    """Number of copies held of each element."""
    turn: int = 0
    """Number of rounds used so far."""
    pair: Pair | None = None
    """The pair of the last attempt. None before the first attempt, or if the last one named an element not in stock."""
    made: int | None = None
    """The product of the last pair, or None if the pair made nothing."""


class AlchemyEnv:
    """One episode, which is a single order."""

    def __init__(self, order: Order, book: Book, rules: Rules, dials: Dials, style: str) -> None:
        self.book, self.rules, self.dials, self.style = book, rules, dials, style
        table = book.table
        self.names = table.names(style)
        self.stock = list(opening_stock(table, order.copies))
        self.turn = 0
        self.view = View(table, order.target, dials.rounds, dials.limited, style, tuple(self.stock))

    def observe(self) -> str:
        """Return the opening observation: the target and the stock."""
        if self.style == "compact":
            return f"make {self.names[self.view.target]}\n{compact_stock(self.view)}"
        return render("turn", view=self.view, effect="", held=held(self.view))

    def step(self, text: str) -> Step:
        """Combine the two elements named in the text. Malformed text ends the episode."""
        named = read_pair(text, self.style)
        if named is None:
            feedback = "malformed" if self.style == "compact" else MALFORMED
            return Step("", 0.0, True, feedback, "malformed", self.view)
        self.turn += 1
        pair, lacking = self._find(named)
        made = None
        if lacking is None:
            made = self.book.products.get(pair)
            self._take(pair, made)
        was = self.view
        self.view = view = View(*was[:5], tuple(self.stock), self.turn, pair if lacking is None else None, made)
        stop = self._stop(made)
        shown = stop is None or self.rules.last_round_shown
        observation = self._observation(named, lacking, made, stop) if shown else ""
        if stop is None:
            return Step(observation, 0.0, False, "", None, view)
        reward = 1 - 0.1 * self.turn / self.dials.rounds if stop == "made" else 0.0
        return Step(observation, reward, True, self._feedback(stop), stop, view)

    def _find(self, named: tuple[str, str]) -> tuple[Pair, int | None]:
        """Return the pair with these names, and the element that the stock lacks for it.

        The lacking element is None if nothing is lacking, and UNKNOWN if no element has one of the names.
        """
        numbers = self.book.table.numbers
        a, b = numbers.get(named[0], UNKNOWN), numbers.get(named[1], UNKNOWN)
        for e, name in ((a, named[0]), (b, named[1])):
            if e == UNKNOWN or self.names[e] != name:
                return (0, 0), UNKNOWN
            if not self.stock[e]:
                return (0, 0), e
        if a == b and self.dials.limited and self.stock[a] < 2:
            return (0, 0), a
        return ordered(a, b), None

    def _take(self, pair: Pair, made: int | None) -> None:
        if self.dials.limited:
            for e in pair:
                self.stock[e] -= 1
            if made is not None:
                self.stock[made] += 1
        elif made is not None:
            self.stock[made] = 1

    def _stop(self, made: int | None) -> str | None:
        if made == self.view.target:
            return "made"
        if self.turn == self.dials.rounds:
            return "late"
        return "spent" if self.dials.limited and sum(self.stock) < 2 else None

    def _observation(self, named: tuple[str, str], lacking: int | None, made: int | None, stop: str | None) -> str:
        if self.style == "compact":
            result = "nothing" if made is None else self.names[made]
            if lacking is not None:
                result = "unknown" if lacking == UNKNOWN else f"lacks {self.names[lacking]}"
            return f"got {result}= {named[0]} {named[1]}\n{compact_stock(self.view)}"
        effect = self._effect(named, lacking, made)
        return effect if stop else render("turn", view=self.view, effect=effect, held=held(self.view))

    def _effect(self, named: tuple[str, str], lacking: int | None, made: int | None) -> str:
        if lacking == UNKNOWN:  # do not repeat the name, which may be hostile text
            return "Nothing was tried: there is no element of that name."
        if lacking is not None:
            return f"Nothing was tried: that needs more {self.names[lacking]}, of which you hold {self.stock[lacking]}."
        tried = f"{named[0]} + {named[1]}"
        if made is not None:
            return f"{tried} makes {self.names[made]}."
        gone = " The two copies are gone." if self.dials.limited else ""
        return f"{tried} makes nothing.{gone}"

    def _feedback(self, stop: str) -> str:
        if self.style == "compact":
            return stop
        return FEEDBACK[stop].format(target=self.names[self.view.target], turn=self.turn, rounds=self.dials.rounds)


MALFORMED = "The reply did not hold two elements, like <action>this + that</action>; the task is lost."
FEEDBACK = {
    "made": "You made {target}.",
    "late": "All rounds are used ({turn} of {rounds}), and {target} was not made.",
    "spent": "After {turn} rounds too little is left to combine, and {target} was not made.",
}


def read_pair(text: str, style: str) -> tuple[str, str] | None:
    """Return the two names in a reply, or None if the reply is malformed."""
    if style == "compact":
        words = text.rsplit(maxsplit=2)[-2:]
        return (words[0], words[1]) if len(words) == 2 and LETTERS.issuperset(words) else None
    one, plus, other = (part.strip().lower() for part in (action(text) or "").partition("+"))
    return (one, other) if plus and one and other and "+" not in other else None


def write_plan(plan: Sequence[Pair], products: Mapping[Pair, int], view: View) -> str:
    """Return a reply that combines the first pair of a plan, whose pairs have these known products.

    In compact style the reply first writes the recipes from the target down to that pair: what to make, of what.
    """
    names = view.table.names(view.style)
    aim = products.get(plan[0])
    if view.style != "compact":
        one, other = (names[e] for e in plan[0])
        return f"I hope for {'any' if aim is None else names[aim]}. <action>{one} + {other}</action>"
    steps = [(plan[0], aim)]
    for pair in plan[1:]:
        if steps[-1][1] in pair:
            steps.append((pair, products[pair]))
    recipes = (f"{'any' if made is None else names[made]}= {names[a]} {names[b]}" for (a, b), made in reversed(steps))
    return " ".join(["try", *recipes])


def compact_stock(view: View) -> str:
    """Return the stock in compact style, with the number of copies if attempts use them up."""
    return " ".join(["have", *(f"{name} {n}" if view.limited else name for name, n in held(view))])


def held(view: View) -> list[tuple[str, int]]:
    """Return the name and the number of copies of each element in stock, sorted by name."""
    return sorted((name, n) for name, n in zip(view.table.names(view.style), view.stock, strict=True) if n)


def feasible(view: View) -> list[Pair]:
    """Return the pairs that the stock allows, in table order."""
    shown = [e for elements in view.table.tiers for e in elements if view.stock[e]]
    pairs = [ordered(a, b) for i, a in enumerate(shown) for b in shown[i:]]
    return [(a, b) for a, b in pairs if a != b or not view.limited or view.stock[a] > 1]
