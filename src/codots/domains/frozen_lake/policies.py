"""The reference policies."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import permutations

from codots.domains.base import Rng, Step
from codots.domains.frozen_lake.board import DIRECTIONS, Board, Cell, distances, good_directions
from codots.domains.frozen_lake.env import CODES, DEFAULT, Dials, Mapping, View, write_code

MAPPINGS: tuple[Mapping, ...] = tuple(permutations(DEFAULT))
"""All that there are. A belief is the set of those that may be true, as an int: one bit for each."""
MEANS = [
    {
        direction: sum(1 << k for k, mapping in enumerate(MAPPINGS) if mapping[i] == direction)
        for direction in DIRECTIONS
    }
    for i in range(len(CODES))
]
"""By code and direction, the belief that this is what the code means."""


def believed(mappings: Iterable[Mapping]) -> int:
    """The belief in these mappings."""
    return sum(1 << MAPPINGS.index(mapping) for mapping in mappings)


@cache
def stand_ins(belief: int) -> tuple[int, ...]:
    """For each code the first that it can change places with in this belief, and that is hence worth as much."""
    true = {mapping for k, mapping in enumerate(MAPPINGS) if belief >> k & 1}

    def alike(i: int, j: int) -> bool:
        order = [{i: j, j: i}.get(code, code) for code in range(len(CODES))]
        return {tuple(mapping[code] for code in order) for mapping in true} == true

    return tuple(next(i for i in range(j + 1) if alike(i, j)) for j in range(len(CODES)))


class Random:
    """Codes drawn evenly."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.drawn: list[int] = []
        """The next codes, the last one first: many drawn at once are the same as one by one, and cheaper."""

    def act(self, view: View) -> str:
        if not self.drawn:
            self.drawn = self.rng.integers(4, size=64).tolist()[::-1]
        return write_code(CODES[self.drawn.pop()], "anywhere", view.style)

    def end(self, step: Step) -> None:
        """Random play learns nothing."""


class Informed:
    """A shortest path under the true mapping."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping

    def act(self, view: View) -> str:
        direction = good_directions(view.board, view.at)[0]
        return write_code(CODES[self.mapping.index(direction)], direction, view.style)

    def end(self, step: Step) -> None:
        """There is nothing left to learn."""


class Bayes:
    """The exact optimum of each task given everything seen before."""

    def __init__(self, dials: Dials) -> None:
        self.mappings = list(dials.mappings)
        self._plan: dict[tuple[Cell, int, int], tuple[float, list[int]]] = {}
        self._board: Board | None = None
        self._moves: dict[Cell, dict[str, Cell]] = {}
        """Where each direction leads on the board."""
        self._steps: dict[Cell, int] = {}
        """Steps from each cell to the goal of the board."""

    def act(self, view: View) -> str:
        self._learn(view)
        code = self.best(view, self.mappings)[0]
        direction = {mapping[code] for mapping in self.mappings}
        return write_code(CODES[code], direction.pop() if len(direction) == 1 else "anywhere", view.style)

    def best(self, view: View, belief: list[Mapping]) -> list[int]:
        """The indices of the codes with the best expected reward."""
        if (board := view.board) != self._board:
            self._board, self._plan, self._steps = board, {}, distances(board)
            self._moves = {at: {d: board.move(at, d) for d in DIRECTIONS} for at in self._steps}
        return self._value(view.at, believed(belief), view.turn, view.turns)[1]

    def end(self, step: Step) -> None:
        self._learn(step.view)

    def _learn(self, view: View) -> None:
        if view.code is not None and view.came_from is not None:
            i, board, before = CODES.index(view.code), view.board, view.came_from
            self.mappings = [m for m in self.mappings if board.move(before, m[i]) == view.at]

    def _value(self, at: Cell, belief: int, turn: int, turns: int) -> tuple[float, list[int]]:
        """The best expected reward from here, and the codes that reach it."""
        steps = self._steps[at]
        if steps > turns - turn:
            return 0.0, list(range(len(CODES)))
        if belief.bit_count() == 1:  # nothing left to find out: the shortest way, which spares most of the search
            true, moves = MAPPINGS[belief.bit_length() - 1], self._moves[at]
            shorter = [i for i, d in enumerate(true) if self._steps.get(moves[d], steps) < steps]
            return 1 - 0.1 * (turn + steps) / turns, shorter
        key = (at, belief, turn)
        if key not in self._plan:
            likes = stand_ins(belief)
            values = {code: self._code_value(at, belief, turn, turns, code) for code in set(likes)}
            best = max(values.values())
            self._plan[key] = best, [code for code, like in enumerate(likes) if values[like] > best - 1e-9]
        return self._plan[key]

    def _code_value(self, at: Cell, belief: int, turn: int, turns: int, code: int) -> float:
        outcomes: dict[Cell, int] = {}
        for direction, to in self._moves[at].items():
            if left := belief & MEANS[code][direction]:
                outcomes[to] = outcomes.get(to, 0) | left
        if len(outcomes) == 1 and at in outcomes:
            return 0.0  # a move that surely leads nowhere is never better than the others
        total = 0.0
        for to, left in outcomes.items():
            if self._steps.get(to) == 0:
                total += left.bit_count() * (1 - 0.1 * (turn + 1) / turns)
            elif to in self._steps:
                total += left.bit_count() * self._value(to, left, turn + 1, turns)[0]
        return total / belief.bit_count()
