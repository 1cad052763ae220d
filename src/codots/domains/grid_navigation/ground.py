"""The ground itself: cost maps, cells and their names, rook moves and what they show."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codots.core.rng import digest
from codots.domains.base import Rng

LETTERS = "abcdefghijklmnop"
TOP = 99
"""The greatest cost of a cell."""
UNKNOWN = 255
"""Stands for the cost of a cell that was not seen."""
NAME = re.compile(r"([a-pA-P])([1-9]|1[0-6])")

Cell = int
"""Row by row: row * side + column."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ground:
    """What is hidden: the cost of entering each cell."""

    side: int
    costs: bytes
    """Row by row."""

    @property
    def array(self) -> Ints:
        """The costs, to reckon with."""
        return np.frombuffer(self.costs, dtype=np.uint8).astype(np.int64)


@dataclass(frozen=True)
class Trip:
    """The content of a task."""

    side: int
    start: Cell
    goal: Cell
    rounds: int
    """Moves to make, neither more nor fewer."""

    @property
    def split(self) -> str:
        """The side of the wall that this content falls on."""
        return "held-out" if digest("trip", self.side, self.start, self.goal, self.rounds) % 4 == 0 else "train"


def name(cell: Cell, side: int) -> str:
    """Name a cell: column letter, row number."""
    return f"{LETTERS[cell % side]}{cell // side + 1}"


def read_name(word: str, side: int) -> Cell | None:
    """Read a cell's name, None if there is no such cell."""
    found = NAME.fullmatch(word)
    if found is None:
        return None
    row, col = int(found[2]) - 1, LETTERS.index(found[1].lower())
    return row * side + col if row < side and col < side else None


def way(side: int, start: Cell, end: Cell) -> range | None:
    """The cells that a rook's move enters, in order: all but the first; None if it is no move."""
    if start // side == end // side:
        step = 1
    elif (end - start) % side == 0:
        step = side
    else:
        return None
    step = step if end > start else -step
    return None if start == end else range(start + step, end + step, step)


def around(side: int, entered: range, radius: int) -> list[Cell]:
    """The cells within some king's moves of those that were entered."""
    first, last = min(entered), max(entered)
    cols = sorted((first % side, last % side))
    left, right = max(cols[0] - radius, 0), min(cols[1] + radius, side - 1)
    rows = range(max(first // side - radius, 0), min(last // side + radius, side - 1) + 1)
    return [cell for row in rows for cell in range(row * side + left, row * side + right + 1)]


def hills(rng: Rng, side: int, count: int, scale: tuple[float, float]) -> Ground:
    """Draw a ground of round and oblong hills; squaring their sum makes wide valleys and steep tops."""
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


def wander(rng: Rng, side: int, rounds: int) -> Trip:
    """Draw a trip by walking it at random, so that there is a way that takes exactly these rounds."""
    while True:
        start = at = int(rng.integers(side * side))
        for _ in range(rounds):
            row, col = divmod(at, side)
            along_row, to = rng.random() < 0.5, int(rng.integers(side - 1))
            at = row * side + to + (to >= col) if along_row else (to + (to >= row)) * side + col
        if at != start:
            return Trip(side, start, at, rounds)
