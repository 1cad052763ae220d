"""Reading and writing claims about costs in a context."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from codots.domains.grid_navigation.ground import Cell, name, read_name

CLAIM = re.compile(r"\b([a-p](?:[1-9]|1[0-6]))(?: ?[=:] ?| costs? | is )(\d\d?)\b", re.I | re.A)
Claim = tuple[Cell | None, int]
"""A cell and its claimed cost. None is a cell off the grid."""


def read_claims(context: str, side: int) -> list[Claim]:
    """Return all claims of a text in either style, in order."""
    return [(read_name(cell, side), int(cost)) for cell, cost in CLAIM.findall(context)]


def read_costs(context: str, side: int) -> dict[Cell, int]:
    """Return the cost that a context claims for each cell. A later claim overrides an earlier one."""
    return {cell: cost for cell, cost in read_claims(context, side) if cell is not None}


def write_claim(cell: Cell, cost: int, side: int) -> str:
    """Return a claim as text. It is the same in both styles."""
    return f"{name(cell, side)}={cost}"


def write_rows(claims: Iterable[str]) -> str:
    """Return claims as text, with a heading and one line per row of the grid."""
    rows = [" ".join(row) for _, row in groupby(claims, lambda claim: claim.partition("=")[0][1:])]
    return "\n".join(["Costs of entering cells:", *rows]) if rows else ""
