"""Exact planning of the route of minimum mean cost, and the expected mean cost of random moves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from codots.domains.grid_navigation.ground import Cell, Ground, Ints, Trip

Floats = NDArray[np.float64]
FAR = 1 << 50
"""Weight of a route that does not reach the goal. It is larger than the weight of any other route."""


@dataclass(frozen=True)
class Paid:
    """Total cost and number of the cells entered so far."""

    total: int = 0
    count: int = 0

    @property
    def mean(self) -> float:
        """Mean cost of the entered cells."""
        return self.total / self.count


NOTHING_PAID = Paid()


@dataclass(frozen=True)
class Route:
    """A planned route."""

    stops: tuple[Cell, ...]
    """The cell that each move ends on."""
    paid: Paid
    """Costs paid by the end of the route, including costs paid before the route."""


class Moves:
    """All rook moves of a square grid with side n, as arrays of shape (n**2, 2(n - 1)).

    Each row is a start cell, and each column is one of the moves from that cell.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        row, col = (axis.reshape(-1, 1) for axis in np.indices((side, side)))
        other = np.arange(side - 1)
        across, down = other + (other >= col), other + (other >= row)
        self.to: Ints = np.hstack([row * side + across, down * side + col])
        self.length: Ints = np.hstack([abs(across - col), abs(down - row)])
        # Start and end of each move in the prefix sums of `move_costs`: first the sums in row order, then those in
        # column order. A forward move excludes its first cell and includes its last, a backward move the reverse.
        second = side * side + 1
        ahead, below = across > col, down > row
        begin = [row * side + col + ahead, second + col * side + row + below]
        end = [row * side + across + ahead, second + col * side + down + below]
        self._begin, self._end = np.hstack(begin), np.hstack(end)

    def move_costs(self, costs: Ints) -> Ints:
        """Return the cost of each move, given the cost of each cell."""
        by_column = costs.reshape(self.side, self.side).T.ravel()
        sums = np.concatenate([[0], costs.cumsum(), [0], by_column.cumsum()])
        return np.asarray(np.abs(sums[self._end] - sums[self._begin]))


@lru_cache(maxsize=32)
def moves(side: int) -> Moves:
    """Return the move table of a grid from a cache."""
    return Moves(side)


def best_route(side: int, costs: Ints, at: Cell, goal: Cell, rounds: int, paid: Paid = NOTHING_PAID) -> Route | None:
    """Return the route of exactly `rounds` moves to the goal with the minimum mean cost, or None if there is none.

    The mean includes the cells in `paid`. The search uses Dinkelbach's method: a route beats the mean p/q if
    q * total - p * count is negative. Dynamic programming, backward from the goal, finds the route that minimizes this
    value. The search repeats with the mean of that route until no route is better. All numbers are integers, so the
    optimum is exact.
    """
    table = moves(side)
    move_costs = table.move_costs(costs)
    best: Route | None = None
    ratio = Paid(int(costs.sum()), side * side)  # any initial mean works
    while True:
        stops = _min_weight_route(table, ratio.count * move_costs - ratio.total * table.length, at, goal, rounds)
        if stops is None:
            return None
        entered = [(move_costs[a, m], table.length[a, m]) for a, m in stops]
        total, count = (int(sum(part)) for part in zip(*entered, strict=True))
        route = Route(tuple(int(table.to[a, m]) for a, m in stops), Paid(paid.total + total, paid.count + count))
        if best is not None and route.paid.total * best.paid.count >= best.paid.total * route.paid.count:
            return best
        best, ratio = route, route.paid


def _min_weight_route(table: Moves, weight: Ints, at: Cell, goal: Cell, rounds: int) -> list[tuple[Cell, int]] | None:
    """Return the moves of the route of minimum weight, each as a start cell and a column of the table.

    Returns None if no route reaches the goal.
    """
    last: Ints = np.full(table.side**2, FAR)
    last[goal] = 0
    layers = [last]
    for _ in range(rounds - 1):
        layers.append((weight + layers[-1][table.to]).min(axis=1))
    stops = []
    for layer in reversed(layers):
        value = weight[at] + layer[table.to[at]]
        move = int(value.argmin())
        if value[move] > FAR // 2:
            return None
        stops.append((at, move))
        at = int(table.to[at, move])
    return stops


def in_reach(side: int, goal: Cell, left: int) -> NDArray[np.bool_]:
    """Return a mask of the cells from which exactly `left` moves can end on the goal.

    With two or more moves, the goal can be reached from every cell.
    """
    row, col = np.divmod(np.arange(side * side), side)
    if left >= 2:
        return np.ones(side * side, dtype=bool)
    same_row, same_col = row == goal // side, col == goal % side
    return np.asarray(same_row != same_col if left == 1 else same_row & same_col)


def random_mean(ground: Ground, trip: Trip) -> float:
    """Return the expected mean cost of uniformly random moves that keep the goal reachable.

    The expectation of a ratio needs the joint distribution of the current cell and the number of cells entered, which
    is `chance[cell * span + count]`. `paid` holds that probability times the expected cost paid.
    """
    table, span = moves(trip.side), trip.rounds * (trip.side - 1) + 1
    move_costs = table.move_costs(ground.array)
    chance: Floats = np.zeros(trip.side**2 * span)
    chance[trip.start * span] = 1.0
    paid = np.zeros_like(chance)
    for left in reversed(range(trip.rounds)):
        here = np.flatnonzero(chance)
        cell, count = np.divmod(here, span)
        within = in_reach(trip.side, trip.goal, left)[table.to[cell]]
        share = 1 / within.sum(axis=1)
        i, move = np.nonzero(within)
        to = table.to[cell[i], move] * span + count[i] + table.length[cell[i], move]
        taken, brought = (chance[here] * share)[i], (paid[here] * share)[i]
        chance = np.asarray(np.bincount(to, taken, chance.size), dtype=np.float64)
        brought += taken * move_costs[cell[i], move]
        paid = np.asarray(np.bincount(to, brought, chance.size), dtype=np.float64)
    paid_by_count = paid.reshape(-1, span)[trip.goal, 1:]
    return float((paid_by_count / np.arange(1, span)).sum())


@dataclass(frozen=True)
class ReferenceCosts:
    """Mean costs that the reward of a trip is measured against."""

    least: float
    """Minimum mean cost."""
    random: float
    """Expected mean cost of random moves."""


@lru_cache(maxsize=1 << 14)
def reference_costs(ground: Ground, trip: Trip) -> ReferenceCosts:
    """Return the reference costs of a trip. Results are cached because many lives share a trip."""
    best = best_route(trip.side, ground.array, trip.start, trip.goal, trip.rounds)
    assert best is not None, "a trip is drawn by a random walk, so a route exists"
    return ReferenceCosts(best.paid.mean, random_mean(ground, trip))
