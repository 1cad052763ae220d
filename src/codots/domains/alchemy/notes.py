"""How recipes are written down in a context, and read out of one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from codots.domains.alchemy.book import Pair, Recipe, Table, ordered

# Every part has a greatest length, so that a long text costs no more than its length.
CLAIM = re.compile(r"\b([a-z]{1,5})(?: ?\+ ?| and | with | )([a-z]{1,5}) ?(?:=|->|:|makes|gives) ?([a-z]{1,5})\b")


def claims(table: Table, context: str) -> set[tuple[Pair, int]]:
    """The recipes that a text claims, by the names of either style; what makes nothing is no recipe."""
    found = ([table.numbers.get(name, -1) for name in claim] for claim in CLAIM.findall(context.lower()))
    return {(ordered(a, b), product) for a, b, product in found if min(a, b, product) >= 0}


def write_down(table: Table, recipes: Iterable[Recipe], style: str) -> str:
    """Write recipes down: in the natural style one a line, in the compact style all on one."""
    names, natural = table.names(style), style == "natural"
    claim = "- {} + {} makes {}" if natural else "{} {} = {}"
    return ("\n" if natural else " ").join(claim.format(*(names[e] for e in recipe)) for recipe in recipes)
