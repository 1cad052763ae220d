"""A scripted teacher for the compact style, with noise on every decision. The base model is trained to imitate it.

The teacher reads exactly the text that a model reads. Each word it writes is skilled or naive by an independent draw,
so no other word of the life tells whether this one is skilled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import Field

from codots.core.rng import Names, stream
from codots.core.section import Section
from codots.domains.base import Rng
from codots.domains.frozen_lake import CLAIM
from codots.domains.frozen_lake.board import DIRECTIONS, Board, Cell, good_directions
from codots.domains.frozen_lake.env import CODES, DEFAULT, Dials, Mapping, View
from codots.domains.frozen_lake.policies import Bayes

CELL = re.compile(r"([_OG])([a-z])(\d+)")
EFFECT = re.compile(r"^([a-z]\d+) ([1-4])=(up|down|left|right|stays)\b", re.M)


class Noise(Section):
    """Probabilities that control the teacher's decisions; see each field."""

    # A skilled direction comes from the exact optimum, a naive one from a shortest path. Ties go to the first
    # direction, because a model learns a fixed rule faster than random draws and plans more reliably with it.
    thought: float = Field(default=1.0, ge=0, le=1)
    """Probability that the intended direction is optimal."""
    # A naive code trusts the context. If the context claims no code for the intended direction, it is a guess.
    code: float = Field(default=1.0, ge=0, le=1)
    """Probability that the code uses what the episode has shown."""
    habit: float = Field(default=0.7, ge=0, le=1)  # other guesses are uniform draws
    """Probability that a guess uses the code of standard FrozenLake."""
    right: float = Field(default=1.0, ge=0, le=1)
    """Probability that a known fact is written correctly."""
    wrong: float = Field(default=0.0, ge=0, le=1)  # a fact that is neither right nor wrong is omitted
    """Probability that a known fact is written with a random direction."""
    invent: float = Field(default=0.0, ge=0, le=1)
    """Probability that an unknown fact is written with a random direction."""


Fact = tuple[str, str]
"""A code and its direction."""
Effect = tuple[Cell, str, str]
"""The cell that a move led to, the code of the move, and its direction or `stays`."""


def read_cell(text: str) -> Cell:
    """Return the cell with this name."""
    return int(text[1:]) - 1, ord(text[0]) - ord("a")


def read_board(text: str) -> Board:
    """Parse a board in compact style. The line after the board names the player's cell, which becomes the start."""
    marks = {(int(row) - 1, ord(col) - ord("a")): mark for mark, col, row in CELL.findall(text)}
    holes = frozenset(at for at, mark in marks.items() if mark == "O")
    goal = next(at for at, mark in marks.items() if mark == "G")
    start = re.findall(r"^([a-z]\d+)\b", text, re.M)[0]
    return Board(round(len(marks) ** 0.5), holes, read_cell(start), goal)


def read_claims(text: str) -> list[Fact]:
    """Return the facts claimed by the context in a prompt."""
    return [fact for line in re.findall(r"^notes(.*)", text, re.M) for fact in CLAIM.findall(line.split("<|")[0])]


def read_effects(text: str) -> list[Effect]:
    """Return the effects of the moves in a text."""
    return [(read_cell(at), code, effect) for at, code, effect in EFFECT.findall(text)]


def consistent_mappings(board: Board, effects: Iterable[Effect], claims: Iterable[Fact]) -> list[Mapping]:
    """Return the mappings that agree with all effects and, as far as possible, with the claims.

    Claims are applied in order. A claim that excludes all remaining mappings is ignored.
    """
    belief = list(ALL)
    for at, code, effect in effects:
        i = CODES.index(code)
        if effect == "stays":
            belief = [m for m in belief if board.move(at, m[i]) == at]
        else:
            belief = [m for m in belief if m[i] == effect]
    for code, direction in claims:
        kept = [m for m in belief if m[CODES.index(code)] == direction]
        belief = kept or belief
    return belief


ALL = Dials(side=(4, 4), path=1, turns=1).mappings


def known(belief: list[Mapping], code: str) -> str | None:
    """Return the direction that all mappings assign to a code, or None if they differ."""
    directions = {mapping[CODES.index(code)] for mapping in belief}
    return directions.pop() if len(directions) == 1 else None


class Solver:
    """Teacher that solves one task."""

    def __init__(self, noise: Noise, rng: Rng) -> None:
        self.noise, self.rng = noise, rng
        self.board: Board | None = None
        self.effects: list[Effect] = []

    def __call__(self, text: str) -> str:
        if self.board is None:
            self.claims = read_claims(text)
            self.turns = int(re.findall(r"lake (\d+)", text)[0])
            self.board = read_board(text.split("<|user|>")[1])
            self.at = self.board.start
            self.bayes = Bayes(Dials(side=(4, 4), path=1, turns=self.turns))
        else:
            self.effects += read_effects(text.split("<|user|>")[1])
            self.at = self.effects[-1][0]
        belief = consistent_mappings(self.board, self.effects, self.claims)
        thought = self._thought(belief)
        return f"{thought} {self._code(belief, thought)}"

    def _thought(self, belief: list[Mapping]) -> str:
        assert self.board is not None
        shortest = good_directions(self.board, self.at)
        if self.rng.random() >= self.noise.thought:
            return shortest[0]
        view = View(self.board, self.at, len(self.effects), self.turns, "compact")
        best = self.bayes.best(view, belief)
        possible = {mapping[code] for mapping in belief for code in best}
        return next(d for d in (*shortest, *DIRECTIONS) if d in possible)

    def _code(self, belief: list[Mapping], thought: str) -> str:
        if self.rng.random() < self.noise.code:
            return self._choice([c for i, c in enumerate(CODES) if any(m[i] == thought for m in belief)])
        trusted = [code for code, direction in self.claims if direction == thought]
        if trusted:
            return trusted[-1]
        return CODES[DEFAULT.index(thought)] if self.rng.random() < self.noise.habit else self._choice(CODES)

    def _choice(self, words: Iterable[str]) -> str:
        words = list(words)
        return words[self.rng.integers(len(words))]


class Writer:
    """Teacher that rewrites the context once."""

    def __init__(self, noise: Noise, rng: Rng) -> None:
        self.noise, self.rng = noise, rng

    def __call__(self, text: str) -> str:
        belief = consistent_mappings(read_board(text), read_effects(text), read_claims(text))
        facts = [self._fact(code, known(belief, code)) for code in CODES]
        return " ".join(["<context>", *filter(None, facts), "</context>"])

    def _fact(self, code: str, direction: str | None) -> str | None:
        draw, guess = self.rng.random(), list(DIRECTIONS)[self.rng.integers(4)]
        if direction is None:
            return f"{code}={guess}" if draw < self.noise.invent else None
        if draw < self.noise.right:
            return f"{code}={direction}"
        return f"{code}={guess}" if draw < self.noise.right + self.noise.wrong else None


class Teacher:
    """Teacher that solves a task or rewrites a context, depending on the first text of the session."""

    def __init__(self, noise: Noise, names: Names) -> None:
        self.noise, self.rng = noise, stream(*names, "teacher")
        self.role: Solver | Writer | None = None

    def __call__(self, text: str) -> str:
        if self.role is None:
            self.role = (Writer if "rewrite notes" in text else Solver)(self.noise, self.rng)
        return self.role(text)
