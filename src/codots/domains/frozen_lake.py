"""FrozenLake-Obscure: cross the ice with four codes whose meaning is hidden.

Description:
    A square lake of ice and holes, a start and a goal. The four actions are opaque codes; which code moves which way
    is hidden, and holds for the whole world.
Hidden and shared:
    A permutation code -> direction. Boards are public and independent of it.
Observation:
    The board and the player's cell, then the effect of each move. Columns are letters, rows are numbers: `b3`.
Action:
    One code. `natural` reads exactly one `<action>3</action>`; `compact` reads the last word: `right 3`.
Reward:
    Reaching the goal at turn k of H gives 1 - 0.1 k/H, anything else 0.
Episode end:
    goal, hole, out of turns (`late`), or malformed text.
Presets:
    `easy`, `hard` (larger boards), `tiny` (tests).
    Dials: side, frozen, path, turns, hidden (how many codes are secret).
Reference policies:
    `random`; `informed`, shortest path under the true mapping; `bayes`, exact maximum of the current task's expected
    reward under the posterior over mappings, given everything seen in the life.
Version history:
    v0: the rules of arXiv 2606.20002: paths of one step, a depth-first filter that refuses some solvable boards, boards
    not split, and the updater is not told what the last move did.
    v1: paths of at least two steps, every board that fits is kept, boards split by content between `train` and
    held-out, and the last move's outcome reaches the updater.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import permutations
from typing import Any

from codots.domain import Domain, Env, Policy, Rng, Step, nearest, register
from codots.pack import Task, World, digest, stream

DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
CODES = ("1", "2", "3", "4")
DEFAULT = ("left", "down", "right", "up")
"""What the codes mean where they are not secret."""

Cell = tuple[int, int]
Mapping = tuple[str, ...]
"""Direction of each code, in the order of CODES."""


@dataclass(frozen=True)
class Rules:
    """What differs between the versions."""

    shortest: int
    """Least number of steps from start to goal."""
    quirky_filter: bool
    """Accept a board by the paper's depth-first search, which misses some short paths."""
    split_boards: bool
    """Whether a board belongs either to `train` or to the held-out splits."""
    last_move_told: bool
    """Whether the updater reads what the last move did."""


@dataclass(frozen=True)
class Dials:
    """What differs between presets."""

    side: tuple[int, int]
    """Least and greatest side of a board."""
    path: int
    """Greatest number of steps from start to goal."""
    turns: int
    """Moves of an episode, H."""
    frozen: tuple[float, float] = (0.6, 0.7)
    """Range of the chance that a cell is ice."""
    hidden: int = 4
    """How many codes are secret: 0, 2, 3 or 4, hence 1, 2, 6 or 24 mappings."""

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """Every mapping that the rules leave possible, equally likely."""
        known = DEFAULT[self.hidden :]
        return tuple(rest + known for rest in permutations(DEFAULT[: self.hidden]))


@dataclass(frozen=True)
class Board:
    """The content of a task."""

    side: int
    holes: frozenset[Cell]
    start: Cell
    goal: Cell

    def move(self, at: Cell, direction: str) -> Cell:
        """Where a step leads; the edge of the lake holds you back."""
        row, col = at[0] + DIRECTIONS[direction][0], at[1] + DIRECTIONS[direction][1]
        return (row, col) if 0 <= row < self.side and 0 <= col < self.side else at

    @property
    def split(self) -> str:
        """The side of the wall that this content falls on."""
        cells = [*sorted(self.holes), self.start, self.goal]
        return "held-out" if digest("board", self.side, *map(name, cells)) % 4 == 0 else "train"


def name(cell: Cell) -> str:
    """Name a cell: column letter, row number."""
    return f"{'abcdefghijklmnopqrstuvwxyz'[cell[1]]}{cell[0] + 1}"


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


@dataclass(frozen=True)
class View:
    """The public state of an episode."""

    board: Board
    at: Cell
    turn: int
    """Moves made so far."""
    turns: int
    style: str
    code: str | None = None
    """The last code."""
    came_from: Cell | None = None


