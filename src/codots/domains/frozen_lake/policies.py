"""Reference policies of FrozenLake-Obscure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import permutations

from codots.domains.base import Rng, Step
from codots.domains.frozen_lake.board import DIRECTIONS, Board, Cell, distances, good_directions
from codots.domains.frozen_lake.env import CODES, DEFAULT, Dials, Mapping, View, write_code
from codots.domains.frozen_lake.notes import Claim, read_claims, write_claim

MAPPINGS: tuple[Mapping, ...] = tuple(permutations(DEFAULT))
"""All mappings. A belief is a set of possibly true mappings, stored as an int with one bit per mapping."""
MEANS = [
    {
        direction: sum(1 << k for k, mapping in enumerate(MAPPINGS) if mapping[i] == direction)
        for direction in DIRECTIONS
    }
    for i in range(len(CODES))
]
"""MEANS[code][direction]: bitmask of the mappings in which the code has that direction."""


def known(belief: list[Mapping], code: str) -> str | None:
    """Return the direction that all mappings assign to a code, or None if they differ."""
    directions = {mapping[CODES.index(code)] for mapping in belief}
    return directions.pop() if len(directions) == 1 else None


def belief_in(mappings: Iterable[Mapping]) -> int:
    """Return the belief that contains exactly these mappings."""
    return sum(1 << MAPPINGS.index(mapping) for mapping in mappings)


@cache
def representatives(belief: int) -> tuple[int, ...]:
    """Return the first interchangeable code for each code.

    Two codes are interchangeable if swapping them leaves the belief unchanged. Such codes have the same value.
    """
    possible = {mapping for k, mapping in enumerate(MAPPINGS) if belief >> k & 1}

    def interchangeable(i: int, j: int) -> bool:
        order = [{i: j, j: i}.get(code, code) for code in range(len(CODES))]
        return {tuple(mapping[code] for code in order) for mapping in possible} == possible

    return tuple(next(i for i in range(j + 1) if interchangeable(i, j)) for j in range(len(CODES)))


Move = tuple[int, Board, Cell, Cell]
"""The index of a code, the board, and the cells before and after the move."""


def agreeing(mappings: Iterable[Mapping], moves: list[Move]) -> list[Mapping]:
    """Return the mappings under which all these moves lead where they led."""
    return [m for m in mappings if all(board.move(before, m[i]) == at for i, board, before, at in moves)]


class Random:
    """Policy that draws codes uniformly.

    If it has read a context, it follows a shortest path, and draws only the codes of directions that are not claimed.
    """

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.claims: list[Claim] | None = None
        self.drawn: list[int] = []
        """The next codes in reverse order. Drawing codes in blocks is faster and yields the same codes."""

    def act(self, view: View) -> str:
        if self.claims is None:
            return write_code(self._draw(), "anywhere", view.style)
        direction = good_directions(view.board, view.at)[0]
        return write_code(claimed_code(self.claims, direction) or self._draw(), direction, view.style)

    def _draw(self) -> str:
        if not self.drawn:
            self.drawn = self.rng.integers(4, size=64).tolist()[::-1]
        return CODES[self.drawn.pop()]

    def end(self, step: Step) -> None:
        """Ignore the outcome; this policy does not learn."""

    def read(self, context: str) -> None:
        """Read which code has which direction."""
        self.claims = read_claims(context)


def claimed_code(claims: list[Claim], direction: str) -> str | None:
    """Return the last code that is claimed to have a direction, or None."""
    return next((code for code, claimed in reversed(claims) if claimed == direction), None)


class Informed:
    """Policy that follows a shortest path under the true mapping."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping

    def act(self, view: View) -> str:
        direction = good_directions(view.board, view.at)[0]
        return write_code(CODES[self.mapping.index(direction)], direction, view.style)

    def end(self, step: Step) -> None:
        """Ignore the outcome; the mapping is already known."""


