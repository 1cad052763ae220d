"""Random cost maps and trips, cell names, rook moves, and the cells that moves reveal."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codots.core.rng import digest
from codots.domains.base import Rng

LETTERS = "abcdefghijklmnop"
TOP = 99
"""Maximum cost of a cell."""
UNKNOWN = 255
"""Stored instead of the cost of a cell that has not been seen."""
NAME = re.compile(r"([a-pA-P])([1-9]|1[0-6])")

Cell = int
"""Index of a cell: row * side + column."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ground:
    """The hidden part of a world: a cost map."""

    side: int
    costs: bytes
    """The cost of entering each cell, row by row."""

    @property
    def array(self) -> Ints:
        """The costs as an int64 array of shape (side**2,)."""
        return np.frombuffer(self.costs, dtype=np.uint8).astype(np.int64)


@dataclass(frozen=True)
class Trip:
    """The content of a task: a trip from a start to a goal."""

    side: int
    start: Cell
    goal: Cell
    rounds: int
    """Exact number of moves."""

    @property
    def split(self) -> str:
        """The side, `train` or `held-out`, that a hash of the content assigns to the trip."""
        return "held-out" if digest("trip", self.side, self.start, self.goal, self.rounds) % 4 == 0 else "train"


def name(cell: Cell, side: int) -> str:
    """Return a cell's name: the column letter and the row number."""
    return f"{LETTERS[cell % side]}{cell // side + 1}"


def read_name(word: str, side: int) -> Cell | None:
    """Return the cell with this name, or None if there is no such cell."""
    found = NAME.fullmatch(word)
    if found is None:
        return None
    row, col = int(found[2]) - 1, LETTERS.index(found[1].lower())
    return row * side + col if row < side and col < side else None


def entered_cells(side: int, start: Cell, end: Cell) -> range | None:
    """Return the cells that a rook's move enters, in order and excluding `start`, or None if the move is illegal."""
    if start // side == end // side:
        step = 1
    elif (end - start) % side == 0:
        step = side
    else:
        return None
    step = step if end > start else -step
    return None if start == end else range(start + step, end + step, step)


def around(side: int, entered: range, radius: int) -> list[Cell]:
    """Return the cells within `radius` king's moves of the entered cells."""
    first, last = min(entered), max(entered)
    cols = sorted((first % side, last % side))
    left, right = max(cols[0] - radius, 0), min(cols[1] + radius, side - 1)
    rows = range(max(first // side - radius, 0), min(last // side + radius, side - 1) + 1)
    return [cell for row in rows for cell in range(row * side + left, row * side + right + 1)]


def draw_ground(rng: Rng, side: int, count: int, scale: tuple[float, float]) -> Ground:
    """Draw a cost map of `count` Gaussian hills. The sum of the hills is squared for wide valleys and steep tops."""
    lines = np.linspace(0, 1, side)
    height = np.zeros((side, side))
    for _ in range(count):
        row, col = rng.uniform(0, 1), rng.uniform(0, 1)
        long = rng.uniform(*scale)
        short = rng.uniform(scale[0], long)
        angle, amplitude = rng.uniform(0, np.pi), rng.uniform(0.8, 1.2)
        down, right = lines[:, None] - row, lines[None, :] - col
        along, across = np.cos(angle) * right + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * right
        height += amplitude * np.exp(-0.5 * ((along / long) ** 2 + (across / short) ** 2))
    low, high = height.min(), height.max()
    level = (height - low) / (high - low) if high > low else np.zeros_like(height)
    return Ground(side, np.rint(TOP * level**2).astype(np.uint8).tobytes())


def draw_trip(rng: Rng, side: int, rounds: int) -> Trip:
    """Draw a trip by a random walk of `rounds` moves, which proves that such a route exists."""
    while True:
        start = at = int(rng.integers(side * side))
        for _ in range(rounds):
            row, col = divmod(at, side)
            along_row, to = rng.random() < 0.5, int(rng.integers(side - 1))
            at = row * side + to + (to >= col) if along_row else (to + (to >= row)) * side + col
        if at != start:
            return Trip(side, start, at, rounds)
