"""Boards of FrozenLake-Obscure, with cells, moves and shortest paths."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache, lru_cache
from string import ascii_lowercase

from codots.core.rng import digest

DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}

Cell = tuple[int, int]


@dataclass(frozen=True)
class Board:
    """The content of a task: a board with its start and goal."""

    side: int
    holes: frozenset[Cell]
    start: Cell
    goal: Cell

    def move(self, at: Cell, direction: str) -> Cell:
        """Return the cell that a step leads to. A step off the board stays in place."""
        down, right = DIRECTIONS[direction]
        row, col = at[0] + down, at[1] + right
        return (row, col) if 0 <= row < self.side and 0 <= col < self.side else at

    @property
    def split(self) -> str:
        """The side, `train` or `held-out`, that a hash of the content assigns to the board."""
        cells = [*sorted(self.holes), self.start, self.goal]
        return "held-out" if digest("board", self.side, *map(name, cells)) % 4 == 0 else "train"


NAMES = {(row, col): f"{letter}{row + 1}" for row in range(26) for col, letter in enumerate(ascii_lowercase)}


def name(cell: Cell) -> str:
    """Return a cell's name: the column letter and the row number."""
    return NAMES[cell]


@cache
def ice_words(side: int) -> tuple[str, ...]:
    """Return the words of a board of ice in compact style, row by row. Each word is a mark and the name of a cell."""
    return tuple(f"_{name((row, col))}" for row in range(side) for col in range(side))


@lru_cache(maxsize=4096)
def distances(board: Board) -> dict[Cell, int]:
    """Return the number of steps to the goal, for every cell that can reach it without entering a hole."""
    steps, queue = {board.goal: 0}, deque([board.goal])
    while queue:
        at = queue.popleft()
        for direction in DIRECTIONS:
            back = board.move(at, direction)
            if back not in steps and back not in board.holes:
                steps[back] = steps[at] + 1
                queue.append(back)
    return steps


def good_directions(board: Board, at: Cell) -> list[str]:
    """Return the directions that lead closer to the goal."""
    steps = distances(board)
    return [d for d in DIRECTIONS if steps.get(board.move(at, d), 99) < steps[at]]


def quirky_reach(board: Board, depth: int) -> bool:
    """Return whether the paper's depth-first search finds the goal.

    The search visits each cell only once, at the depth of the first visit, so it misses some short paths.
    """
    stack, seen = [(board.start, 0)], set()
    while stack:
        at, deep = stack.pop()
        if at in seen or deep > depth:
            continue
        seen.add(at)
        for direction in DIRECTIONS:
            to = board.move(at, direction)
            if to == board.goal:
                return True
            if to not in board.holes and to not in seen:
                stack.append((to, deep + 1))
    return False
