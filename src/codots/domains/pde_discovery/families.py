"""Families of equations, which are combinations of terms and signs."""

from __future__ import annotations

from functools import cache

from codots.domains.base import Rng
from codots.domains.pde_discovery.equation import Equation, equation, read_equation

KNOWN = """
-u; -u**3; -sin(u); -tanh(u); -u**2/(1+u**2); u - u**2; u - u**3; u - u**5; u**2 - u**4; sin(u) - u**3;
(exp(u)-1) - u**2; log(1+u**2) - u**2; tanh(u) - u**2; tanh(u) - u**3; u/(1+u**2) - u**2; u/(1+u**2) - u**3;
u**2/(1+u**2) - u; u**2/(1+u**2) - u**3; u**3 - u**5; tanh(u) - u; u**4/(1+u**4) - u; u/(1+u+u**2) - u;
sin(2*u) - u**2; sin(2*u) - u**3; sin(2*u) - u**5; sin(u) - u**4; tanh(u) - u**4; u/(1+u**2) - u**4;
u/(1+u+u**2) - u**2; u/(1+u+u**2) - u**3; -sin(2*u) - u**2; -sin(2*u) - u**3; -sin(2*u) - u**5; -sin(u) - u**4;
-sin(u) - u**3; u/(1+u**2) - u; u**2/(1+u**2) - u**2; u**3 - u**7; u**2 - u**5; u**2/(1+u**2) - u**5
"""
NEW = """
u - u**4; u**2 - u**3; sin(u) - u**5; (exp(u)-1) - u**3; log(1+u**2) - u**4; tanh(u) - u**5; u/(1+u**2) - u**5;
u**2/(1+u**2) - u**4; u - u**7; sin(u) - sin(2*u); u**2/(1+u**2) - u**4/(1+u**4); (exp(u)-1) - u**5;
sin(u) - (exp(u)-1); u**5 - u**7; u/(1+u**2) - tanh(u); u**3 - u**4; u**2/(1+u**2) - log(1+u**2); u + u**2 - u**3;
u + tanh(u) - u**3; u - u**3 - u**5; sin(u) - sin(2*u) - u**3; u + u**3 - u**7;
u**2/(1+u**2) + u**4/(1+u**4) - u**5; (exp(u)-1) + tanh(u) - u**7; sin(2*u) + u**2/(1+u**2) - u**7
"""
FAMILIES = {"known": KNOWN, "new": NEW}
"""Equations by family. The paper trains on `known` and evaluates on `new`. The families share no support."""
SIZES = (0.5, 2.0)
"""Range of the absolute value of a coefficient."""


@cache
def templates(family: str) -> tuple[Equation, ...]:
    """Return the equations of a family, with every coefficient 1 or -1."""
    read = [read_equation(text) for text in FAMILIES[family].split(";")]
    return tuple(template for template in read if template is not None)


def draw_equation(rng: Rng, family: str, terms: tuple[int, int]) -> Equation:
    """Draw a template whose number of terms is in range, then the size of each coefficient, rounded to two decimals."""
    eligible = [template for template in templates(family) if terms[0] <= len(template.support) <= terms[1]]
    template = eligible[rng.integers(len(eligible))]
    return equation({i: template.coefficients[i] * round(rng.uniform(*SIZES), 2) for i in template.support})
