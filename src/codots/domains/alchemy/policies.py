"""The reference policies."""

from __future__ import annotations

from functools import lru_cache

from codots.domains.alchemy.book import Book, Pair, Table, ordered, plan, ways_of
from codots.domains.alchemy.draw import Dials
from codots.domains.alchemy.env import View, feasible, write_pair
from codots.domains.alchemy.notes import claims
from codots.domains.base import Rng, Step

STEP = 0.2
"""What an input counts, where that which it may be good for counts 1; found by trying."""


class Random:
    """A feasible pair, drawn evenly."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def act(self, view: View) -> str:
        pairs = feasible(view)
        return write_pair(pairs[int(self.rng.random() * len(pairs))], None, view)

    def end(self, step: Step) -> None:
        """Random play learns nothing."""


class Informed:
    """A shortest way by the true recipes."""

    def __init__(self, book: Book) -> None:
        self.book = book

    def act(self, view: View) -> str:
        way = plan(self.book.ways, view.stock, view.target, view.limited)
        pair = way[0] if way else feasible(view)[0]  # some tasks of v0 cannot be solved
        return write_pair(pair, self.book.products.get(pair), view)

    def end(self, step: Step) -> None:
        """There is nothing left to learn."""


class Learner:
    """Remembers every pair; follows the recipes it knows, else tries what most likely helps this task.

    A heuristic, not the optimum: it looks one attempt ahead. The chance that an untried pair makes an element is the
    prior of the dials among the pairs not tried yet; what helps is the target, and what the target or something
    else that helps is likely made of. Where nothing helps any more, it tries what is new.
    """

    def __init__(self, dials: Dials, rng: Rng) -> None:
        self.dials, self.rng = dials, rng
        self.products: dict[Pair, int] = {}
        """What pairs are known to make."""
        self.dead: set[Pair] = set()
        """Pairs known to make nothing."""

    def act(self, view: View) -> str:
        self._learn(view)
        way = plan(ways_of(self.products), view.stock, view.target, view.limited)
        if way and len(way) <= view.rounds - view.turn:
            return write_pair(way[0], self.products[way[0]], view)
        worth = self._worth(view)
        pairs = feasible(view)
        pairs = [pairs[i] for i in self.rng.permutation(len(pairs))]  # nothing may hang on how elements are numbered
        new = set(pairs) - self.dead - self.products.keys()
        pair = max(pairs, key=lambda pair: (worth.get(pair, 0.0), pair in new))
        return write_pair(pair, self.products.get(pair), view)

    def end(self, step: Step) -> None:
        self._learn(step.view)

    def read(self, table: Table, context: str) -> None:
        """Trust the recipes that a context claims, until a try says otherwise."""
        self.products |= dict(claims(table, context))

    def _learn(self, view: View) -> None:
        if view.pair is not None and view.made is not None:
            self.products[view.pair] = view.made
        elif view.pair is not None:
            self.products.pop(view.pair, None)
            self.dead.add(view.pair)

    def _worth(self, view: View) -> dict[Pair, float]:
        """How much trying each pair is hoped to help, from the target down."""
        known, worth = ways_of(self.products), dict.fromkeys(self.products, 0.0)
        needs = _Needs(view)
        for tier in range(view.table.tier[view.target], 0, -1):
            open_ = [e for e in view.table.tiers[tier] if e not in known and needs.worth[e]]
            for e in view.table.tiers[tier]:
                for pair in known.get(e, ()):
                    worth[pair] = needs.worth[e]
                    needs.add(pair, needs.worth[e], needs.far[e])
            if open_:
                wanted, far = sum(needs.worth[e] for e in open_), min(needs.far[e] for e in open_)
                for pair, chance in self._chances(view, tier):
                    worth[pair] = wanted * chance
                    needs.add(pair, wanted * chance, far)
        return worth

    def _chances(self, view: View, tier: int) -> list[tuple[Pair, float]]:
        """The chance of each untried pair to make one certain element of this tier."""
        untried = [
            p for p in prior(view.table, self.dials, tier) if p[0] not in self.dead and p[0] not in self.products
        ]
        total = sum(chance for _, chance in untried)
        return [(pair, chance / total) for pair, chance in untried]


@lru_cache(maxsize=256)
def prior(table: Table, dials: Dials, tier: int) -> tuple[tuple[Pair, float], ...]:
    """How likely each pair is the recipe of one certain element of this tier, before anything was tried."""
    upper, lower = table.tiers[tier - 1], range(max(0, tier - dials.gap), tier - 1)
    cross = sum(dials.cross) / 2 if lower else 0.0
    chances: dict[Pair, float] = {}
    for a in upper:
        for b in upper:
            pair = ordered(a, b)
            chances[pair] = chances.get(pair, 0.0) + (1 - cross) / len(upper) ** 2
        for low in lower:
            for b in table.tiers[low]:
                chances[ordered(a, b)] = cross / len(upper) / len(lower) / len(table.tiers[low])
    return tuple(chances.items())


class _Needs:
    """What would help a task if it were held."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.worth = [0.0] * len(view.stock)
        self.far = [view.rounds] * len(view.stock)
        """Rounds it takes at least from holding an element to holding the target."""
        self.worth[view.target], self.far[view.target] = 1.0, 0

    def add(self, pair: Pair, worth: float, far: int) -> None:
        """Need the inputs of something of this worth, if there is time to make them first."""
        view = self.view
        if far + 2 > view.rounds - view.turn:
            return
        enough = 2 if pair[0] == pair[1] and view.limited else 1
        for e in set(pair):
            if view.stock[e] < enough:
                self.worth[e] += STEP * worth
                self.far[e] = min(self.far[e], far + 1)
