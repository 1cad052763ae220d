"""Reading and writing claims about the hidden equation, and measured points, in a context."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from codots.domains.pde_discovery.actions import KNOWN, NOTED
from codots.domains.pde_discovery.equation import LARGEST, NUMBER, TERM, Equation, equation, term_index

CLAIM = re.compile(rf"([+-]?)(?<![\w.])({NUMBER})\*({TERM})", re.A)
POINT = re.compile(
    rf"\bu {{0,2}}= {{0,2}}\"?([+-]?{NUMBER})\"?[ ,;]{{1,3}}y {{0,2}}= {{0,2}}\"?([+-]?{NUMBER})(?!\d)", re.A
)
CLOSE = 0.05
"""Maximum error at which a claimed coefficient counts as right."""
_SIGNS = str.maketrans({"\u2212": "-", "\u00b7": "*", "\u00d7": "*", "^": "**"})
_SPACED = re.compile(r" {0,2}(\*\*|[-+*/]) {0,2}")
_DOUBT = re.compile(r"\b(?:perhaps|maybe|possibly)\b", re.I)
Pair = tuple[float, float]
"""The u and the y of a point."""


@dataclass(frozen=True)
class Claims:
    """The claims of one line: coefficients by term, each once or more."""

    found: tuple[tuple[int, float], ...]
    sure: bool
    """Whether the line does not call them doubtful."""

    @property
    def equation(self) -> Equation | None:
        """The claimed equation, in which the last coefficient of a term counts. None if no equation is possible."""
        claimed = equation(dict(self.found))
        return claimed if claimed.support and max(map(abs, claimed.coefficients)) <= LARGEST else None


def read_claims(context: str) -> Iterator[Claims]:
    """Yield the claims of each line that has any."""
    for line in context.translate(_SIGNS).splitlines():
        tight = _SPACED.sub(r"\1", line)
        claims = [(term_index(term), float(sign + size)) for sign, size, term in CLAIM.findall(tight)]
        if claims:
            yield Claims(tuple(claims), not _DOUBT.search(line))


def read_equation_of(context: str, *, doubtful: bool = True) -> Equation | None:
    """Return the equation that the last line with claims makes. If not `doubtful`, doubtful lines are ignored."""
    lines = [claims for claims in read_claims(context) if claims.sure or doubtful]
    return next((claimed for claims in reversed(lines) if (claimed := claims.equation) is not None), None)


def read_points(context: str) -> list[Pair]:
    """Return the last different points of a text that the tool accepts, in order."""
    found = [(float(u), float(y)) for u, y in POINT.findall(context.translate(_SIGNS))]
    possible = [(u, y) for u, y in found if abs(u) <= NOTED[0] and abs(y) <= NOTED[1]]
    return list(dict.fromkeys(possible))[-KNOWN:]


def write_claim(law: Equation, points: Iterable[Pair] = (), sure: bool = True) -> str:
    """Return a claim about the equation as text, with the points that it follows from."""
    seen = "; ".join(f"u={u:.6g}, y={y:.6g}" for u, y in [*points][-KNOWN:])
    return f"The law is {'' if sure else 'perhaps '}f(u) = {law}" + f", as measured: {seen}" * bool(seen)
