"""Equations, which are weighted sums of library terms. Text is parsed against a whitelist and never run as code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LIBRARY: dict[str, Callable[[Floats], Floats]] = {
    "u": lambda u: u,
    "u**2": lambda u: u * u,
    "u**3": lambda u: u * u * u,
    "u**4": lambda u: (u * u) ** 2,
    "u**5": lambda u: (u * u) ** 2 * u,
    "u**7": lambda u: (u * u) ** 2 * (u * u * u),
    "sin(u)": np.sin,
    "sin(2*u)": lambda u: np.sin(2 * u),
    "exp(u)-1": np.expm1,
    "log(1+u**2)": lambda u: np.log1p(u * u),
    "tanh(u)": np.tanh,
    "u/(1+u**2)": lambda u: u / (1 + u * u),
    "u**2/(1+u**2)": lambda u: u * u / (1 + u * u),
    "u**4/(1+u**4)": lambda u: (u * u) ** 2 / (1 + (u * u) ** 2),
    "u/(1+u+u**2)": lambda u: u / (1 + u + u * u),
}
"""All terms that equations can have. Each term is 0 at u = 0 and finite for every reachable u."""
TERMS = tuple(LIBRARY)
INDEX = {term: i for i, term in enumerate(TERMS)}
LONGEST = 600
"""Maximum characters of an equation. Longer text is rejected."""
LARGEST = 1e6
"""Maximum absolute value of a coefficient."""

NUMBER = r"(?:\d{1,7}(?:\.\d{0,12})?|\.\d{1,12})(?:[eE][+-]?\d{1,2})?"
_BARE = "|".join(re.escape(term) for term in sorted(TERMS, key=len, reverse=True) if term != "exp(u)-1")
TERM = "|".join(rf"\({re.escape(term)}\)" for term in TERMS) + f"|(?:{_BARE})" + r"(?![\w*/(])"
"""A term, with or without brackets. `exp(u)-1` needs brackets, so that a factor applies to the whole term."""
_SUMMAND = re.compile(rf"([+-]?)(?:({NUMBER})\*)?({TERM})", re.A)


@dataclass(frozen=True)
class Equation:
    """A reaction f(u) with at least one nonzero coefficient."""

    coefficients: tuple[float, ...]
    """Coefficient of each library term, which is 0 for an absent term."""

    @property
    def support(self) -> tuple[int, ...]:
        """Indices of the terms with nonzero coefficients."""
        return tuple(i for i, c in enumerate(self.coefficients) if c)

    @property
    def parts(self) -> list[tuple[float, Callable[[Floats], Floats]]]:
        """The terms with nonzero coefficients, as pairs of coefficient and function."""
        return [(self.coefficients[i], LIBRARY[TERMS[i]]) for i in self.support]

    def __call__(self, u: Floats) -> Floats:
        """Return the value at every u."""
        return np.asarray(sum(c * term(u) for c, term in self.parts))

    def __str__(self) -> str:
        """Return the equation as text, with three significant digits for each coefficient."""
        text = ""
        for i in self.support:
            sign = "-" if self.coefficients[i] < 0 else "+"
            term = f"({TERMS[i]})" if "+" in TERMS[i] or "-" in TERMS[i] else TERMS[i]
            text += f" {sign} {abs(self.coefficients[i]):.3g}*{term}"
        return text[3:] if text.startswith(" + ") else text[1:].replace("- ", "-", 1)


def equation(found: dict[int, float]) -> Equation:
    """Return the equation with these coefficients by term index."""
    return Equation(tuple(float(found.get(i, 0.0)) for i in range(len(TERMS))))


def read_equation(text: str) -> Equation | None:
    """Parse an equation such as `1.2*u - 0.5*(exp(u)-1)`, with or without `f(u) =`.

    The coefficients of repeated terms are added up. A term without a number has coefficient 1. Returns None if the text
    has extra characters or unknown names, or if all coefficients are zero or one is too large.
    """
    if len(text) > LONGEST:
        return None
    text = "".join(text.split()).removeprefix("f(u)=")
    found: dict[int, float] = {}
    at = 0
    while at < len(text):
        summand = _SUMMAND.match(text, at)
        if summand is None or (at and not summand[1]):
            return None
        i = term_index(summand[3])
        found[i] = found.get(i, 0.0) + float(f"{summand[1]}{summand[2] or 1}")
        at = summand.end()
    read = equation(found)
    return read if read.support and max(map(abs, read.coefficients)) <= LARGEST else None


def term_index(text: str) -> int:
    """Return the index of a term, with or without brackets."""
    return INDEX[text] if text in INDEX else INDEX[text[1:-1]]


def read_term(text: str) -> int | None:
    """Return the index of a named term, with or without brackets, or None if it is unknown."""
    bare = "".join(text[:LONGEST].split())
    return INDEX.get(bare, INDEX.get(bare.removeprefix("(").removesuffix(")")))


def same(one: Equation, other: Equation) -> bool:
    """Return whether two equations are equal up to rounding."""
    pairs = zip(one.coefficients, other.coefficients, strict=True)
    return all(math.isclose(a, b, rel_tol=1e-9) for a, b in pairs)


def columns(u: Floats) -> Floats:
    """Return the value of every term at every u, as an array of shape `(len(u), terms)`."""
    return np.stack([term(u) for term in LIBRARY.values()], axis=-1)
