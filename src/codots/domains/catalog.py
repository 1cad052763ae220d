"""A list of the registered domains, described by their own docstrings."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from inspect import cleandoc

from codots.domains.base import Domain
from codots.domains.registry import domain_ids, get_domain


@dataclass(frozen=True)
class DomainInfo:
    """One domain as the list of domains shows it."""

    id: str
    presets: tuple[str, ...]
    styles: tuple[str, ...]
    hidden: str
    """One sentence on what is hidden and shared by the tasks; empty if the docstring has none."""
    exact: bool
    """Whether `bayes` is the true optimum; otherwise it is a heuristic."""
    sizes: tuple[int, int]
    lacks: dict[str, str]
    """What must be set up first, for each preset that cannot be drawn yet."""


def catalog() -> list[DomainInfo]:
    """Return an entry for every registered domain, sorted by id."""
    return [domain_info(get_domain(id)) for id in domain_ids()]


def domain_info(domain: Domain) -> DomainInfo:
    """Describe one domain."""
    lacks = {preset: domain.lacks(preset) for preset in domain.presets}
    return DomainInfo(
        domain.id,
        tuple(domain.presets),
        domain.styles,
        hidden(domain),
        domain.exact,
        domain.sizes,
        {preset: why for preset, why in lacks.items() if why},
    )


def hidden(domain: Domain) -> str:
    """Return the first sentence under `Hidden and shared` in the docstring of the class, or else of its module."""
    for documented in (type(domain), sys.modules[type(domain).__module__]):
        text = section(documented.__doc__ or "", "Hidden and shared")
        if text:
            of_version = re.search(rf"\b{domain.id.rpartition('-')[2]}: (.*)", text)
            return re.split(r"(?<=[.;])(?: |$)", of_version[1] if of_version else text)[0].rstrip(".;")
    return ""


def section(docstring: str, heading: str) -> str:
    """Return the text under a heading of a docstring as one line, or an empty string without that heading."""
    found = re.search(rf"^{heading}:\n((?:[ \t]+.*\n?)+)", cleandoc(docstring), re.M)
    return " ".join(found[1].split()) if found else ""


def by_reason(lacks: dict[str, str]) -> str:
    """List presets grouped by what they lack, as `a, b: set X; c: set Y`; empty if none lacks anything."""
    reasons = dict.fromkeys(lacks.values())
    return "; ".join(
        f"{', '.join(preset for preset, why in lacks.items() if why == reason)}: {reason}" for reason in reasons
    )