@dataclass
class LakeEnv:
    """One crossing."""

    board: Board
    mapping: Mapping
    rules: Rules
    turns: int
    style: str
    view: View = field(init=False)

    def __post_init__(self) -> None:
        self.view = View(self.board, self.board.start, 0, self.turns, self.style)

    def observe(self) -> str:
        """Show the board."""
        if self.style == "compact":
            return compact_board(self.view)
        return f"Move 1 of {self.turns}.\n{self._situation()}"

    def step(self, text: str) -> Step:
        """Make the move that the text names."""
        code = read_code(text, self.style)
        if code is None:
            word = f"a code {', '.join(CODES)}" + (" in one <action></action>" if self.style == "natural" else "")
            feedback = "malformed" if self.style == "compact" else f"The reply did not hold {word}; the task is lost."
            return Step("", 0.0, True, feedback, "malformed", self.view)
        before = self.view
        at = self.board.move(before.at, self.mapping[CODES.index(code)])
        turn = before.turn + 1
        self.view = View(self.board, at, turn, self.turns, self.style, code, before.at)
        stop = "goal" if at == self.board.goal else "hole" if at in self.board.holes else None
        stop = stop or ("late" if turn == self.turns else None)
        reward = 1 - 0.1 * turn / self.turns if stop == "goal" else 0.0
        told = self._effect(stop) if stop is None or self.rules.last_move_told else ""
        feedback = "" if stop is None else stop if self.style == "compact" else FEEDBACK[stop]
        return Step(told, reward, stop is not None, feedback, stop, self.view)

    def _effect(self, stop: str | None) -> str:
        view = self.view
        assert view.came_from is not None
        moved = direction_of(view.came_from, view.at)
        if self.style == "compact":
            ending = f" {stop}" if stop in ("goal", "hole") else ""
            return f"{name(view.at)} {view.code}={moved or 'stays'}{ending}"
        effect = (
            f"Code {view.code} moved you {moved}, from {name(view.came_from)} to {name(view.at)}."
            if moved
            else f"Code {view.code} left you at {name(view.at)}: the edge of the lake held you back."
        )
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


def direction_of(before: Cell, after: Cell) -> str | None:
    """Name the direction of a step, None if nothing moved."""
    step = (after[0] - before[0], after[1] - before[1])
    return next((d for d, delta in DIRECTIONS.items() if delta == step), None)


def read_code(text: str, style: str) -> str | None:
    """Read the action in a reply, None if it is malformed."""
    if style == "natural":
        if text.count("<action>") != 1 or text.count("</action>") != 1:
            return None
        inside, closed, _ = text.partition("<action>")[2].partition("</action>")
        return inside.strip() if closed and inside.strip() in CODES else None
    words = text.split()
    return words[-1] if words and words[-1] in CODES else None


def write_code(code: str, thought: str, style: str) -> str:
    """Write a reply with this action."""
    return f"{thought} {code}" if style == "compact" else f"I want to go {thought}. <action>{code}</action>"


def draw(view: View) -> str:
    """Draw the lake: P player, G goal, O hole, _ ice."""
    board = view.board
    marks = dict.fromkeys(board.holes, "O") | {board.goal: "G", view.at: "P"}
    rows = [
        f"{row + 1} " + " ".join(marks.get((row, col), "_") for col in range(board.side)) for row in range(board.side)
    ]
    return "\n".join(["  " + " ".join("abcdefghijklmnopqrstuvwxyz"[: board.side]), *rows])


def compact_board(view: View) -> str:
    """Write the lake as one word a cell, and the player's cell after them."""
    board = view.board
    marks = dict.fromkeys(board.holes, "O") | {board.goal: "G"}
    cells = [(row, col) for row in range(board.side) for col in range(board.side)]
    return " ".join(marks.get(cell, "_") + name(cell) for cell in cells) + "\n" + name(view.at)


