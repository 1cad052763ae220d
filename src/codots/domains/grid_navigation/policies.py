"""The reference policies."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from codots.domains.base import Rng, Step
from codots.domains.grid_navigation.env import View, write_move
from codots.domains.grid_navigation.ground import UNKNOWN, Cell, Ground, Ints
from codots.domains.grid_navigation.route import best_route, in_reach, moves


class Random:
    """Moves drawn evenly among those that keep the goal in reach."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def act(self, view: View) -> str:
        side, to = view.trip.side, moves(view.trip.side).to[view.at]
        within = to[in_reach(side, view.trip.goal, view.left - 1)[to]]
        within = within if len(within) else to  # where all is lost, any move
        return write_move(int(within[self.rng.integers(len(within))]), side, view.style)

    def end(self, step: Step) -> None:
        """Random play learns nothing."""


class Planner:
    """The cheapest route under the costs that it takes for true, planned anew before each move."""

    def costs(self, view: View) -> Ints:
        """The cost of each cell, as far as it knows."""
        raise NotImplementedError

    def act(self, view: View) -> str:
        trip = view.trip
        route = best_route(trip.side, self.costs(view), view.at, trip.goal, view.left, view.paid)
        return write_move(trip.goal if route is None else route.stops[0], trip.side, view.style)


class Informed(Planner):
    """The cheapest route over the true costs."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def costs(self, view: View) -> Ints:
        return self.ground.array

    def end(self, step: Step) -> None:
        """There is nothing left to learn."""


class Learner(Planner):
    """Remembers every cost it saw and takes the others for the mean of these; before the first it moves aimlessly."""

    def __init__(self, aimless: Random, known: Mapping[Cell, int] | None = None) -> None:
        self.aimless, self.known = aimless, dict(known or {})

    def act(self, view: View) -> str:
        self._learn(view)
        return super().act(view) if self.known else self.aimless.act(view)

    def costs(self, view: View) -> Ints:
        mean = round(sum(self.known.values()) / len(self.known))
        return np.array([self.known.get(cell, mean) for cell in range(view.trip.side**2)], dtype=np.int64)

    def end(self, step: Step) -> None:
        self._learn(step.view)

    def _learn(self, view: View) -> None:
        self.known.update((cell, cost) for cell, cost in enumerate(view.known) if cost != UNKNOWN)
