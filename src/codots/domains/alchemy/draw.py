"""Random generation of recipe books, including tiers, recipes, noise, names and targets."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase

from codots.domains.alchemy.book import Book, Pair, Recipe, Table, least_copies, opening_stock, ordered, plan
from codots.domains.base import Rng

MAX_TRIES = 50
"""Maximum number of pairs drawn to find one that has no recipe yet."""
MAX_DRAWS = 10_000
"""Maximum number of books drawn before an error is raised."""
MAX_ELEMENTS = len(ascii_lowercase)
"""Maximum number of elements in a world. Each element has its own letter in the compact style."""
RESERVED = frozenset({"and", "with", "makes", "gives"})
"""Words that appear in claims, so they cannot be names of elements."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets. A pair of numbers is a range to draw from."""

    rounds: int
    """Number of rounds of an episode, H."""
    tiers: tuple[int, int]
    """Number of tiers."""
    base: tuple[int, int]
    """Number of given elements."""
    growth: Span
    """Size of a tier as a multiple of the size of the tier below."""
    recipes: tuple[int, int] = (1, 1)
    """Number of recipes per element."""
    gap: int = 1
    """Maximum number of tiers between a product and its inputs. At 1, all inputs come from the tier below."""
    cross: Span = (0.0, 0.0)
    """Probability that the second input comes from a lower tier than the first, if the gap allows it."""
    noise: Span = (0.0, 0.0)
    """Number of noise elements, which no target needs, as a fraction of the tier. Later passes add half as many."""
    depth: int = 2
    """Number of passes that add noise. Recipes of a later pass may use noise from earlier passes."""
    limited: bool = False
    """Whether an attempt uses up its inputs."""
    copies: Span = (1.5, 2.0)
    """Copies of each base element as a multiple of the minimum. Used only if `limited` is true."""
    targets: int = 8
    """Number of different targets. A longer pack repeats them."""
    change: tuple[int, int] | None = None
    """First and last position at which the book may change, or None if it never changes."""


@dataclass(frozen=True)
class Rules:
    """Settings that differ between versions."""

    least: int
    """Minimum size of a tier. Below a tier of one element, recipes can be read off the table."""
    refuse: bool
    """Whether to reject books with too few possible targets, or with a target that cannot be made within the rounds."""
    mixed: bool
    """Whether to shuffle the elements of a tier for display, so that their order does not reveal noise."""
    proved: bool
    """Whether to find the number of copies by search, so that every task can be solved."""
    split: bool
    """Whether each book belongs either to `train` or to the held-out splits."""
    last_round_shown: bool
    """Whether the updater sees the result of the last round."""
    advice: bool
    """Whether the natural prompt says that exploration helps in later tasks."""


def draw_book(rng: Rng, dials: Dials, rules: Rules) -> Book:
    """Draw books until the rules accept one. Raises ValueError if MAX_DRAWS books are rejected."""
    for _ in range(MAX_DRAWS):
        book = _Draft(rng, dials, rules).book()
        if len(book.table.tier) <= MAX_ELEMENTS and (not rules.refuse or acceptable(book, dials)):
            return book
    raise ValueError(
        f"{MAX_DRAWS} books with {dials} were rejected; expected dials that allow more targets or more rounds"
    )


def acceptable(book: Book, dials: Dials) -> bool:
    """Return whether a book has more possible targets than targets drawn, and each drawn target is solvable."""
    if sum(map(len, book.table.tiers[1:])) - len(book.noise) <= dials.targets:
        return False
    return all(solvable(book, target, dials) for target in book.targets)


def solvable(book: Book, target: int, dials: Dials) -> bool:
    """Return whether a search finds a plan for the target within the rounds, given the minimum number of copies."""
    copies = least_copies(book, target) if dials.limited else 1
    if copies is None:
        return False
    pairs = plan(book.pairs_by_product, opening_stock(book.table, copies), target, dials.limited)
    return pairs is not None and len(pairs) <= dials.rounds


