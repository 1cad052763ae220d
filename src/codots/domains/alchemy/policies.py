"""Reference policies of alchemy."""

from __future__ import annotations

from bisect import bisect
from functools import lru_cache
from itertools import accumulate

from codots.domains.alchemy.book import Book, Pair, Recipe, Table, invert_products, ordered, plan
from codots.domains.alchemy.draw import Dials
from codots.domains.alchemy.env import View, feasible, write_plan
from codots.domains.alchemy.notes import Claimed, by_subject, read_context, write_claim, write_failures
from codots.domains.base import Rng, Step

INPUT_WEIGHT = 0.2
"""Worth of an input relative to the worth of the product that it likely makes. Tuned by hand."""


class Random:
    """Policy that draws uniformly from the feasible pairs.

    If it has read a context, it follows a shortest plan of the claimed recipes if there is one, and otherwise draws
    from the pairs that are not claimed to make nothing. It drops a recipe that fails.
    """

    def __init__(self, table: Table, dials: Dials, rng: Rng) -> None:
        self.table, self.dials, self.rng = table, dials, rng
        self.claimed = Claimed()

    def act(self, view: View) -> str:
        products = self.claimed.products
        if view.pair is not None and products.get(view.pair) != view.made:
            products.pop(view.pair, None)
        if planned := plan(invert_products(products), view.stock, view.target, view.limited):
            return write_plan(planned, products, view)
        pairs = feasible(view)
        pairs = [pair for pair in pairs if pair not in self.claimed.dead] or pairs
        return write_plan([pairs[int(self.rng.random() * len(pairs))]], {}, view)

    def end(self, step: Step) -> None:
        """Ignore the outcome; this policy does not learn."""

    def read(self, context: str) -> None:
        """Read which pair makes what."""
        self.claimed = read_context(self.table, context, self.dials.recipes[1])


class Informed:
    """Policy that follows a shortest plan under the true recipes."""

    def __init__(self, book: Book) -> None:
        self.book = book

    def act(self, view: View) -> str:
        pairs = plan(self.book.pairs_by_product, view.stock, view.target, view.limited)
        return write_plan(pairs or feasible(view)[:1], self.book.products, view)  # some tasks of v0 cannot be solved

    def end(self, step: Step) -> None:
        """Ignore the outcome; the book is already known."""


