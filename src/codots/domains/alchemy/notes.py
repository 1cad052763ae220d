"""Reading and writing the recipes in a context."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from codots.domains.alchemy.book import Pair, Recipe, Table, ordered

# Every part has a maximum length, so matching takes linear time in the length of the text. The second form names the
# product first: a reader who looks for an element finds its recipe right after it.
CLAIM = re.compile(
    r"\b([a-z]{1,5})(?: ?\+ ?| and | with )([a-z]{1,5}) ?(?:=|->|:|makes|gives) ?([a-z]{1,5}|nothing)\b"
    r"|\b([a-z]{1,5}|nothing) ?= ?([a-z]{1,5}) ([a-z]{1,5})\b"
)
NOTHING = -1
"""Product of a pair that makes nothing."""


@dataclass
class Claimed:
    """What a context says about pairs."""

    products: dict[Pair, int] = field(default_factory=dict)
    """The product of each pair."""
    dead: set[Pair] = field(default_factory=set)
    """Pairs that make nothing."""


def read_claims(table: Table, context: str) -> list[Recipe]:
    """Return the claims of a text in either style, each once, in order. The product may be NOTHING."""
    claims: dict[Recipe, None] = {}
    for *natural, made, one, other in CLAIM.findall(context.lower()):
        a, b, product = natural if natural[0] else (one, other, made)
        known = product == "nothing" or product in table.numbers
        if known and a in table.numbers and b in table.numbers:
            claims[(*ordered(table.numbers[a], table.numbers[b]), table.numbers.get(product, NOTHING))] = None
    return list(claims)


def read_context(table: Table, context: str, most: int) -> Claimed:
    """Return what a text says about pairs.

    Claims that the rules exclude are ignored: a product is in a higher tier than its inputs, and has at most `most`
    recipes. Of claims that contradict each other, the last one counts.
    """
    claimed = Claimed()
    count: Counter[int] = Counter()
    for a, b, product in reversed(read_claims(table, context)):
        if (a, b) in claimed.products or (a, b) in claimed.dead:
            continue
        if product == NOTHING:
            claimed.dead.add((a, b))
        elif table.tier[product] > table.tier[b] and count[product] < most:
            claimed.products[a, b] = product
            count[product] += 1
    return claimed


def write_claim(table: Table, recipe: Recipe, style: str) -> str:
    """Return a recipe as text."""
    return ("" if style == "compact" else "- ") + _written(table, recipe, style)


def _written(table: Table, recipe: Recipe, style: str) -> str:
    a, b, product = ("nothing" if e == NOTHING else table.names(style)[e] for e in recipe)
    return f"{product}= {a} {b}" if style == "compact" else f"{a} + {b} makes {product}"


def write_failures(table: Table, pairs: Iterable[Pair], style: str) -> str:
    """Return one line which says that these pairs make nothing."""
    written = (_written(table, (*pair, NOTHING), style) for pair in pairs)
    return " ".join(written) if style == "compact" else "- " + "; ".join(written)


def by_subject(table: Table, recipes: Iterable[Recipe]) -> dict[str, Recipe]:
    """Return recipes by subject, in an order that does not depend on their inputs.

    The subject of a recipe is its product. The further recipes of a tier are numbered, because twins differ in which
    products of a tier have them.
    """
    ordered_recipes = sorted(recipes, key=lambda recipe: (recipe[2], recipe))
    subjects: dict[str, Recipe] = {}
    for recipe in ordered_recipes:
        subjects.setdefault(table.words[recipe[2]], recipe)
    further = [recipe for recipe in ordered_recipes if recipe not in subjects.values()]
    count: Counter[int] = Counter()
    for recipe in further:
        tier = table.tier[recipe[2]]
        count[tier] += 1
        subjects[f"further recipe {count[tier]} of tier {tier}"] = recipe
    return subjects


def products_of(table: Table, subject: str) -> tuple[int, ...]:
    """Return the possible products of the recipe of this subject."""
    if subject in table.numbers:
        return (table.numbers[subject],)
    return table.tiers[int(subject.rpartition(" ")[2])]
