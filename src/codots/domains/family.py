"""What the families of this package have in common: versions that are values of one set of rules, players by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from codots.core.suggest import check_known
from codots.domains.base import Domain, Policy, World

Policies = Mapping[str, Callable[[], Policy]]


def action(text: str) -> str | None:
    """Give what stands in the one pair of action tags of a reply; None if there is no pair, or more than one."""
    if text.count("<action>") != 1 or text.count("</action>") != 1:
        return None
    inside, closed, _ = text.partition("<action>")[2].partition("</action>")
    return inside if closed else None


class Family(Domain):
    """A family of worlds under one set of rules."""

    def __init__(self, id: str, rules: Any, presets: dict[str, Any]) -> None:
        self.id = id
        self.rules = rules
        self.presets = presets

    def policies(self, world: World) -> Policies:
        """Say how each scripted player is made."""
        raise NotImplementedError

    def policy(self, name: str, world: World) -> Policy:
        """Give a scripted player; an unknown name raises ValueError with the known ones."""
        policies = self.policies(world)
        check_known(name, policies, "policy")
        return policies[name]()