class _Draft:
    """A book under construction. Elements are numbered in order of creation and renumbered by tier at the end."""

    def __init__(self, rng: Rng, dials: Dials, rules: Rules) -> None:
        self.rng, self.dials, self.rules = rng, dials, rules
        count, base = self._integer(dials.tiers), self._integer(dials.base)
        growth, self.cross, self.noise = (
            float(rng.uniform(*span)) for span in (dials.growth, dials.cross, dials.noise)
        )
        sizes = [base]
        while len(sizes) < count:
            sizes.append(max(rules.least, round(sizes[-1] * growth)))
        self.tier = [t for t, size in enumerate(sizes) for _ in range(size)]
        self.real = [[e for e, t in enumerate(self.tier) if t == tier] for tier in range(count)]
        self.products: dict[Pair, int] = {}

    def book(self) -> Book:
        """Draw the recipes, the noise, the targets and the names, and return the book."""
        for tier in range(1, len(self.real)):
            for product in self.real[tier]:
                for _ in range(self._integer(self.dials.recipes)):
                    self._add_recipe(product, tier, self.real)
        noise = self._add_noise()
        order = sorted(range(len(self.tier)), key=lambda e: (self.tier[e], e))
        new = {e: i for i, e in enumerate(order)}
        recipes: tuple[Recipe, ...] = tuple((*ordered(new[a], new[b]), new[p]) for (a, b), p in self.products.items())
        targets = tuple(new[e] for e in self._targets())
        return Book(self._table([self.tier[e] for e in order]), recipes, frozenset(new[e] for e in noise), targets)

    def _integer(self, span: tuple[int, int]) -> int:
        return int(self.rng.integers(span[0], span[1] + 1))

    def _choice(self, elements: list[int]) -> int:
        return elements[self.rng.integers(len(elements))]

    def _add_recipe(self, product: int, tier: int, pools: list[list[int]]) -> None:
        for _ in range(MAX_TRIES):
            lower = range(max(0, tier - self.dials.gap), tier - 1)
            crosses = self.rng.random() < self.cross and len(lower) > 0
            second = pools[lower[self.rng.integers(len(lower))]] if crosses else pools[tier - 1]
            pair = ordered(self._choice(pools[tier - 1]), self._choice(second))
            if pair not in self.products:
                self.products[pair] = product
                return

    def _add_noise(self) -> list[int]:
        noise: list[int] = []
        first = [round(len(real) * self.noise) for real in self.real]
        for depth in range(self.dials.depth):
            pools = [real + [e for e in noise if self.tier[e] == t] for t, real in enumerate(self.real)]
            for tier in range(1, len(self.real)):
                for _ in range(first[tier] if depth == 0 else round(first[tier] / 2)):
                    noise.append(len(self.tier))
                    self.tier.append(tier)
                    self._add_recipe(noise[-1], tier, pools)
        return noise

    def _targets(self) -> list[int]:
        """Draw targets without replacement, with higher tiers more likely, and return them in random order."""
        left = {tier: list(real) for tier, real in enumerate(self.real) if tier}
        drawn: list[int] = []
        while left and len(drawn) < self.dials.targets:
            weights = [tier + 1 for tier in left]
            tier = list(left)[int(self.rng.choice(len(left), p=[w / sum(weights) for w in weights]))]
            drawn.append(left[tier].pop(self.rng.integers(len(left[tier]))))
            left = {tier: rest for tier, rest in left.items() if rest}
        return [drawn[i] for i in self.rng.permutation(len(drawn))]

    def _table(self, tiers: list[int]) -> Table:
        shown = [[e for e, t in enumerate(tiers) if t == tier] for tier in range(len(self.real))]
        if self.rules.mixed:
            shown = [[int(e) for e in self.rng.permutation(elements)] for elements in shown]
        letters = [ascii_lowercase[i] for i in self.rng.permutation(MAX_ELEMENTS)[: len(tiers)]]
        return Table(tuple(map(tuple, shown)), tuple(self._words(len(tiers))), tuple(letters))

    def _words(self, count: int) -> list[str]:
        words: dict[str, None] = {}
        while len(words) < count:
            letters = self.rng.integers(26, size=self.rng.integers(3, 6))
            word = "".join(ascii_lowercase[i] for i in letters)
            if word not in RESERVED:
                words[word] = None
        return list(words)
