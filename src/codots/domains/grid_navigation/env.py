"""One trip: what is shown, what is read, what it pays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from codots.core.templates import Prompts
from codots.domains.base import Step
from codots.domains.family import action
from codots.domains.grid_navigation.ground import LETTERS, UNKNOWN, Cell, Ground, Trip, around, name, read_name, way
from codots.domains.grid_navigation.route import Paid, ends

render = Prompts(__package__)


@dataclass(frozen=True)
class Rules:
    """What differs between the versions."""

    advice: bool
    """Whether the rules tell the player to explore early in a life and to exploit later."""
    aimless: float | None
    """What arriving pays at the mean cost that aimless moves have in expectation, where 1 is for the least possible;
    None pays by the cost alone, whatever the trip."""
    spread: float
    """Least distance between the mean cost of aimless moves and the least one."""
    split_trips: bool
    """Whether a trip belongs either to `train` or to the held-out splits."""

    def reward(self, ground: Ground, trip: Trip, mean: float) -> float:
        """What arriving at this mean cost pays."""
        if self.aimless is None:
            return 1 - mean / 100
        between = ends(ground, trip)
        wasted = (mean - between.least) / max(between.aimless - between.least, 1e-9)
        return max(0.0, 1 - (1 - self.aimless) * wasted)


@dataclass(frozen=True)
class Dials:
    """What differs between presets."""

    side: tuple[int, int]
    """Least and greatest side of a grid; at least 3, at most 16."""
    hills: int
    rounds: tuple[int, int]
    """Least and greatest number of moves of a trip."""
    scale: tuple[float, float] = (0.15, 0.45)
    """Range of the widths of a hill, in sides of the grid."""
    sight: int = 1
    """Within how many king's moves of an entered cell costs are seen."""
    memory: Literal["context", "environment"] = "context"
    """Who carries the map over the tasks of a life: the player's own context, or the environment, which shows it."""


@dataclass(frozen=True)
class View:
    """The public state of an episode."""

    trip: Trip
    at: Cell
    turn: int
    """Moves made so far."""
    paid: Paid
    known: bytes
    """The cost of each cell, UNKNOWN where it was not seen."""
    style: str

    @property
    def left(self) -> int:
        """Moves still to make."""
        return self.trip.rounds - self.turn


@dataclass
class GridEnv:
    """One trip."""

    ground: Ground
    trip: Trip
    rules: Rules
    dials: Dials
    style: str
    known: bytearray
    """What was seen; the environment's memory writes on here, where there is one."""
    view: View = field(init=False)

    def __post_init__(self) -> None:
        self.view = View(self.trip, self.trip.start, 0, Paid(), bytes(self.known), self.style)

    def observe(self) -> str:
        """Show where the trip begins and what is known of the grid."""
        side, known = self.trip.side, self.view.known
        if self.style == "compact":
            seen = _costs(side, known, [cell for cell, cost in enumerate(known) if cost != UNKNOWN])
            return f"at {name(self.trip.start, side)} goal {name(self.trip.goal, side)}{seen}"
        return render("turn", view=self.view, entered=(), grid=draw(self.view), name=self._name)

    def step(self, text: str) -> Step:
        """Make the move that the text names."""
        to = read_move(text, self.trip.side, self.style)
        before = self.view
        entered = None if to is None else way(self.trip.side, before.at, to)
        if to is None or entered is None:
            return self._refuse(to)
        new = self._see(entered)
        total = before.paid.total + sum([self.ground.costs[cell] for cell in entered])
        paid = Paid(total, before.paid.count + len(entered))
        self.view = View(self.trip, to, before.turn + 1, paid, bytes(self.known), self.style)
        told = self._tell(entered, new)
        return self._arrive(told) if self.view.left == 0 else Step(told, 0.0, False, view=self.view)

    def _see(self, entered: range) -> list[Cell]:
        """Look around; give the cells that were not known."""
        seen = around(self.trip.side, entered, self.dials.sight)
        new = [cell for cell in seen if self.known[cell] == UNKNOWN]
        for cell in new:
            self.known[cell] = self.ground.costs[cell]
        return new

    def _tell(self, entered: range, new: list[Cell]) -> str:
        side, view = self.trip.side, self.view
        if self.style == "compact":
            costs = _costs(side, view.known, new)
            return f"{name(view.at, side)} {view.turn}/{self.trip.rounds} mean {view.paid.mean:.0f}{costs}"
        return render("turn", view=view, entered=list(map(self._name, entered)), grid=draw(view), name=self._name)

    def _arrive(self, told: str) -> Step:
        view = self.view
        if view.at != self.trip.goal:
            return Step(told, 0.0, True, self._feedback("missed"), "missed", view)
        reward = self.rules.reward(self.ground, self.trip, view.paid.mean)
        return Step(told, reward, True, self._feedback("goal"), "goal", view)

    def _refuse(self, to: Cell | None) -> Step:
        stop = "malformed" if to is None else "illegal"
        return Step("", 0.0, True, self._feedback(stop, to), stop, self.view)

    def _feedback(self, stop: str, to: Cell | None = None) -> str:
        if self.style == "compact":
            return stop
        return render("feedback", stop=stop, view=self.view, to=to, name=self._name)

    def _name(self, cell: Cell) -> str:
        return name(cell, self.trip.side)


def read_move(text: str, side: int, style: str) -> Cell | None:
    """Read the cell that a reply names, None if it is malformed."""
    if style == "natural":
        return read_name((action(text) or "").strip(), side)
    words = text.rsplit(maxsplit=1)
    return read_name(words[-1], side) if words else None


def write_move(cell: Cell, side: int, style: str) -> str:
    """Write a reply with this move."""
    word = name(cell, side)
    return f"to {word}" if style == "compact" else f"I want to go to {word}. <action>{word}</action>"


def draw(view: View) -> str:
    """Draw the grid: the cost of each cell, ? where it was not seen."""
    side, known = view.trip.side, view.known
    words = ["?" if cost == UNKNOWN else str(cost) for cost in known]
    rows = [[str(row + 1), *words[row * side : (row + 1) * side]] for row in range(side)]
    return "\n".join(" ".join(f"{word:>2}" for word in row) for row in [["", *LETTERS[:side]], *rows])


def _costs(side: int, known: bytes, cells: list[Cell]) -> str:
    return "".join([f" {name(cell, side)}={known[cell]}" for cell in cells])


def rules_text(trip: Trip, rules: Rules, dials: Dials, style: str) -> str:
    """Say the rules of a trip."""
    return render("rules", style, trip=trip, rules=rules, dials=dials, last=LETTERS[trip.side - 1])
