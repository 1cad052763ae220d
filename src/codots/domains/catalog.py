"""A catalog of the registered domains, described by their docstrings."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from inspect import cleandoc

from codots.domains.base import Domain
from codots.domains.registry import domain_ids, get_domain


@dataclass(frozen=True)
class DomainInfo:
    """The entry of one domain in the catalog."""

    id: str
    presets: tuple[str, ...]
    styles: tuple[str, ...]
    hidden: str
    """One sentence on what is hidden and shared by the tasks. Empty if the docstring has no such sentence."""
    exact: bool
    """Whether `bayes` is the exact optimum. If False, `bayes` is a heuristic."""
    sizes: tuple[int, int]
    lacks: dict[str, str]
    """What must be set up first, by name of each preset that cannot be drawn yet."""


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
    """Return the first sentence under `Hidden and shared` in the docstring of the class, otherwise of its module.

    If that text describes versions separately, the sentence is about the domain's version. Returns an empty string if
    neither docstring has the heading.
    """
    for documented in (type(domain), sys.modules[type(domain).__module__]):
        text = section(documented.__doc__ or "", "Hidden and shared")
        if text:
            of_version = re.search(rf"\b{domain.id.rpartition('-')[2]}: (.*)", text)
            return re.split(r"(?<=[.;])(?: |$)", of_version[1] if of_version else text)[0].rstrip(".;")
    return ""


def section(docstring: str, heading: str) -> str:
    """Return the text under a heading of a docstring as one line, or an empty string if there is no such heading."""
    found = re.search(rf"^{heading}:\n((?:[ \t]+.*\n?)+)", cleandoc(docstring), re.M)
    return " ".join(found[1].split()) if found else ""


def by_reason(lacks: dict[str, str]) -> str:
    """Return the presets grouped by what they lack, such as `a, b: set X; c: set Y`.

    Returns an empty string if `lacks` is empty.
    """
    reasons = dict.fromkeys(lacks.values())
    return "; ".join(
        f"{', '.join(preset for preset, why in lacks.items() if why == reason)}: {reason}" for reason in reasons
    )