class Random:
    """Codes drawn evenly."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def act(self, view: View) -> str:
        return write_code(CODES[self.rng.integers(4)], "anywhere", view.style)

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
        self._plan: dict[tuple[Cell, tuple[Mapping, ...], int], tuple[float, int]] = {}
        self._board: Board | None = None

    def act(self, view: View) -> str:
        self._learn(view)
        code = self.best(view, self.mappings)
        direction = {mapping[code] for mapping in self.mappings}
        return write_code(CODES[code], direction.pop() if len(direction) == 1 else "anywhere", view.style)

    def best(self, view: View, belief: list[Mapping]) -> int:
        """The index of the code with the best expected reward, the first of equals."""
        if view.board != self._board:
            self._board, self._plan = view.board, {}
        return self._value(view.board, view.at, tuple(belief), view.turn, view.turns)[1]

    def end(self, step: Step) -> None:
        self._learn(step.view)

    def _learn(self, view: View) -> None:
        if view.code is not None and view.came_from is not None:
            i, board, before = CODES.index(view.code), view.board, view.came_from
            self.mappings = [m for m in self.mappings if board.move(before, m[i]) == view.at]

    def _value(self, board: Board, at: Cell, belief: tuple[Mapping, ...], turn: int, turns: int) -> tuple[float, int]:
        """The best expected reward from here, and the first code that reaches it."""
        if distances(board)[at] > turns - turn:
            return 0.0, 0
        key = (at, belief, turn)
        if key not in self._plan:
            values = [self._code_value(board, at, belief, turn, turns, code) for code in range(len(CODES))]
            best = max(values)
            self._plan[key] = best, values.index(best)
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
            elif to not in board.holes and to in distances(board):
                total += len(left) * self._value(board, to, tuple(left), turn + 1, turns)[0]
        return total / len(belief)


CLAIM = re.compile(r"\b([1-4])\b(?:\W+(?!up\b|down\b|left\b|right\b)[a-z]+){0,4}?\W+(up|down|left|right)\b", re.I)


class FrozenLake(Domain):
    """The family, under one set of rules."""

    styles = ("natural", "compact")
    exact = True

    def __init__(self, id: str, rules: Rules, presets: dict[str, Dials]) -> None:
        self.id = id
        self.rules = rules
        self.presets = presets

    def make_world(self, rng: Rng, dials: Dials) -> Mapping:
        """Draw the mapping."""
        mappings = dials.mappings
        return mappings[rng.integers(len(mappings))]

    def make_task(self, world: World, position: int, rng: Rng) -> Board:
        """Draw boards until one is solvable in the allowed steps and belongs to this split."""
        dials: Dials = world.dials
        side = int(rng.integers(dials.side[0], dials.side[1] + 1))
        frozen = rng.uniform(*dials.frozen)
        while True:
            board = self._board(rng, side, frozen)
            if self._accept(board, dials) and self._on_side(board, world.split):
                return board

    def _board(self, rng: Rng, side: int, frozen: float) -> Board:
        ice = rng.random((side, side)) < frozen
        start, goal = (divmod(int(i), side) for i in rng.choice(side * side, 2, replace=False))
        cells = [(row, col) for row in range(side) for col in range(side)]
        holes = frozenset(cell for cell in cells if not ice[cell] and cell not in (start, goal))
        return Board(side, holes, start, goal)

    def _accept(self, board: Board, dials: Dials) -> bool:
        if self.rules.quirky_filter:
            return quirky_reach(board, dials.path - 1)
        return self.rules.shortest <= distances(board).get(board.start, 99) <= dials.path

    def _on_side(self, board: Board, split: str) -> bool:
        return not self.rules.split_boards or (board.split == "train") == (split == "train")

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open a crossing."""
        if style not in self.styles:
            raise ValueError(nearest(style, list(self.styles), "prompt style"))
        return LakeEnv(task.content, task.world.hidden, self.rules, task.world.dials.turns, style)

    def rules_text(self, task: Task, style: str) -> str:
        """Say the rules."""
        dials: Dials = task.world.dials
        known = dict(zip(CODES[dials.hidden :], DEFAULT[dials.hidden :], strict=True))
        if style == "compact":
            return " ".join([f"lake {dials.turns} moves", *(f"{c}={d}" for c, d in known.items())])
        told = "".join(f" Code {code} moves you {direction}." for code, direction in known.items())
        return RULES.format(turns=dials.turns, known=told)

    def policy(self, name: str, world: World) -> Policy:
        """Give a scripted player."""
        if name == "random":
            return Random(stream(*world.names, "random"))
        if name == "informed":
            return Informed(world.hidden)
        if name == "bayes":
            return Bayes(world.dials)
        raise ValueError(nearest(name, ["random", "informed", "bayes"], "policy"))

    def oracle_context(self, world: World, style: str) -> str:
        """Write the mapping down."""
        facts = zip(CODES, world.hidden, strict=True)
        if style == "compact":
            return " ".join(f"{code}={direction}" for code, direction in facts)
        return "\n".join(f"- code {code} moves you {direction}" for code, direction in facts)

    def floor(self, task: Task) -> float:
        """The expected reward of codes drawn evenly."""
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
        """The reward of a shortest path."""
        board: Board = task.content
        turns: int = task.world.dials.turns
        return 1 - 0.1 * distances(board)[board.start] / turns

    def twin(self, world: World, rng: Rng) -> World:
        """Draw another mapping."""
        others = [m for m in world.dials.mappings if m != world.hidden] or [world.hidden]
        return replace(world, hidden=others[rng.integers(len(others))])

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims of the form code ... direction; a code claimed twice counts twice."""
        claims = [(code, direction.lower()) for code, direction in CLAIM.findall(context)]
        right = sum(world.hidden[CODES.index(code)] == direction for code, direction in claims)
        return right, len(claims) - right, len(CODES)

    def draw(self, view: Any) -> str:
        """Draw the lake."""
        return draw(view)


RULES = """\
You stand on a frozen lake. Walk from your cell to the goal G over ice (_) and keep out of the holes (O), which end the
task. P is you. Columns are letters, rows are numbers from the top. You have {turns} moves.
You move by codes: 1, 2, 3 and 4. Each code always moves you one cell in one direction (up, down, left or right), a
different direction for each code. Which code means which direction is not known beforehand.{known} At the edge of the
lake a move outwards leaves you where you are.
Think briefly, then name one code like this: <action>2</action>"""

V0 = Rules(shortest=1, quirky_filter=True, split_boards=False, last_move_told=False)
V1 = Rules(shortest=2, quirky_filter=False, split_boards=True, last_move_told=True)
EASY = Dials(side=(4, 5), path=7, turns=8)
HARD = Dials(side=(6, 7), path=9, turns=10)
TINY = Dials(side=(3, 3), path=3, turns=5)

register(FrozenLake("frozen-lake-v0", V0, {"easy": EASY, "hard": HARD}))
register(FrozenLake("frozen-lake-v1", V1, {"easy": EASY, "hard": HARD, "tiny": TINY}))
