"""The reference policies."""

from __future__ import annotations

from codots.domain import Rng, Step
from codots.domains.frozen_lake.board import Board, Cell, distances, good_directions
from codots.domains.frozen_lake.env import CODES, Dials, Mapping, View, write_code


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
        self._plan: dict[tuple[Cell, tuple[Mapping, ...], int], tuple[float, list[int]]] = {}
        self._board: Board | None = None
        self._steps: dict[Cell, int] = {}
        """Steps from each cell to the goal of the board."""

    def act(self, view: View) -> str:
        self._learn(view)
        code = self.best(view, self.mappings)[0]
        direction = {mapping[code] for mapping in self.mappings}
        return write_code(CODES[code], direction.pop() if len(direction) == 1 else "anywhere", view.style)

    def best(self, view: View, belief: list[Mapping]) -> list[int]:
        """The indices of the codes with the best expected reward."""
        if view.board != self._board:
            self._board, self._plan, self._steps = view.board, {}, distances(view.board)
        return self._value(view.board, view.at, tuple(belief), view.turn, view.turns)[1]

    def end(self, step: Step) -> None:
        self._learn(step.view)

    def _learn(self, view: View) -> None:
        if view.code is not None and view.came_from is not None:
            i, board, before = CODES.index(view.code), view.board, view.came_from
            self.mappings = [m for m in self.mappings if board.move(before, m[i]) == view.at]

    def _value(
        self, board: Board, at: Cell, belief: tuple[Mapping, ...], turn: int, turns: int
    ) -> tuple[float, list[int]]:
        """The best expected reward from here, and the codes that reach it."""
        steps = self._steps[at]
        if steps > turns - turn:
            return 0.0, list(range(len(CODES)))
        if len(belief) == 1:  # nothing left to find out: the shortest way, which spares most of the search
            shorter = [i for i, d in enumerate(belief[0]) if self._steps.get(board.move(at, d), steps) < steps]
            return 1 - 0.1 * (turn + steps) / turns, shorter
        key = (at, belief, turn)
        if key not in self._plan:
            values = [self._code_value(board, at, belief, turn, turns, code) for code in range(len(CODES))]
            best = max(values)
            self._plan[key] = best, [i for i, value in enumerate(values) if value > best - 1e-9]
        return self._plan[key]

    def _code_value(self, board: Board, at: Cell, belief: tuple[Mapping, ...], turn: int, turns: int, i: int) -> float:
        outcomes: dict[Cell, list[Mapping]] = {}
        for mapping in belief:
            outcomes.setdefault(board.move(at, mapping[i]), []).append(mapping)
        if len(outcomes) == 1 and at in outcomes:
            return 0.0  # a move that surely leads nowhere is never better than the others
        total = 0.0
        for to, left in outcomes.items():
            if to == board.goal:
                total += len(left) * (1 - 0.1 * (turn + 1) / turns)
            elif to in self._steps:
                total += len(left) * self._value(board, to, tuple(left), turn + 1, turns)[0]
        return total / len(belief)
