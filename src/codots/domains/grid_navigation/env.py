"""Environment of grid navigation, with observations, action parsing and rewards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from codots.core.templates import Prompts
from codots.domains.base import Step
from codots.domains.family import action
from codots.domains.grid_navigation.ground import (
    LETTERS,
    UNKNOWN,
    Cell,
    Ground,
    Trip,
    around,
    entered_cells,
    name,
    read_name,
)
from codots.domains.grid_navigation.route import Paid, reference_costs

render = Prompts(__package__)


@dataclass(frozen=True)
class Rules:
    """Settings that differ between versions."""

    advice: bool
    """Whether the rules advise to explore early in a life and to exploit later."""
    random_reward: float | None
    """Reward for reaching the goal at the expected mean cost of random moves. The minimum mean cost earns 1.

    If None, the reward is 1 - mean cost / 100 on every trip.
    """
    spread: float
    """Minimum difference, for a trip, between the expected mean cost of random moves and the minimum mean cost."""
    split_trips: bool
    """Whether each trip belongs either to `train` or to the held-out splits."""

    def reward(self, ground: Ground, trip: Trip, mean: float) -> float:
        """Return the reward for reaching the goal at this mean cost."""
        if self.random_reward is None:
            return 1 - mean / 100
        reference = reference_costs(ground, trip)
        excess = (mean - reference.least) / max(reference.random - reference.least, 1e-9)
        return max(0.0, 1 - (1 - self.random_reward) * excess)


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    side: tuple[int, int]
    """Minimum and maximum side length of a grid. Both must be from 3 to 16."""
    hills: int
    """Number of hills."""
    rounds: tuple[int, int]
    """Minimum and maximum number of moves of a trip."""
    scale: tuple[float, float] = (0.15, 0.45)
    """Range of the width of a hill, as a fraction of the grid's side."""
    sight: int = 1
    """Radius in king's moves around entered cells within which costs become visible."""
    memory: Literal["context", "environment"] = "context"
    """What carries the map across the tasks of a life: the context alone, or the environment, which shows it."""


@dataclass(frozen=True)
class View:
    """Public state of an episode."""

    trip: Trip
    at: Cell
    turn: int
    """Number of moves made so far."""
    paid: Paid
    known: bytes
    """The cost of each cell, or UNKNOWN for a cell that has not been seen."""
    style: str

    @property
    def left(self) -> int:
        """Number of moves left."""
        return self.trip.rounds - self.turn


@dataclass
class GridEnv:
    """One episode, which is a single trip."""

    ground: Ground
    trip: Trip
    rules: Rules
    dials: Dials
    style: str
    known: bytearray
    """The costs seen so far. With environment memory, the tasks of a life share this array."""
    view: View = field(init=False)

    def __post_init__(self) -> None:
        self.view = View(self.trip, self.trip.start, 0, Paid(), bytes(self.known), self.style)

    def observe(self) -> str:
        """Return the opening observation: start, goal and known costs."""
        side, known = self.trip.side, self.view.known
        if self.style == "compact":
            seen = _costs(side, known, [cell for cell, cost in enumerate(known) if cost != UNKNOWN])
            return f"at {name(self.trip.start, side)} goal {name(self.trip.goal, side)}{seen}"
        return render("turn", view=self.view, entered=(), grid=draw(self.view), name=self._name)

    def step(self, text: str) -> Step:
        """Make the move named in the text. An illegal move or malformed text ends the episode."""
        to = read_move(text, self.trip.side, self.style)
        before = self.view
        entered = None if to is None else entered_cells(self.trip.side, before.at, to)
        if to is None or entered is None:
            return self._reject(to)
        new = self._reveal(entered)
        total = before.paid.total + sum([self.ground.costs[cell] for cell in entered])
        paid = Paid(total, before.paid.count + len(entered))
        self.view = View(self.trip, to, before.turn + 1, paid, bytes(self.known), self.style)
        observation = self._observation(entered, new)
        return self._finish(observation) if self.view.left == 0 else Step(observation, 0.0, False, view=self.view)

    def _reveal(self, entered: range) -> list[Cell]:
        """Record the costs around the entered cells, and return the cells whose costs were unknown."""
        seen = around(self.trip.side, entered, self.dials.sight)
        new = [cell for cell in seen if self.known[cell] == UNKNOWN]
        for cell in new:
            self.known[cell] = self.ground.costs[cell]
        return new

    def _observation(self, entered: range, new: list[Cell]) -> str:
        side, view = self.trip.side, self.view
        if self.style == "compact":
            costs = _costs(side, view.known, new)
            return f"{name(view.at, side)} {view.turn}/{self.trip.rounds} mean {view.paid.mean:.0f}{costs}"
        return render("turn", view=view, entered=list(map(self._name, entered)), grid=draw(view), name=self._name)

    def _finish(self, observation: str) -> Step:
        view = self.view
        if view.at != self.trip.goal:
            return Step(observation, 0.0, True, self._feedback("missed"), "missed", view)
        reward = self.rules.reward(self.ground, self.trip, view.paid.mean)
        return Step(observation, reward, True, self._feedback("goal"), "goal", view)

    def _reject(self, to: Cell | None) -> Step:
        stop = "malformed" if to is None else "illegal"
        return Step("", 0.0, True, self._feedback(stop, to), stop, self.view)

    def _feedback(self, stop: str, to: Cell | None = None) -> str:
        if self.style == "compact":
            return stop
        return render("feedback", stop=stop, view=self.view, to=to, name=self._name)

    def _name(self, cell: Cell) -> str:
        return name(cell, self.trip.side)


def read_move(text: str, side: int, style: str) -> Cell | None:
    """Return the cell named in a reply, or None if the reply is malformed."""
    if style == "natural":
        return read_name((action(text) or "").strip(), side)
    words = text.rsplit(maxsplit=1)
    return read_name(words[-1], side) if words else None


def write_move(cell: Cell, side: int, style: str) -> str:
    """Return a reply with this move."""
    word = name(cell, side)
    return f"to {word}" if style == "compact" else f"I want to go to {word}. <action>{word}</action>"


def draw(view: View) -> str:
    """Return the grid as text, with the cost of each cell, or `?` if the cost is unknown."""
    side, known = view.trip.side, view.known
    words = ["?" if cost == UNKNOWN else str(cost) for cost in known]
    rows = [[str(row + 1), *words[row * side : (row + 1) * side]] for row in range(side)]
    return "\n".join(" ".join(f"{word:>2}" for word in row) for row in [["", *LETTERS[:side]], *rows])


def _costs(side: int, known: bytes, cells: list[Cell]) -> str:
    return "".join([f" {name(cell, side)}={known[cell]}" for cell in cells])


def rules_text(trip: Trip, rules: Rules, dials: Dials, style: str) -> str:
    """Return the rules of a trip as text."""
    return render("rules", style, trip=trip, rules=rules, dials=dials, last=LETTERS[trip.side - 1])
