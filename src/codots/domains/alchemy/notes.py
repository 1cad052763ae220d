"""Reading and writing the recipes in a context."""

from __future__ import annotations

import re
from collections.abc import Iterable

from codots.domains.alchemy.book import Pair, Recipe, Table, ordered

# Every part has a maximum length, so matching takes linear time in the length of the text.
CLAIM = re.compile(r"\b([a-z]{1,5})(?: ?\+ ?| and | with | )([a-z]{1,5}) ?(?:=|->|:|makes|gives) ?([a-z]{1,5})\b")


def claims(table: Table, context: str) -> set[tuple[Pair, int]]:
    """Return the recipes that a text claims in either style. Claims that a pair makes nothing are ignored."""
    found = ([table.numbers.get(name, -1) for name in claim] for claim in CLAIM.findall(context.lower()))
    return {(ordered(a, b), product) for a, b, product in found if min(a, b, product) >= 0}


def write_down(table: Table, recipes: Iterable[Recipe], style: str) -> str:
    """Return recipes as text: one per line in the natural style, all on one line in the compact style."""
    names, natural = table.names(style), style == "natural"
    claim = "- {} + {} makes {}" if natural else "{} {} = {}"
    return ("\n" if natural else " ").join(claim.format(*(names[e] for e in recipe)) for recipe in recipes)
