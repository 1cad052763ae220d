"""Environment of FrozenLake-Obscure: observations, action parsing, rewards and episode ends."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from codots.domains.base import Step
from codots.domains.family import action
from codots.domains.frozen_lake.board import NAMES, Board, Cell, ice_words, name

CODES = ("1", "2", "3", "4")
DEFAULT = ("left", "down", "right", "up")
"""Direction of each code in standard FrozenLake, in the order of CODES. Codes that are not secret keep it."""

Mapping = tuple[str, ...]
"""Direction of each code, in the order of CODES."""


@dataclass(frozen=True)
class Rules:
    """Settings that differ between versions."""

    shortest: int
    """Minimum number of steps from start to goal. Ignored if `quirky_filter` is true."""
    quirky_filter: bool
    """Whether to filter boards by the paper's depth-first search, which misses some short paths."""
    split_boards: bool
    """Whether each board belongs either to `train` or to the held-out splits."""
    last_move_shown: bool
    """Whether the updater sees the effect of the last move."""
    advice: bool
    """Whether the natural rules say that exploration helps in later tasks."""


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    side: tuple[int, int]
    """Minimum and maximum side length of a board."""
    path: int
    """Maximum number of steps from start to goal."""
    turns: int
    """Maximum number of moves in an episode, H."""
    frozen: tuple[float, float] = (0.6, 0.7)
    """Range of the probability that a cell is ice."""
    hidden: int = 4
    """Number of secret codes: 0, 2, 3 or 4, which leaves 1, 2, 6 or 24 mappings."""
    change: tuple[int, int] | None = None
    """First and last position at which the mapping may change, or None if it never changes."""

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """All possible mappings. They are equally likely."""
        known = DEFAULT[self.hidden :]
        return tuple(rest + known for rest in permutations(DEFAULT[: self.hidden]))


class View(NamedTuple):
    """Public state of an episode. This is a named tuple, because every move creates a view and tuples are cheap."""

    board: Board
    at: Cell
    turn: int
    """Number of moves made so far."""
    turns: int
    style: str
    code: str | None = None
    """The last code, or None before the first move."""
    came_from: Cell | None = None
    """The cell before the last move, or None before the first move."""


class LakeEnv:
    """One episode on a board."""

    def __init__(self, board: Board, mapping: Mapping, rules: Rules, turns: int, style: str) -> None:
        self.board, self.mapping, self.rules, self.turns, self.style = board, mapping, rules, turns, style
        self.view = View(board, board.start, 0, turns, style)

    def observe(self) -> str:
        """Return the opening observation."""
        if self.style == "compact":
            return compact_board(self.view)
        return f"Move 1 of {self.turns}.\n{self._situation()}"

    def step(self, text: str) -> Step:
        """Make the move named in the text. Malformed text ends the episode."""
        code = read_code(text, self.style)
        if code is None:
            return self._malformed()
        board, before, turn = self.board, self.view.at, self.view.turn + 1
        direction = self.mapping[CODES.index(code)]
        at = board.move(before, direction)
        self.view = view = View(board, at, turn, self.turns, self.style, code, before)
        stop = "goal" if at == board.goal else "hole" if at in board.holes else "late" if turn == self.turns else None
        moved = None if at == before else direction
        if stop is None:
            return Step(self._effect(moved, stop), 0.0, False, "", None, view)
        reward = 1 - 0.1 * turn / self.turns if stop == "goal" else 0.0
        observation = self._effect(moved, stop) if self.rules.last_move_shown else ""
        return Step(observation, reward, True, stop if self.style == "compact" else FEEDBACK[stop], stop, view)

    def _malformed(self) -> Step:
        word = f"a code {', '.join(CODES)}" + (" in one <action></action>" if self.style == "natural" else "")
        feedback = "malformed" if self.style == "compact" else f"The reply did not hold {word}; the task is lost."
        return Step("", 0.0, True, feedback, "malformed", self.view)

    def _effect(self, moved: str | None, stop: str | None) -> str:
        view = self.view
        if self.style == "compact":
            ending = f" {stop}" if stop in ("goal", "hole") else ""
            return f"{name(view.at)} {view.code}={moved or 'stays'}{ending}"
        effect = f"Code {view.code} left you at {name(view.at)}: the edge of the lake held you back."
        if moved and view.came_from:
            effect = f"Code {view.code} moved you {moved}, from {name(view.came_from)} to {name(view.at)}."
        if stop:
            return effect
        return f"{effect}\nMove {view.turn + 1} of {self.turns}.\n{self._situation()}"

    def _situation(self) -> str:
        return f"{draw(self.view)}\nYou are at {name(self.view.at)}, the goal is at {name(self.board.goal)}."


FEEDBACK = {
    "goal": "You reached the goal.",
    "hole": "You fell into a hole.",
    "late": "You ran out of moves before the goal.",
}


def read_code(text: str, style: str) -> str | None:
    """Return the code in a reply, or None if the reply is malformed."""
    if style == "natural":
        inside = (action(text) or "").strip()
        return inside if inside in CODES else None
    words = text.split()
    return words[-1] if words and words[-1] in CODES else None


def write_code(code: str, thought: str, style: str) -> str:
    """Return a reply with this code. `thought` is the intended direction."""
    return f"{thought} {code}" if style == "compact" else f"I want to go {thought}. <action>{code}</action>"


def draw(view: View) -> str:
    """Return the board as text: P player, G goal, O hole, _ ice."""
    board = view.board
    marks = dict.fromkeys(board.holes, "O") | {board.goal: "G", view.at: "P"}
    rows = [
        f"{row + 1} " + " ".join(marks.get((row, col), "_") for col in range(board.side)) for row in range(board.side)
    ]
    return "\n".join(["  " + " ".join("abcdefghijklmnopqrstuvwxyz"[: board.side]), *rows])


def compact_board(view: View) -> str:
    """Return the board in compact style: one word per cell, then a line with the player's cell."""
    board, words = view.board, list(ice_words(view.board.side))
    for mark, cells in (("O", board.holes), ("G", (board.goal,))):
        for row, col in cells:
            words[row * board.side + col] = mark + NAMES[row, col]
    return " ".join(words) + "\n" + name(view.at)
