"""The lake itself: cells, boards, shortest ways."""

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
    """The content of a task."""

    side: int
    holes: frozenset[Cell]
    start: Cell
    goal: Cell

    def move(self, at: Cell, direction: str) -> Cell:
        """Where a step leads; the edge of the lake holds you back."""
        down, right = DIRECTIONS[direction]
        row, col = at[0] + down, at[1] + right
        return (row, col) if 0 <= row < self.side and 0 <= col < self.side else at

    @property
    def split(self) -> str:
        """The side of the wall that this content falls on."""
        cells = [*sorted(self.holes), self.start, self.goal]
        return "held-out" if digest("board", self.side, *map(name, cells)) % 4 == 0 else "train"


NAMES = {(row, col): f"{letter}{row + 1}" for row in range(26) for col, letter in enumerate(ascii_lowercase)}


def name(cell: Cell) -> str:
    """Name a cell: column letter, row number."""
    return NAMES[cell]


@cache
def plain(side: int) -> tuple[str, ...]:
    """The cells of a lake that is all ice, row by row, each with its mark before its name."""
    return tuple(f"_{name((row, col))}" for row in range(side) for col in range(side))


@lru_cache(maxsize=4096)
def distances(board: Board) -> dict[Cell, int]:
    """Steps to the goal from every cell that can reach it without a hole."""
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
    """The directions that shorten the way."""
    steps = distances(board)
    return [d for d in DIRECTIONS if steps.get(board.move(at, d), 99) < steps[at]]


def quirky_reach(board: Board, depth: int) -> bool:
    """The paper's filter: depth-first, each cell seen once at whatever depth, so some short paths are missed."""
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