class AdaptivePolicy:
    """Policy that remembers every pair, follows known recipes, and otherwise tries the pair that most likely helps.

    The policy is a heuristic that looks one attempt ahead, not the optimum. The probability that an untried pair makes
    an element is the prior under the dials, restricted to untried pairs. The target helps, and so do the likely inputs
    of any element that helps. If no pair helps, the policy tries a new pair.

    If the book may change, the policy expects no change. As soon as a known pair does something else than before, it
    keeps only what the current task has shown.
    """

    def __init__(self, table: Table, dials: Dials, rng: Rng) -> None:
        self.table, self.dials, self.rng = table, dials, rng
        self.products: dict[Pair, int] = {}
        """The product of each pair, as observed, or as read if no observation contradicts it."""
        self.dead: set[Pair] = set()
        """Pairs that make nothing."""
        self.seen: set[Pair] = set()
        """Pairs observed, and not only read about."""
        self.shown: dict[Pair, int | None] = {}
        """What pairs have made in this task, if the book may change."""

    def act(self, view: View) -> str:
        self._remember(view)
        known = plan(invert_products(self.products), view.stock, view.target, view.limited)
        if known and len(known) <= view.rounds - view.turn:
            return write_plan(known, self.products, view)
        worth = self._worth(view)
        pairs = feasible(view)
        pairs = [pairs[i] for i in self.rng.permutation(len(pairs))]  # break ties independently of element numbers
        new = set(pairs) - self.dead - self.products.keys()
        pair = max(pairs, key=lambda pair: (worth.get(pair, 0.0), pair in new))
        return write_plan([pair], self.products, view)

    def end(self, step: Step) -> None:
        self._remember(step.view)
        self.shown = {}

    def read(self, context: str) -> None:
        """Read which pair makes what. What is known already has priority."""
        told = read_context(self.table, context, self.dials.recipes[1])
        self.products = {p: e for p, e in told.products.items() if p not in self.dead} | self.products
        self.dead |= told.dead - self.products.keys()

    def notes(self, style: str) -> dict[str, str]:
        """Return the known recipes. The line of an unknown product lists pairs that need not be tried for it."""
        recipes: list[Recipe] = [(a, b, product) for (a, b), product in self.products.items()]
        notes = {s: write_claim(self.table, recipe, style) for s, recipe in by_subject(self.table, recipes).items()}
        for tier, elements in enumerate(self.table.tiers[1:]):
            dead = sorted(pair for pair in self.dead if self.table.tier[pair[1]] == tier)
            unknown = [e for e in elements if self.table.words[e] not in notes]
            for i, e in enumerate(unknown):
                if dead[i :: len(unknown)]:
                    notes[self.table.words[e]] = write_failures(self.table, dead[i :: len(unknown)], style)
        return notes

    def _remember(self, view: View) -> None:
        pair, made = view.pair, view.made
        if pair is None:
            return
        self._notice_change(pair, made)
        self.seen.add(pair)
        if made is None:
            self.products.pop(pair, None)
            self.dead.add(pair)
            return
        self.dead.discard(pair)
        self.products[pair] = made
        rivals = {pair for pair, product in self.products.items() if product == made}
        if len(rivals & self.seen) >= self.dials.recipes[1]:  # the product has no further recipes
            for rival in rivals - self.seen:
                del self.products[rival]

    def _notice_change(self, pair: Pair, made: int | None) -> None:
        """Forget what can only have been true before a change."""
        if self.dials.change is None:
            return
        self.shown[pair] = made
        if (pair in self.products or pair in self.dead) and self.products.get(pair) != made:
            self.products = {pair: made for pair, made in self.shown.items() if made is not None}
            self.dead = self.shown.keys() - self.products.keys()
            self.seen = set(self.shown)

    def _worth(self, view: View) -> dict[Pair, float]:
        """Return the expected worth of trying each pair, computed from the target down."""
        known, worth = invert_products(self.products), dict.fromkeys(self.products, 0.0)
        needs = _Needs(view)
        for tier in range(view.table.tier[view.target], 0, -1):
            open_ = [e for e in view.table.tiers[tier] if e not in known and needs.worth[e]]
            for e in view.table.tiers[tier]:
                for pair in known.get(e, ()):
                    worth[pair] = needs.worth[e]
                    needs.add(pair, needs.worth[e], needs.distance[e])
            if open_:
                wanted, distance = sum(needs.worth[e] for e in open_), min(needs.distance[e] for e in open_)
                for pair, chance in self._chances(view, tier):
                    worth[pair] = wanted * chance
                    needs.add(pair, wanted * chance, distance)
        return worth

    def _chances(self, view: View, tier: int) -> list[tuple[Pair, float]]:
        """Return the probability, for each untried pair, that it makes a given element of this tier."""
        untried = [
            p for p in prior(view.table, self.dials, tier) if p[0] not in self.dead and p[0] not in self.products
        ]
        total = sum(chance for _, chance in untried)
        return [(pair, chance / total) for pair, chance in untried]


@lru_cache(maxsize=256)
def prior(table: Table, dials: Dials, tier: int) -> tuple[tuple[Pair, float], ...]:
    """Return the prior probability, for each pair, that it is the recipe of a given element of this tier."""
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


def guess_recipe(table: Table, dials: Dials, product: int, rng: Rng) -> Recipe:
    """Draw a recipe of a product from the prior."""
    pairs, chances = _cumulative(table, dials, table.tier[product])
    return (*pairs[min(bisect(chances, rng.random()), len(pairs) - 1)], product)


@lru_cache(maxsize=256)
def _cumulative(table: Table, dials: Dials, tier: int) -> tuple[list[Pair], list[float]]:
    pairs, chances = zip(*prior(table, dials, tier), strict=True)
    return list(pairs), list(accumulate(chances))


class _Needs:
    """Estimates of how much each element would help with a task if the element were in stock."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.worth = [0.0] * len(view.stock)
        self.distance = [view.rounds] * len(view.stock)
        """Minimum number of rounds from having each element in stock to having the target."""
        self.worth[view.target], self.distance[view.target] = 1.0, 0

    def add(self, pair: Pair, worth: float, distance: int) -> None:
        """Add worth to the missing inputs of a pair if enough rounds remain to make such an input first."""
        view = self.view
        if distance + 2 > view.rounds - view.turn:
            return
        enough = 2 if pair[0] == pair[1] and view.limited else 1
        for e in set(pair):
            if view.stock[e] < enough:
                self.worth[e] += INPUT_WEIGHT * worth
                self.distance[e] = min(self.distance[e], distance + 1)
