"""Parser of untrusted replies, which contain one XML element in one pair of action tags."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from codots.domains.family import action
from codots.domains.pde_discovery.equation import NUMBER, TERMS, Equation, read_equation, read_term

LONGEST = 20_000
"""Maximum characters between the action tags. Longer replies are malformed."""
TOOLS = ("sample", "regress", "summary", "answer")
CANDIDATES = 8
"""Maximum number of equations in one regression."""
KNOWN = 64
"""Maximum number of noted points in one regression."""
NOTE = 300
"""Maximum characters of a note. The rest is cut off."""
_NUMBER = re.compile(rf"[+-]?{NUMBER}", re.A)
NOTED = 4.0, 1e4
"""Maximum absolute u and y of a noted point."""
Element = ElementTree.Element


class RefusedError(Exception):
    """Error for a refused tool call. The model sees the message, and the call costs a turn."""


def read_action(text: str) -> Element | None:
    """Return the XML element in a reply, or None if the reply is malformed.

    XML declarations, comments and entities are rejected, so that no entity can expand.
    """
    inside = action(text)
    if inside is None or len(inside) > LONGEST or re.search("<[!?]|&|\x00", inside):
        return None
    try:
        element = ElementTree.fromstring(inside.strip())
    except (ElementTree.ParseError, ValueError):
        return None
    return element if element.tag in TOOLS and _plain(element) else None


def _plain(element: Element) -> bool:
    """Return whether an element contains only text or only childless elements."""
    around = [element.text, *(child.tail for child in element)]
    bare = not any(part and part.strip() for part in around)
    return not len(element) or (bare and not any(len(child) for child in element))


def allow(element: Element, attributes: Iterable[str], children: Iterable[str] = ()) -> None:
    """Raise RefusedError if an element has attributes or children that its tool does not support."""
    odd = [f"the attribute {name!r:.40}" for name in element.attrib if name not in tuple(attributes)]
    odd += [f"the element {child.tag!r:.40}" for child in element if child.tag not in tuple(children)]
    if odd:
        raise RefusedError(f"{element.tag} does not know {sorted(odd)[0]}.")


def number(element: Element, name: str) -> float:
    """Return a numeric attribute of an element. Raises RefusedError if it is absent or not a number."""
    text = element.get(name, "").strip()
    if not _NUMBER.fullmatch(text):
        raise RefusedError(f"{element.tag} needs {name} as a number.")
    return float(text)


def places(element: Element, left: int) -> list[tuple[float, float]]:
    """Return the points (x, t) to measure, with x strictly between 0 and 1 and t from 0 to 1.

    Raises RefusedError if a point is invalid, or if there are no points or more than `left`.
    """
    allow(element, (), ("point",))
    if not 1 <= len(element) <= left:
        raise RefusedError(f"Ask for 1 point at least; {left} {'is' if left == 1 else 'are'} left in this task.")
    found = []
    for point in element:
        allow(point, ("x", "t"))
        x, t = number(point, "x"), number(point, "t")
        if not (0 < x < 1 and 0 <= t <= 1):
            raise RefusedError("A point needs x above 0 and below 1, and t from 0 to 1.")
        found.append((x, t))
    return found


def noted_points(element: Element) -> list[tuple[float, float]]:
    """Return the points (u, y) that the model adds to the data. Raises RefusedError if a point is invalid."""
    noted = element.findall("known")
    if len(noted) > KNOWN:
        raise RefusedError(f"Hand over {KNOWN} known points at most.")
    for point in noted:
        allow(point, ("u", "y"))
    found = [(number(point, "u"), number(point, "y")) for point in noted]
    if any(abs(u) > NOTED[0] or abs(y) > NOTED[1] for u, y in found):
        raise RefusedError(f"A known point has u within {NOTED[0]:g} and y within {NOTED[1]:g}.")
    return found


def chosen_terms(element: Element) -> tuple[int, ...]:
    """Return the terms that a regression may combine. Raises RefusedError if a term is unknown."""
    named = [(child.text or "", read_term(child.text or "")) for child in element.findall("term")]
    for text, term in named:
        if term is None:
            raise RefusedError(f"{text.strip()!r:.60} is no term of the library.")
    return tuple(sorted({term for _, term in named if term is not None}))


def candidates(element: Element, most: int) -> list[Equation]:
    """Return the equations whose terms a regression fits. Raises RefusedError if an equation is invalid."""
    named = [(child.text or "", read_equation(child.text or "")) for child in element.findall("equation")]
    if len(named) > CANDIDATES:
        raise RefusedError(f"Name {CANDIDATES} equations at most.")
    for text, equation in named:
        if equation is None or len(equation.support) > most:
            raise RefusedError(f"{text.strip()!r:.80} is no equation of 1 to {most} terms of the library.")
    return [equation for _, equation in named if equation is not None]


def write_sample(points: Iterable[tuple[float, float]]) -> str:
    """Return a reply that measures points."""
    inside = "".join(f'<point x="{x:.4g}" t="{t:.4g}"/>' for x, t in points)
    return f"I measure. <action><sample>{inside}</sample></action>"


def write_regress(
    equations: Iterable[Equation] = (), known: Iterable[tuple[float, float]] = (), terms: Iterable[int] = ()
) -> str:
    """Return a reply that fits all data, with the terms of these equations or with combinations of these terms."""
    inside = "".join(f"<equation>{equation}</equation>" for equation in equations)
    inside += "".join(f"<term>{TERMS[i]}</term>" for i in terms)
    inside += "".join(f'<known u="{u:.6g}" y="{y:.6g}"/>' for u, y in known)
    return f"I fit. <action><regress>{inside}</regress></action>"


def write_answer(equation: Equation) -> str:
    """Return a reply that answers with an equation."""
    return f"This fits. <action><answer>{equation}</answer></action>"
