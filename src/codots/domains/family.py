"""Base class of the built-in families: versions share one rule set, and policies have names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from codots.core.suggest import check_known
from codots.domains.base import Domain, Policy, Rng, Step, World
from codots.domains.drift import Drift

Policies = Mapping[str, Callable[[], Policy]]


def action(text: str) -> str | None:
    """Return the text inside the reply's only pair of action tags, or None if there is not exactly one pair."""
    if text.count("<action>") != 1 or text.count("</action>") != 1:
        return None
    inside, closed, _ = text.partition("<action>")[2].partition("</action>")
    return inside if closed else None


class Family(Domain):
    """A domain whose versions are values of one rule set."""

    def __init__(self, id: str, rules: Any, presets: dict[str, Any]) -> None:
        self.id = id
        self.rules = rules
        self.presets = presets

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        raise NotImplementedError

    def policy(self, name: str, world: World) -> Policy:
        """Return a scripted policy. Raises ValueError, listing the known names, if the name is unknown."""
        policies = self.policies(world)
        check_known(name, policies, "policy")
        if name == "informed" and isinstance(world.hidden, Drift):
            return Following(lambda position: self.policies(world.at(position))[name]())
        return policies[name]()

    def drift(self, hidden: Any, dials: Any, rng: Rng) -> Any:
        """Return a hidden part that changes once to that of a twin, if the dials say at which positions it may."""
        if dials.change is None:
            return hidden
        first, last = dials.change
        after = self.twin(World(hidden, dials), rng).hidden
        return Drift(hidden, after, int(rng.integers(first, last + 1)))


class Following:
    """Policy that knows when the hidden part changes. It plays each task with the policy of the task's position."""

    def __init__(self, make: Callable[[int], Policy]) -> None:
        self.make, self.position, self.policy = make, 0, make(0)

    def act(self, view: Any) -> str:
        return self.policy.act(view)

    def end(self, step: Step) -> None:
        self.position += 1
        self.policy = self.make(self.position)
