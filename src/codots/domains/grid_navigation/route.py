"""The cheapest route by mean cost, exactly; and what aimless moves cost on average, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from codots.domains.grid_navigation.ground import Cell, Ground, Ints, Trip

Floats = NDArray[np.float64]
FAR = 1 << 50
"""The value of a cell from which the goal is out of reach: more than any route costs."""


@dataclass(frozen=True)
class Paid:
    """The costs of the cells entered so far: how much, for how many."""

    total: int = 0
    count: int = 0

    @property
    def mean(self) -> float:
        """The mean cost of an entered cell."""
        return self.total / self.count


NOTHING = Paid()


@dataclass(frozen=True)
class Route:
    """Where to go, and what will have been paid then."""

    stops: tuple[Cell, ...]
    """Where each move ends."""
    paid: Paid


class Moves:
    """All rook moves of a square grid; rows are cells, columns are the moves from it: n**2 x 2(n - 1)."""

    def __init__(self, side: int) -> None:
        self.side = side
        row, col = (axis.reshape(-1, 1) for axis in np.indices((side, side)))
        other = np.arange(side - 1)
        across, down = other + (other >= col), other + (other >= row)
        self.to: Ints = np.hstack([row * side + across, down * side + col])
        self.length: Ints = np.hstack([abs(across - col), abs(down - row)])
        # Where a move begins and ends in the running sums of `tolls`, of which one goes row by row, one column by
        # column. Forwards the first cell is left out and the last one taken in; backwards it is the other way round.
        second = side * side + 1
        ahead, below = across > col, down > row
        begin = [row * side + col + ahead, second + col * side + row + below]
        end = [row * side + across + ahead, second + col * side + down + below]
        self._begin, self._end = np.hstack(begin), np.hstack(end)

    def tolls(self, costs: Ints) -> Ints:
        """What each move pays, for costs by cell."""
        by_column = costs.reshape(self.side, self.side).T.ravel()
        sums = np.concatenate([[0], costs.cumsum(), [0], by_column.cumsum()])
        return np.asarray(np.abs(sums[self._end] - sums[self._begin]))


@lru_cache(maxsize=32)
def moves(side: int) -> Moves:
    """The moves of a grid, made once."""
    return Moves(side)


def best_route(side: int, costs: Ints, at: Cell, goal: Cell, rounds: int, paid: Paid = NOTHING) -> Route | None:
    """The route of exactly these rounds that ends on the goal with the least mean cost of all that was ever entered.

    Dinkelbach's method: a route beats the mean p/q if q * total - p * count is negative. The route for which this is
    least is found backwards, round by round; then again with the mean of that route, until none is better. All numbers
    are whole, so the optimum is exact. None if there is no such route.
    """
    table = moves(side)
    tolls = table.tolls(costs)
    best: Route | None = None
    ratio = Paid(int(costs.sum()), side * side)  # any mean will do to begin with
    while True:
        stops = _least(table, ratio.count * tolls - ratio.total * table.length, at, goal, rounds)
        if stops is None:
            return None
        entered = [(tolls[a, m], table.length[a, m]) for a, m in stops]
        total, count = (int(sum(part)) for part in zip(*entered, strict=True))
        route = Route(tuple(int(table.to[a, m]) for a, m in stops), Paid(paid.total + total, paid.count + count))
        if best is not None and route.paid.total * best.paid.count >= best.paid.total * route.paid.count:
            return best
        best, ratio = route, route.paid


def _least(table: Moves, weight: Ints, at: Cell, goal: Cell, rounds: int) -> list[tuple[Cell, int]] | None:
    """The moves of the route of least weight, each by its cell and its column in the table."""
    left: Ints = np.full(table.side**2, FAR)
    left[goal] = 0
    layers = [left]
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
    """From which cells the goal can be had with exactly these moves left; with two or more, from all."""
    row, col = np.divmod(np.arange(side * side), side)
    if left >= 2:
        return np.ones(side * side, dtype=bool)
    same_row, same_col = row == goal // side, col == goal % side
    return np.asarray(same_row != same_col if left == 1 else same_row & same_col)


def aimless_mean(ground: Ground, trip: Trip) -> float:
    """The expected mean cost of a player who moves evenly at random among the moves that keep the goal in reach.

    The mean of a ratio asks for the chance of every number of entered cells at every cell, chance[cell * span + count],
    and beside it for the chance times what was paid.
    """
    table, span = moves(trip.side), trip.rounds * (trip.side - 1) + 1
    tolls = table.tolls(ground.array)
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
        brought += taken * tolls[cell[i], move]
        paid = np.asarray(np.bincount(to, brought, chance.size), dtype=np.float64)
    paid_by_count = paid.reshape(-1, span)[trip.goal, 1:]
    return float((paid_by_count / np.arange(1, span)).sum())


@dataclass(frozen=True)
class Ends:
    """What a trip costs by mean."""

    least: float
    aimless: float


@lru_cache(maxsize=1 << 14)
def ends(ground: Ground, trip: Trip) -> Ends:
    """The two ends between which a trip is judged; worked out once, for many lives meet the same trip."""
    best = best_route(trip.side, ground.array, trip.start, trip.goal, trip.rounds)
    assert best is not None, "a trip was drawn by walking it"
    return Ends(best.paid.mean, aimless_mean(ground, trip))
