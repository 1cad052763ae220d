"""Recipe books, their elements and recipes, and shortest plans to a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from codots.core.rng import digest
from codots.domains.base import Rng

Pair = tuple[int, int]
"""Two elements, the smaller number first."""
Recipe = tuple[int, int, int]
"""Two inputs, the smaller number first, and then their product."""


@dataclass(frozen=True)
class Table:
    """The public elements of a world. An element is a number, and elements of higher tiers have higher numbers."""

    tiers: tuple[tuple[int, ...], ...]
    """The elements of each tier, in display order."""
    words: tuple[str, ...]
    """Names of the elements in the natural style."""
    letters: tuple[str, ...]
    """Names of the elements in the compact style."""

    def names(self, style: str) -> tuple[str, ...]:
        """Return the names of the elements in this style."""
        return self.letters if style == "compact" else self.words

    @cached_property
    def tier(self) -> tuple[int, ...]:
        """The tier of each element."""
        return tuple(t for t, elements in enumerate(self.tiers) for _ in elements)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The element of each name, for the names of both styles."""
        return {name: e for names in (self.words, self.letters) for e, name in enumerate(names)}


@dataclass(frozen=True)
class Book:
    """The hidden part of a world: a recipe book, including the public table of elements."""

    table: Table
    recipes: tuple[Recipe, ...]
    noise: frozenset[int]
    """Elements that no target needs."""
    targets: tuple[int, ...]
    """The target of each task, in order."""

    @cached_property
    def products(self) -> dict[Pair, int]:
        """The product of each pair that makes an element."""
        return {(a, b): product for a, b, product in self.recipes}

    @cached_property
    def pairs_by_product(self) -> dict[int, list[Pair]]:
        """The pairs that make each element, in the order of the recipes."""
        return invert_products(self.products)

    @cached_property
    def side(self) -> str:
        """The side, `train` or `held-out`, that a hash of the recipes assigns to the book. Names do not matter."""
        return "held-out" if digest("book", *sorted(self._colors(5))) % 4 == 0 else "train"

    def _colors(self, rounds: int) -> list[int]:
        """Return Weisfeiler-Lehman colors of the elements. Books that differ only in labels have equal colors."""
        colors = [digest(tier) for tier in self.table.tier]
        for _ in range(rounds):
            seen: list[list[int]] = [[] for _ in colors]
            for a, b, product in self.recipes:
                seen[product].append(digest("from", *sorted((colors[a], colors[b]))))
                for one, other in ((a, b), (b, a)):
                    seen[one].append(digest("with", colors[other], colors[product]))
            colors = [digest(old, *sorted(new)) for old, new in zip(colors, seen, strict=True)]
        return colors

    def relabelled(self, to: Mapping[int, int]) -> Book:
        """Return the book with elements replaced in recipes and noise. The table and the targets stay the same."""
        recipes = tuple((*ordered(to[a], to[b]), to[product]) for a, b, product in self.recipes)
        return replace(self, recipes=recipes, noise=frozenset(to[e] for e in self.noise))

    def shuffled(self, rng: Rng, classes: Sequence[object]) -> Book:
        """Return the book with elements permuted at random within classes. `classes` has the class of each element."""
        to: dict[int, int] = {}
        for kind in dict.fromkeys(classes):
            members = [e for e, other in enumerate(classes) if other == kind]
            to |= dict(zip(members, map(int, rng.permutation(members)), strict=True))
        return self.relabelled(to)


def ordered(a: int, b: int) -> Pair:
    """Return the pair of two elements, the smaller number first."""
    return (a, b) if a <= b else (b, a)


def invert_products(products: Mapping[Pair, int]) -> dict[int, list[Pair]]:
    """Return the pairs that make each product."""
    pairs: dict[int, list[Pair]] = {}
    for pair, product in products.items():
        pairs.setdefault(product, []).append(pair)
    return pairs


def plan(
    pairs_by_product: Mapping[int, list[Pair]], stock: Sequence[int], target: int, limited: bool
) -> tuple[Pair, ...] | None:
    """Return the shortest sequence of pairs that makes the target from this stock, or None if there is none.

    `limited` is whether attempts use up their inputs. The search covers every derivation. It always derives the highest
    missing element next, because nothing derived later can need that element.
    """

    @cache
    def fewest(need: tuple[int, ...]) -> tuple[Pair, ...] | None:
        missing = next((e for e in range(target, -1, -1) if need[e] > stock[e]), None)
        if missing is None:
            return ()
        best: tuple[Pair, ...] | None = None
        for pair in pairs_by_product.get(missing, ()):
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
    """Return the minimum number of copies of each base element for the target, if attempts use up their inputs.

    Returns None if `most` copies are not enough.
    """
    for copies in range(1, most + 1):
        if plan(book.pairs_by_product, opening_stock(book.table, copies), target, limited=True) is not None:
            return copies
    return None


def counted_copies(book: Book, target: int) -> int:
    """Return the paper's count of copies.

    The count assumes that each element is made once, so it can be too low if an element is needed twice.
    """
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
    """Return the first recipe of the target and of each element that it is made of, inputs before products."""
    if target in book.pairs_by_product and target not in done:
        a, b = book.pairs_by_product[target][0]
        _derivation(book, a, done)
        _derivation(book, b, done)
        done[target] = (a, b, target)
    return done


def opening_stock(table: Table, copies: int) -> tuple[int, ...]:
    """Return a stock with `copies` of each base element and nothing else."""
    return tuple(copies if tier == 0 else 0 for tier in table.tier)
