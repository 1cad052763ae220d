"""What domains there are: a row for each, in the words of its own docstring."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from inspect import cleandoc

from codots.domains.base import Domain
from codots.domains.registry import domain_ids, get_domain


@dataclass(frozen=True)
class DomainInfo:
    """A domain as a list shows it."""

    id: str
    presets: tuple[str, ...]
    styles: tuple[str, ...]
    hidden: str
    """What is hidden and shared, in one sentence; empty where the docstring does not say."""
    exact: bool
    """Whether `bayes` is the true optimum, else it is a scripted learner."""
    sizes: tuple[int, int]
    lacks: dict[str, str]
    """What has to be set first, for each preset that lacks something."""


def catalog() -> list[DomainInfo]:
    """Every registered domain, by id."""
    return [domain_info(get_domain(id)) for id in domain_ids()]


def domain_info(domain: Domain) -> DomainInfo:
    """The row of a domain."""
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
    """The first sentence under `Hidden and shared` in the docstring of the class, else of its module."""
    for home in (type(domain), sys.modules[type(domain).__module__]):
        text = section(home.__doc__ or "", "Hidden and shared")
        if text:
            of_version = re.search(rf"\b{domain.id.rpartition('-')[2]}: (.*)", text)
            return re.split(r"(?<=[.;])(?: |$)", of_version[1] if of_version else text)[0].rstrip(".;")
    return ""


def section(docstring: str, heading: str) -> str:
    """What stands under a heading of a docstring, in one line; nothing if there is no such heading."""
    found = re.search(rf"^{heading}:\n((?:[ \t]+.*\n?)+)", cleandoc(docstring), re.M)
    return " ".join(found[1].split()) if found else ""


def by_reason(lacks: dict[str, str]) -> str:
    """Name presets that lack something, those that lack the same together; nothing if there are none."""
    reasons = dict.fromkeys(lacks.values())
    return "; ".join(
        f"{', '.join(preset for preset, why in lacks.items() if why == reason)}: {reason}" for reason in reasons
    )
