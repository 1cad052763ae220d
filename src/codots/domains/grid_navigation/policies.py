"""Reference policies of grid navigation."""

from __future__ import annotations

import numpy as np

from codots.domains.base import Rng, Step
from codots.domains.grid_navigation.env import View, write_move
from codots.domains.grid_navigation.ground import UNKNOWN, Cell, Ground, Ints, name
from codots.domains.grid_navigation.notes import read_costs, write_claim
from codots.domains.grid_navigation.route import best_route, in_reach, moves


class Random:
    """Policy that draws uniformly from the moves that keep the goal reachable."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def act(self, view: View) -> str:
        side, to = view.trip.side, moves(view.trip.side).to[view.at]
        within = to[in_reach(side, view.trip.goal, view.left - 1)[to]]
        within = within if len(within) else to  # the goal is out of reach, so any move will do
        return write_move(int(within[self.rng.integers(len(within))]), side, view.style)

    def end(self, step: Step) -> None:
        """Ignore the outcome; this policy does not learn."""


class Planner:
    """Base class of policies that follow the route of minimum mean cost under assumed costs and replan every move."""

    def costs(self, view: View) -> Ints:
        """Return the assumed cost of each cell."""
        raise NotImplementedError

    def act(self, view: View) -> str:
        trip = view.trip
        route = best_route(trip.side, self.costs(view), view.at, trip.goal, view.left, view.paid)
        return write_move(trip.goal if route is None else route.stops[0], trip.side, view.style)


class Informed(Planner):
    """Policy that follows the route of minimum mean cost under the true costs."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def costs(self, view: View) -> Ints:
        return self.ground.array

    def end(self, step: Step) -> None:
        """Ignore the outcome; the map is already known."""


class Reading(Planner):
    """Policy that plans with the costs that a context claims, and assumes their mean for all other cells.

    It moves at random if it has read no cost.
    """

    def __init__(self, side: int, random: Random) -> None:
        self.side, self.random = side, random
        self.known: dict[Cell, int] = {}

    def act(self, view: View) -> str:
        return super().act(view) if self.known else self.random.act(view)

    def costs(self, view: View) -> Ints:
        mean = round(sum(self.known.values()) / len(self.known))
        return np.array([self.known.get(cell, mean) for cell in range(self.side**2)], dtype=np.int64)

    def end(self, step: Step) -> None:
        """Ignore the outcome; this policy does not learn."""

    def read(self, context: str) -> None:
        """Read the costs of cells. What is known already has priority."""
        self.known = read_costs(context, self.side) | self.known


class AdaptivePolicy(Reading):
    """Policy that also remembers all costs seen in the life. They override costs that it has read."""

    def act(self, view: View) -> str:
        self._remember(view)
        return super().act(view)

    def end(self, step: Step) -> None:
        self._remember(step.view)

    def notes(self, style: str) -> dict[str, str]:
        """Return the costs of all cells that were seen or read about."""
        return {name(c, self.side): write_claim(c, cost, self.side) for c, cost in sorted(self.known.items())}

    def _remember(self, view: View) -> None:
        self.known.update((cell, cost) for cell, cost in enumerate(view.known) if cost != UNKNOWN)
