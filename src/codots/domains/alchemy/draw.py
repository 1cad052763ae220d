"""How a recipe book is drawn: tiers, recipes, noise, names, targets."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase

from codots.domains.alchemy.book import Book, Pair, Recipe, Table, least_copies, opening_stock, ordered, plan
from codots.domains.base import Rng

TRIES = 50
"""Draws for a recipe whose pair is not taken yet."""
DRAWS = 10_000
"""Books that are drawn before dials are given up."""
MOST = len(ascii_lowercase)
"""Elements of a world at most: each has a letter in the compact style."""
RESERVED = frozenset({"and", "with", "makes", "gives"})
"""Words that a claim is worded with."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Dials:
    """What differs between presets; a pair is a range that each world draws from."""

    rounds: int
    """Rounds of an episode, H."""
    tiers: tuple[int, int]
    base: tuple[int, int]
    """Elements that are given."""
    growth: Span
    """Size of a tier, as a multiple of the tier below."""
    recipes: tuple[int, int] = (1, 1)
    """Recipes of an element."""
    gap: int = 1
    """How many tiers below its product an input may lie: at 1, recipes never cross a tier."""
    cross: Span = (0.0, 0.0)
    """Chance that a second input comes from lower down, where the gap allows it."""
    noise: Span = (0.0, 0.0)
    """Elements good for nothing, by the size of their tier."""
    depth: int = 2
    """Rounds of adding noise; later ones may build on earlier ones."""
    limited: bool = False
    """Whether an attempt uses up its inputs."""
    copies: Span = (1.5, 2.0)
    """Copies of each base element, by the fewest that are enough; only where they are used up."""
    targets: int = 8
    """How many different targets are drawn; a longer pack starts over."""


@dataclass(frozen=True)
class Rules:
    """What differs between the versions."""

    least: int
    """Least size of a tier; below a tier of one, recipes can be read off the table."""
    refuse: bool
    """Refuse a world that has no more elements than targets, or a target without a way within the rounds."""
    mixed: bool
    """Show the elements of a tier in any order, which does not tell noise by its place."""
    proved: bool
    """Count copies by a search, so that every task can be solved."""
    split: bool
    """Whether a book belongs either to `train` or to the held-out splits."""
    last_round_told: bool
    """Whether the updater reads what the last round did."""
    advice: bool
    """Whether the prompt says that exploring helps in later tasks."""


def draw_book(rng: Rng, dials: Dials, rules: Rules) -> Book:
    """Draw a book, and again until the rules accept it."""
    for _ in range(DRAWS):
        book = _Draft(rng, dials, rules).book()
        if len(book.table.tier) <= MOST and (not rules.refuse or acceptable(book, dials)):
            return book
    raise ValueError(f"{DRAWS} books of {dials} were refused; expected dials that give more targets or more rounds")


def acceptable(book: Book, dials: Dials) -> bool:
    """Whether there are more elements to ask for than targets, and a way to each target within the rounds."""
    if sum(map(len, book.table.tiers[1:])) - len(book.noise) <= dials.targets:
        return False
    return all(solvable(book, target, dials) for target in book.targets)


def solvable(book: Book, target: int, dials: Dials) -> bool:
    """Whether the fewest copies that are enough allow a way within the rounds, found by search."""
    copies = least_copies(book, target) if dials.limited else 1
    if copies is None:
        return False
    way = plan(book.ways, opening_stock(book.table, copies), target, dials.limited)
    return way is not None and len(way) <= dials.rounds


class _Draft:
    """A book in the making; elements are numbered as they come, and numbered anew at the end."""

    def __init__(self, rng: Rng, dials: Dials, rules: Rules) -> None:
        self.rng, self.dials, self.rules = rng, dials, rules
        count, base = self._between(dials.tiers), self._between(dials.base)
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
        """Write the recipes, add the noise, name everything."""
        for tier in range(1, len(self.real)):
            for product in self.real[tier]:
                for _ in range(self._between(self.dials.recipes)):
                    self._recipe(product, tier, self.real)
        noise = self._add_noise()
        order = sorted(range(len(self.tier)), key=lambda e: (self.tier[e], e))
        new = {e: i for i, e in enumerate(order)}
        recipes: tuple[Recipe, ...] = tuple((*ordered(new[a], new[b]), new[p]) for (a, b), p in self.products.items())
        targets = tuple(new[e] for e in self._targets())
        return Book(self._table([self.tier[e] for e in order]), recipes, frozenset(new[e] for e in noise), targets)

    def _between(self, span: tuple[int, int]) -> int:
        return int(self.rng.integers(span[0], span[1] + 1))

    def _any(self, elements: list[int]) -> int:
        return elements[self.rng.integers(len(elements))]

    def _recipe(self, product: int, tier: int, pools: list[list[int]]) -> None:
        for _ in range(TRIES):
            lower = range(max(0, tier - self.dials.gap), tier - 1)
            crosses = self.rng.random() < self.cross and len(lower) > 0
            second = pools[lower[self.rng.integers(len(lower))]] if crosses else pools[tier - 1]
            pair = ordered(self._any(pools[tier - 1]), self._any(second))
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
                    self._recipe(noise[-1], tier, pools)
        return noise

    def _targets(self) -> list[int]:
        """Draw a tier by its height, then one of its elements, none twice; in the end they are shuffled."""
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
        letters = [ascii_lowercase[i] for i in self.rng.permutation(MOST)[: len(tiers)]]
        return Table(tuple(map(tuple, shown)), tuple(self._words(len(tiers))), tuple(letters))

    def _words(self, count: int) -> list[str]:
        words: dict[str, None] = {}
        while len(words) < count:
            letters = self.rng.integers(26, size=self.rng.integers(3, 6))
            word = "".join(ascii_lowercase[i] for i in letters)
            if word not in RESERVED:
                words[word] = None
        return list(words)