class Bayes:
    """Policy that maximizes the expected reward of each task exactly, given everything seen in the life.

    If the mapping may change, the policy is a heuristic. It expects no change, but keeps only what the current task has
    shown as soon as no mapping agrees with everything seen, and no claim as soon as one of them is contradicted.
    """

    def __init__(self, dials: Dials) -> None:
        self.mappings = list(dials.mappings)
        """The mappings that agree with everything seen."""
        self.claims: list[Claim] = []
        self.dials = dials
        self._seen: list[Move] = []
        """The moves of this task."""
        self._plan: dict[tuple[Cell, int, int], tuple[float, list[int]]] = {}
        self._board: Board | None = None
        self._moves: dict[Cell, dict[str, Cell]] = {}
        """Cell that a move leads to, by start cell and direction."""
        self._steps: dict[Cell, int] = {}
        """Number of steps from each cell to the goal."""

    def act(self, view: View) -> str:
        self.observe(view)
        belief = self.belief
        code = self.best(view, belief)[0]
        return write_code(CODES[code], known(belief, CODES[code]) or "anywhere", view.style)

    @property
    def belief(self) -> list[Mapping]:
        """The mappings that agree with everything seen and with the claims read.

        Claims are applied in order. A claim that excludes all remaining mappings is ignored.
        """
        belief = self.mappings
        for code, direction in self.claims:
            belief = [m for m in belief if m[CODES.index(code)] == direction] or belief
        return belief

    def best(self, view: View, belief: list[Mapping]) -> list[int]:
        """Return the indices of the codes with the highest expected reward."""
        if (board := view.board) != self._board:
            self._board, self._plan, self._steps = board, {}, distances(board)
            self._moves = {at: {d: board.move(at, d) for d in DIRECTIONS} for at in self._steps}
        return self._value(view.at, belief_in(belief), view.turn, view.turns)[1]

    def end(self, step: Step) -> None:
        self.observe(step.view)
        self._seen = []

    def read(self, context: str) -> None:
        """Read which code has which direction."""
        self.claims = read_claims(context)

    def notes(self, style: str) -> dict[str, str]:
        """Return the direction of each code that has only one possible direction."""
        belief = self.belief
        found = {code: known(belief, code) for code in CODES}
        return {code: write_claim(code, direction, style) for code, direction in found.items() if direction}

    def observe(self, view: View) -> None:
        """Drop the mappings that the last move has excluded."""
        if view.code is not None and view.came_from is not None:
            move = (CODES.index(view.code), view.board, view.came_from, view.at)
            self._seen.append(move)
            self.mappings = agreeing(self.mappings, [move])
            if self.dials.change:
                self._notice_change()

    def _notice_change(self) -> None:
        """Forget what can only have been true before a change."""
        self.mappings = self.mappings or agreeing(self.dials.mappings, self._seen)
        if not all(any(m[CODES.index(code)] == d for m in self.mappings) for code, d in self.claims):
            self.claims = []

    def _value(self, at: Cell, belief: int, turn: int, turns: int) -> tuple[float, list[int]]:
        """Return the highest expected reward from this state, and the codes that reach it."""
        steps = self._steps[at]
        if steps > turns - turn:
            return 0.0, list(range(len(CODES)))
        if belief.bit_count() == 1:  # the mapping is known, so a shortest path is optimal and needs no search
            true, moves = MAPPINGS[belief.bit_length() - 1], self._moves[at]
            shorter = [i for i, d in enumerate(true) if self._steps.get(moves[d], steps) < steps]
            return 1 - 0.1 * (turn + steps) / turns, shorter
        key = (at, belief, turn)
        if key not in self._plan:
            firsts = representatives(belief)
            values = {code: self._code_value(at, belief, turn, turns, code) for code in set(firsts)}
            best = max(values.values())
            self._plan[key] = best, [code for code, first in enumerate(firsts) if values[first] > best - 1e-9]
        return self._plan[key]

    def _code_value(self, at: Cell, belief: int, turn: int, turns: int, code: int) -> float:
        outcomes: dict[Cell, int] = {}
        for direction, to in self._moves[at].items():
            if remaining := belief & MEANS[code][direction]:
                outcomes[to] = outcomes.get(to, 0) | remaining
        if len(outcomes) == 1 and at in outcomes:
            return 0.0  # a move that certainly stays in place is never better than another
        total = 0.0
        for to, remaining in outcomes.items():
            if self._steps.get(to) == 0:
                total += remaining.bit_count() * (1 - 0.1 * (turn + 1) / turns)
            elif to in self._steps:
                total += remaining.bit_count() * self._value(to, remaining, turn + 1, turns)[0]
        return total / belief.bit_count()
