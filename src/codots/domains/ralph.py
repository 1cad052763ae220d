"""Ralph packs: a life attempts the same task again and again, and carries nothing but its context.

`ralph:ID` is the domain ID with S attempts at one task in place of S tasks. All attempts have the same content, and
each environment has a random stream of its own. In `ralph-stop:ID`, a life ends with its first success: the attempts
that are left have its reward, and cost nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from codots.core.rng import stream
from codots.domains.base import Domain, Rng, World

KINDS = ("ralph", "ralph-stop")
"""First parts of the ids of these domains."""


class Repeated(Domain):
    """Mixin that repeats the task at position 0."""

    repeats = True

    def make_task(self, world: World, position: int, rng: Rng) -> Any:
        """Return the content of the first task of the world, whatever the position."""
        return super().make_task(world, 0, stream(*world.names, "task", 0))  # type: ignore[safe-super]


@cache
def ralph(kind: str, domain: Domain) -> Domain:
    """Return a domain with attempts at one task in place of tasks. `kind` is one of KINDS."""
    body = {"__module__": type(domain).__module__, "stops": kind == "ralph-stop"}
    family = type(f"Repeated{type(domain).__name__}", (Repeated, type(domain)), body)
    repeated: Domain = object.__new__(family)  # `copy` would return the domain itself, which is copied by its id
    vars(repeated).update(vars(domain), id=f"{kind}:{domain.id}")
    return repeated
