"""FrozenLake-Obscure: cross the ice with four codes whose meaning is hidden.

Description:
    A square lake of ice and holes with a start and a goal. The four actions are opaque codes. The direction of each
    code is hidden and fixed for the whole world.
Hidden and shared:
    A permutation that maps codes to directions. Boards are public and independent of it.
Observation:
    The board and the player's cell, then the effect of each move. Columns are letters, rows are numbers: `b3`.
Action:
    One code. `natural` requires exactly one `<action>3</action>`; `compact` takes the last word: `right 3`.
Reward:
    1 - 0.1 k/H for reaching the goal at turn k of H; otherwise 0.
Episode end:
    `goal`, `hole`, `late` (out of turns), or malformed text.
Presets:
    `easy`; `hard` (larger boards, longer paths, more moves). v1 adds `wide` (boards of `hard` with short paths, on
    which the base model learns to read boards), `drift` (`easy` with a mapping that changes once) and `tiny` (tests).
    Dials: side, frozen, path, turns, hidden (how many codes are secret), change.
Reference policies:
    `random` draws codes uniformly. `informed` follows a shortest path under the true mapping. `bayes` maximizes the
    current task's expected reward exactly, under the posterior over mappings given everything seen in the life. In
    `drift` it is a heuristic: it starts anew when what it sees contradicts what it knows.
Version history:
    v0: the rules of arXiv 2606.20002. Some paths have one step, a depth-first filter rejects some solvable boards,
    boards are not split, the updater does not see the effect of the last move, and the natural prompt advises
    exploration.
    v1: paths have at least two steps, every board with a path of allowed length is kept, boards are split by content
    between `train` and held-out, the updater sees the effect of the last move, and there is no advice.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from codots.core.rng import stream
from codots.core.templates import Prompts
from codots.domains.base import Env, Policy, Rng, Task, World
from codots.domains.drift import Drift, holds
from codots.domains.family import Family, Policies
from codots.domains.frozen_lake.board import DIRECTIONS, Board, Cell, distances, quirky_reach
from codots.domains.frozen_lake.env import CODES, DEFAULT, Dials, LakeEnv, Mapping, Rules, draw
from codots.domains.frozen_lake.noisy import LakeNoise, NoisyPolicy
from codots.domains.frozen_lake.notes import read_claims, write_claim
from codots.domains.frozen_lake.policies import Bayes, Informed, Random
from codots.domains.registry import register

render = Prompts(__package__)


class FrozenLake(Family):
    """Domain family: cross the ice with codes whose directions are hidden. Each version has one rule set."""

    rules: Rules
    chance = False
    styles = ("natural", "compact")
    noise = LakeNoise
    exact = True

    def make_world(self, rng: Rng, dials: Dials) -> Mapping | Drift:
        """Draw the mapping, or two of them if it changes."""
        mappings = dials.mappings
        mapping: Mapping | Drift = self.drift(mappings[rng.integers(len(mappings))], dials, rng)
        return mapping

    def make_task(self, world: World, position: int, rng: Rng) -> Board:
        """Draw boards until one is solvable within the allowed steps and belongs to the world's split."""
        dials: Dials = world.dials
        side = int(rng.integers(dials.side[0], dials.side[1] + 1))
        frozen = rng.uniform(*dials.frozen)
        while True:
            board = self._draw_board(rng, side, frozen)
            if self._accept(board, dials) and self._in_split(board, world.split):
                return board

    def _draw_board(self, rng: Rng, side: int, frozen: float) -> Board:
        ice = rng.random((side, side)) < frozen
        start, goal = (divmod(int(i), side) for i in rng.choice(side * side, 2, replace=False))
        cells = [(row, col) for row in range(side) for col in range(side)]
        holes = frozenset(cell for cell in cells if not ice[cell] and cell not in (start, goal))
        return Board(side, holes, start, goal)

    def _accept(self, board: Board, dials: Dials) -> bool:
        if self.rules.quirky_filter:
            return quirky_reach(board, dials.path - 1)
        return self.rules.shortest <= distances(board).get(board.start, 99) <= dials.path

    def _in_split(self, board: Board, split: str) -> bool:
        return not self.rules.split_boards or (board.split == "train") == (split == "train")

    def side(self, task: Task) -> str | None:
        """Return the side, `train` or `held-out`, that the board belongs to, or None if boards are not split."""
        board: Board = task.content
        return board.split if self.rules.split_boards else None

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        return LakeEnv(task.content, task.world.hidden, self.rules, task.world.dials.turns, style)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text."""
        dials: Dials = task.world.dials
        known = list(zip(CODES[dials.hidden :], DEFAULT[dials.hidden :], strict=True))
        return render("rules", style, turns=dials.turns, known=known, drifts=dials.change, advice=self.rules.advice)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        return {
            "random": lambda: Random(stream(*world.names, "random")),
            "informed": lambda: Informed(world.hidden),
            "bayes": lambda: Bayes(world.dials),
        }

    def is_exact(self, preset: str) -> bool:
        """Return whether `bayes` is exact: it is a heuristic if the mapping changes."""
        return self.presets[preset].change is None

    def skilled(self, world: World, noise: LakeNoise, rng: Rng) -> Policy:
        """Return `bayes` with noise on every word."""
        return NoisyPolicy(world.dials, noise, rng)

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return the direction of each code."""
        return {code: write_claim(code, d, style) for code, d in zip(CODES, holds(world.hidden), strict=True)}

    def guess(self, world: World, subject: str, style: str, rng: Rng) -> str:
        """Draw a claim with a uniformly drawn direction."""
        return write_claim(subject, list(DIRECTIONS)[rng.integers(4)], style)

    def floor(self, task: Task) -> float:
        """Return the exact expected reward of drawing codes uniformly."""
        board: Board = task.content
        turns: int = task.world.dials.turns

        @cache
        def value(at: Cell, turn: int) -> float:
            if at == board.goal:
                return 1 - 0.1 * turn / turns
            if at in board.holes or turn == turns:
                return 0.0
            return sum(value(board.move(at, d), turn + 1) for d in DIRECTIONS) / 4

        return value(board.start, 0)

    def ceiling(self, task: Task) -> float:
        """Return the reward of a shortest path."""
        board: Board = task.content
        turns: int = task.world.dials.turns
        return 1 - 0.1 * distances(board)[board.start] / turns

    def twin(self, world: World, rng: Rng) -> World:
        """Return the world with a different mapping, or with the same mapping if no other is possible."""
        mapping = holds(world.hidden)
        others = [m for m in world.dials.mappings if m != mapping] or [mapping]
        other = others[rng.integers(len(others))]
        return replace(world, hidden=self.drift(other, world.dials, rng) if mapping is not world.hidden else other)

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims of the form `code ... direction`. A code claimed twice counts twice."""
        claims, mapping = read_claims(context), holds(world.hidden)
        right = sum(mapping[CODES.index(code)] == direction for code, direction in claims)
        return right, len(claims) - right, len(CODES)

    def draw(self, view: Any) -> str:
        """Return the board as text."""
        return draw(view)


V0 = Rules(shortest=1, quirky_filter=True, split_boards=False, last_move_shown=False, advice=True)
V1 = Rules(shortest=2, quirky_filter=False, split_boards=True, last_move_shown=True, advice=False)
EASY = Dials(side=(4, 5), path=7, turns=8)
HARD = Dials(side=(6, 7), path=9, turns=10)
WIDE = Dials(side=(6, 7), path=5, turns=8)
DRIFT = replace(EASY, change=(2, 5))
TINY = Dials(side=(3, 3), path=3, turns=5)

register(FrozenLake("frozen-lake-v0", V0, {"easy": EASY, "hard": HARD}))
register(FrozenLake("frozen-lake-v1", V1, {"easy": EASY, "hard": HARD, "wide": WIDE, "drift": DRIFT, "tiny": TINY}))
