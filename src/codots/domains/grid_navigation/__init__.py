"""Grid navigation: cross the same unknown ground again and again, on ever cheaper cells.

Description:
    A square grid whose cells cost something to enter. A trip of a given number of rook moves has to end on a goal, and
    the lower the mean cost of all cells entered, the better. Costs show only near where one has been.
Hidden and shared:
    The map of costs, 0 to 99: hills, with wide valleys between them. It holds for the whole world. Trips are public.
Observation:
    The costs that were seen, the player's cell, the goal. Columns are letters, rows are numbers: `b3`. `natural` draws
    the grid anew each turn; `compact` lists what is new: `c5=12`.
Action:
    The cell to move to. `natural` reads exactly one `<action>c5</action>`; `compact` reads the last word: `to c5`.
Reward:
    Nothing unless the last move ends on the goal. v0: 1 - mean cost / 100. v1: linear in the mean cost, 1 where it is
    the least possible, 0.5 where it is what aimless moves have in expectation, and never below 0.
Episode end:
    After the last move `goal` or `missed`; at once a move that no rook could make (`illegal`) or malformed text.
Presets:
    v0: `easy`, `hard` (larger, one hill more), `sight` (sees further, narrower hills, longer trips), `wide` (larger
    still, trips of up to ten moves). v1: `easy`, `hard`, `long` (easy but for its trips of six to eight moves),
    `remembered` (easy, but the environment remembers the map and shows it), `tiny` (tests).
    Dials: side, hills, scale, rounds, sight, memory.
Reference policies:
    `random`, even among the moves that keep the goal in reach; `informed`, the exact least mean cost; `bayes`, a
    scripted learner: before each move the exact optimum, with every cost that it has not seen in its life taken for the
    mean of those that it has, and an aimless first move. The optimum under the posterior over maps cannot be computed.
Version history:
    v0: the rules of arXiv 2606.20002: the environment remembers the map over tasks and shows it, whatever the context
    holds; a reward squeezed between 0.7 and 0.93, and on some trips nearly the same whatever one does; trips not split;
    the prompt says when to explore.
    v1: the map is remembered by the context alone unless the dial `memory` is `environment`; each trip is judged by its
    own optimum and by aimless moves, and left out where these are close; trips split by content between `train` and
    held-out; no advice.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from codots.core.rng import stream
from codots.domains.base import Env, Rng, Task, World
from codots.domains.family import Family, Policies
from codots.domains.grid_navigation.env import Dials, GridEnv, Rules, draw, rules_text
from codots.domains.grid_navigation.ground import UNKNOWN, Cell, Ground, Trip, hills, name, read_name, wander
from codots.domains.grid_navigation.policies import Informed, Learner, Random
from codots.domains.grid_navigation.route import ends
from codots.domains.registry import register

CLAIM = re.compile(r"\b([a-p](?:[1-9]|1[0-6]))(?: ?[=:] ?| costs? | is )(\d\d?)\b", re.I | re.A)
CLOSE = 5
"""A claimed cost that is off by no more is right: near enough to plan by."""


class GridNavigation(Family):
    """The family, under one set of rules."""

    rules: Rules
    chance = False
    styles = ("natural", "compact")

    def make_world(self, rng: Rng, dials: Dials) -> Ground:
        """Draw the ground."""
        side = int(rng.integers(dials.side[0], dials.side[1] + 1))
        return hills(rng, side, dials.hills, dials.scale)

    def make_task(self, world: World, position: int, rng: Rng) -> Trip:
        """Draw trips until one belongs to this split and is worth the care."""
        dials: Dials = world.dials
        rounds = int(rng.integers(dials.rounds[0], dials.rounds[1] + 1))
        while True:
            trip = wander(rng, world.hidden.side, rounds)
            if self._on_side(trip, world.split) and self._accept(trip, world.hidden):
                return trip

    def _on_side(self, trip: Trip, split: str) -> bool:
        return not self.rules.split_trips or (trip.split == "train") == (split == "train")

    def side(self, task: Task) -> str | None:
        """The side of the trip."""
        trip: Trip = task.content
        return trip.split if self.rules.split_trips else None

    def _accept(self, trip: Trip, ground: Ground) -> bool:
        if not self.rules.spread:
            return True
        between = ends(ground, trip)
        return between.aimless - between.least >= self.rules.spread

    def make_memory(self, world: World) -> bytearray | None:
        """Keep the costs that were seen, where the environment is to remember them."""
        dials: Dials = world.dials
        return _blank(world.hidden) if dials.memory == "environment" else None

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open a trip."""
        ground: Ground = task.world.hidden
        known = memory if isinstance(memory, bytearray) else _blank(ground)
        return GridEnv(ground, task.content, self.rules, task.world.dials, style, known)

    def rules_text(self, task: Task, style: str) -> str:
        """Say the rules."""
        return rules_text(task.content, self.rules, task.world.dials, style)

    def policies(self, world: World) -> Policies:
        """Say how each scripted player is made."""
        return {
            "random": lambda: Random(stream(*world.names, "random")),
            "informed": lambda: Informed(world.hidden),
            "bayes": lambda: Learner(Random(stream(*world.names, "bayes"))),
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Write the map down, a line for each row."""
        ground: Ground = world.hidden
        cells = [f"{name(cell, ground.side)}={cost}" for cell, cost in enumerate(ground.costs)]
        rows = [" ".join(cells[i : i + ground.side]) for i in range(0, len(cells), ground.side)]
        return " ".join(rows) if style == "compact" else "\n".join(["Costs of entering cells:", *rows])

    def floor(self, task: Task) -> float:
        """The reward of the mean cost that aimless moves to the goal have in expectation."""
        return self.rules.reward(task.world.hidden, task.content, ends(task.world.hidden, task.content).aimless)

    def ceiling(self, task: Task) -> float:
        """The reward of the least mean cost."""
        return self.rules.reward(task.world.hidden, task.content, ends(task.world.hidden, task.content).least)

    def twin(self, world: World, rng: Rng) -> World:
        """Draw another ground of the same side."""
        dials: Dials = world.dials
        return replace(world, hidden=hills(rng, world.hidden.side, dials.hills, dials.scale))

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims of the form cell ... cost; a cell claimed twice counts twice, one off the grid is wrong."""
        ground: Ground = world.hidden
        claims = [(read_name(cell, ground.side), int(cost)) for cell, cost in CLAIM.findall(context)]
        right = sum(cell is not None and abs(ground.costs[cell] - cost) <= CLOSE for cell, cost in claims)
        return right, len(claims) - right, len(ground.costs)

    def draw(self, view: Any) -> str:
        """Draw the grid."""
        return draw(view)


def read_claims(context: str, side: int) -> dict[Cell, int]:
    """The costs that a context claims; of two claims on a cell the later counts."""
    claims = ((read_name(cell, side), int(cost)) for cell, cost in CLAIM.findall(context))
    return {cell: cost for cell, cost in claims if cell is not None}


def _blank(ground: Ground) -> bytearray:
    return bytearray([UNKNOWN]) * len(ground.costs)


V0 = Rules(advice=True, aimless=None, spread=0.0, split_trips=False)
V1 = Rules(advice=False, aimless=0.5, spread=5.0, split_trips=True)
EASY = Dials(side=(8, 12), hills=4, rounds=(3, 5))
HARD = Dials(side=(10, 14), hills=5, rounds=(3, 5))
SIGHT = Dials(side=(8, 12), hills=4, rounds=(4, 6), scale=(0.10, 0.35), sight=2)
WIDE = Dials(side=(12, 16), hills=6, rounds=(6, 10), scale=(0.10, 0.35))
LONG = replace(EASY, rounds=(6, 8))
REMEMBERED = replace(EASY, memory="environment")
TINY = Dials(side=(4, 5), hills=2, rounds=(2, 3))

REFERENCE = {"easy": EASY, "hard": HARD, "sight": SIGHT, "wide": WIDE}
SHOWN = {preset: replace(dials, memory="environment") for preset, dials in REFERENCE.items()}
CARRIED = {"easy": EASY, "hard": HARD, "long": LONG, "remembered": REMEMBERED, "tiny": TINY}

register(GridNavigation("grid-navigation-v0", V0, SHOWN))
register(GridNavigation("grid-navigation-v1", V1, CARRIED))
