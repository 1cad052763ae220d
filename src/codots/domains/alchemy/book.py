"""The recipe book of a world: its elements, what makes what, and the shortest way to a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from codots.core.rng import digest
from codots.domains.base import Rng

Pair = tuple[int, int]
"""Two elements, the lesser first."""
Recipe = tuple[int, int, int]
"""Two inputs, the lesser first, and what they make."""


@dataclass(frozen=True)
class Table:
    """What all may know of a world's elements; an element is its number, and a higher tier has higher numbers."""

    tiers: tuple[tuple[int, ...], ...]
    """The elements of each tier, in the order they are shown in."""
    words: tuple[str, ...]
    """Their names in the natural style."""
    letters: tuple[str, ...]
    """Their names in the compact style."""

    def names(self, style: str) -> tuple[str, ...]:
        """Their names in this style."""
        return self.letters if style == "compact" else self.words

    @cached_property
    def tier(self) -> tuple[int, ...]:
        """The tier of each element."""
        return tuple(t for t, elements in enumerate(self.tiers) for _ in elements)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The element of each name, of either style."""
        return {name: e for names in (self.words, self.letters) for e, name in enumerate(names)}


@dataclass(frozen=True)
class Book:
    """What a world is made of."""

    table: Table
    recipes: tuple[Recipe, ...]
    noise: frozenset[int]
    """Elements that are good for nothing."""
    targets: tuple[int, ...]
    """What the tasks ask for, in order."""

    @cached_property
    def products(self) -> dict[Pair, int]:
        """What each pair makes."""
        return {(a, b): product for a, b, product in self.recipes}

    @cached_property
    def ways(self) -> dict[int, list[Pair]]:
        """The pairs that make each element, in the order they were written."""
        return ways_of(self.products)

    @cached_property
    def side(self) -> str:
        """The side of the wall that this book falls on, whatever its elements are called."""
        return "held-out" if digest("book", *sorted(self._colours(5))) % 4 == 0 else "train"

    def _colours(self, rounds: int) -> list[int]:
        """Tell the elements apart by their place among the others: equal books get equal colours."""
        colours = [digest(tier) for tier in self.table.tier]
        for _ in range(rounds):
            seen: list[list[int]] = [[] for _ in colours]
            for a, b, product in self.recipes:
                seen[product].append(digest("from", *sorted((colours[a], colours[b]))))
                for one, other in ((a, b), (b, a)):
                    seen[one].append(digest("with", colours[other], colours[product]))
            colours = [digest(old, *sorted(new)) for old, new in zip(colours, seen, strict=True)]
        return colours

    def relabelled(self, to: Mapping[int, int]) -> Book:
        """The same book with every element in the place of another; what is shown and asked stays."""
        recipes = tuple((*ordered(to[a], to[b]), to[product]) for a, b, product in self.recipes)
        return replace(self, recipes=recipes, noise=frozenset(to[e] for e in self.noise))

    def shuffled(self, rng: Rng, classes: Sequence[object]) -> Book:
        """Relabel at random, elements only by others of their class."""
        to: dict[int, int] = {}
        for kind in dict.fromkeys(classes):
            members = [e for e, other in enumerate(classes) if other == kind]
            to |= dict(zip(members, map(int, rng.permutation(members)), strict=True))
        return self.relabelled(to)


def ordered(a: int, b: int) -> Pair:
    """Make a pair of two elements."""
    return (a, b) if a <= b else (b, a)


def ways_of(products: Mapping[Pair, int]) -> dict[int, list[Pair]]:
    """Turn what pairs make into what makes elements."""
    ways: dict[int, list[Pair]] = {}
    for pair, product in products.items():
        ways.setdefault(product, []).append(pair)
    return ways


def plan(ways: Mapping[int, list[Pair]], stock: Sequence[int], target: int, limited: bool) -> tuple[Pair, ...] | None:
    """Find the fewest pairs that make the target of this stock, in order; None if there is no way.

    A search of every derivation: the highest element that is still missing comes first, for by then all that
    needs it is known.
    """

    @cache
    def fewest(need: tuple[int, ...]) -> tuple[Pair, ...] | None:
        missing = next((e for e in range(target, -1, -1) if need[e] > stock[e]), None)
        if missing is None:
            return ()
        best: tuple[Pair, ...] | None = None
        for pair in ways.get(missing, ()):
            more = list(need)
            more[missing] -= 1
            for e in pair:
                more[e] = more[e] + 1 if limited else 1
            before = fewest(tuple(more))
            if before is not None and (best is None or len(before) + 1 < len(best)):
                best = (*before, pair)
        return best

    return fewest(tuple(int(e == target) for e in range(len(stock))))


def least_copies(book: Book, target: int, most: int = 16) -> int | None:
    """The fewest copies of every base element that are enough, where they are used up; None if none are."""
    for copies in range(1, most + 1):
        if plan(book.ways, opening_stock(book.table, copies), target, limited=True) is not None:
            return copies
    return None


def counted_copies(book: Book, target: int) -> int:
    """The paper's count: each element made once, so one that is needed twice is at times too few."""
    missing: dict[int, int] = {}
    have: dict[int, int] = {}
    for a, b, product in _derivation(book, target, {}).values():
        for e in (a, b):
            if have.get(e, 0):
                have[e] -= 1
            else:
                missing[e] = missing.get(e, 0) + 1
        have[product] = have.get(product, 0) + 1
    return max(missing.values(), default=1)


def _derivation(book: Book, target: int, done: dict[int, Recipe]) -> dict[int, Recipe]:
    """The first recipe of everything that the target is made of, inputs before products."""
    if target in book.ways and target not in done:
        a, b = book.ways[target][0]
        _derivation(book, a, done)
        _derivation(book, b, done)
        done[target] = (a, b, target)
    return done


def opening_stock(table: Table, copies: int) -> tuple[int, ...]:
    """So many copies of every base element, and nothing else."""
    return tuple(copies if tier == 0 else 0 for tier in table.tier)
