"""Grid navigation: cross a grid of unknown costs again and again, along cheaper and cheaper routes.

Description:
    A square grid where entering a cell has a cost. A trip has a fixed number of rook moves and must end on the goal.
    The lower the mean cost of all cells entered, the higher the reward. Only costs near visited cells are visible.
Hidden and shared:
    The map of costs, 0 to 99: hills, with wide valleys between them. It is fixed for the whole world. Trips are public.
Observation:
    The costs seen so far, the player's cell and the goal. Columns are letters, rows are numbers: `b3`. `natural` shows
    the whole grid every turn; `compact` lists only new costs: `c5=12`.
Action:
    The cell to move to. `natural` requires exactly one `<action>c5</action>`; `compact` takes the last word: `to c5`.
Reward:
    0 unless the last move ends on the goal. v0: 1 - mean cost / 100. v1: linear in the mean cost, 1 at the minimum,
    0.5 at the expected mean cost of random moves, and never below 0.
Episode end:
    `goal` or `missed` after the last move; `illegal` as soon as a move is not a rook's move; malformed text.
Presets:
    v0: `easy`, `hard` (larger, one more hill), `sight` (sees farther, narrower hills, longer trips), `wide` (larger
    still, trips of up to ten moves). v1: `easy`, `hard`, `long` (`easy` with trips of six to eight moves),
    `remembered` (`easy`, but the environment remembers the map and shows it), `tiny` (tests).
    Dials: side, hills, scale, rounds, sight, memory.
Reference policies:
    `random` draws uniformly among the moves that keep the goal reachable. `informed` takes a route of minimum mean
    cost. `bayes` is an adaptive scripted policy, not the optimum. Before each move it plans the exact optimum, with the
    mean of all costs seen in the life in place of every unseen cost. Its first move is random. The optimum under the
    posterior over maps cannot be computed.
Version history:
    v0: the rules of arXiv 2606.20002. The environment remembers the map across tasks and shows it, whatever the context
    contains. Rewards lie between 0.7 and 0.93, and on some trips hardly depend on the moves. Trips are not split. The
    prompt advises when to explore.
    v1: only the context carries the map, unless the dial `memory` is `environment`. The reward compares each trip with
    its own optimum and with random moves; trips where these are close are excluded. Trips are split by content between
    `train` and held-out. There is no advice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from codots.core.rng import stream
from codots.domains.base import Env, Rng, Task, World
from codots.domains.family import Family, Policies
from codots.domains.grid_navigation.env import Dials, GridEnv, Rules, draw, rules_text
from codots.domains.grid_navigation.ground import TOP, UNKNOWN, Ground, Trip, draw_ground, draw_trip, name, read_name
from codots.domains.grid_navigation.notes import read_claims, write_claim, write_rows
from codots.domains.grid_navigation.policies import AdaptivePolicy, Informed, Random, Reading
from codots.domains.grid_navigation.route import reference_costs
from codots.domains.registry import register

TOLERANCE = 5
"""Maximum error of a claimed cost that counts as right. Such costs are close enough for planning."""


class GridNavigation(Family):
    """Domain family: cross a grid of hidden costs. Each version has one rule set."""

    rules: Rules
    chance = False
    styles = ("natural", "compact")

    def make_world(self, rng: Rng, dials: Dials) -> Ground:
        """Draw the cost map."""
        side = int(rng.integers(dials.side[0], dials.side[1] + 1))
        return draw_ground(rng, side, dials.hills, dials.scale)

    def make_task(self, world: World, position: int, rng: Rng) -> Trip:
        """Draw trips until the rules accept one that belongs to the world's split."""
        dials: Dials = world.dials
        rounds = int(rng.integers(dials.rounds[0], dials.rounds[1] + 1))
        while True:
            trip = draw_trip(rng, world.hidden.side, rounds)
            if self._in_split(trip, world.split) and self._accept(trip, world.hidden):
                return trip

    def _in_split(self, trip: Trip, split: str) -> bool:
        return not self.rules.split_trips or (trip.split == "train") == (split == "train")

    def side(self, task: Task) -> str | None:
        """Return the side, `train` or `held-out`, that the trip belongs to, or None if the rules do not split trips."""
        trip: Trip = task.content
        return trip.split if self.rules.split_trips else None

    def _accept(self, trip: Trip, ground: Ground) -> bool:
        if not self.rules.spread:
            return True
        reference = reference_costs(ground, trip)
        return reference.random - reference.least >= self.rules.spread

    def make_memory(self, world: World) -> bytearray | None:
        """Return a blank map for the life if the environment remembers costs across tasks, otherwise None."""
        dials: Dials = world.dials
        return _blank_map(world.hidden) if dials.memory == "environment" else None

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        ground: Ground = task.world.hidden
        known = memory if isinstance(memory, bytearray) else _blank_map(ground)
        return GridEnv(ground, task.content, self.rules, task.world.dials, style, known)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text."""
        return rules_text(task.content, self.rules, task.world.dials, style)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        side = world.hidden.side
        return {
            "random": lambda: Reading(side, Random(stream(*world.names, "random"))),
            "informed": lambda: Informed(world.hidden),
            "bayes": lambda: AdaptivePolicy(side, Random(stream(*world.names, "bayes"))),
        }

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return the cost of each cell."""
        side = world.hidden.side
        return {name(cell, side): write_claim(cell, cost, side) for cell, cost in enumerate(world.hidden.costs)}

    def guess(self, world: World, subject: str, style: str, rng: Rng) -> str:
        """Draw a cost from 0 to 99, low costs more often, as maps have wide valleys."""
        cell = read_name(subject, world.hidden.side)
        return write_claim(cell or 0, round(TOP * rng.random() ** 2), world.hidden.side)

    def note(self, claims: Iterable[str], style: str) -> str:
        """Return a context that makes these claims. The natural style has one line per row."""
        return super().note(claims, style) if style == "compact" else write_rows(claims)

    def floor(self, task: Task) -> float:
        """Return the reward at the expected mean cost of random moves to the goal."""
        reference = reference_costs(task.world.hidden, task.content)
        return self.rules.reward(task.world.hidden, task.content, reference.random)

    def ceiling(self, task: Task) -> float:
        """Return the reward at the minimum mean cost."""
        reference = reference_costs(task.world.hidden, task.content)
        return self.rules.reward(task.world.hidden, task.content, reference.least)

    def twin(self, world: World, rng: Rng) -> World:
        """Return the world with a different cost map of the same size."""
        dials: Dials = world.dials
        return replace(world, hidden=draw_ground(rng, world.hidden.side, dials.hills, dials.scale))

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims of the form `cell ... cost`. Repeated claims count each time. Cells off the grid are wrong."""
        ground: Ground = world.hidden
        claims = read_claims(context, ground.side)
        right = sum(cell is not None and abs(ground.costs[cell] - cost) <= TOLERANCE for cell, cost in claims)
        return right, len(claims) - right, len(ground.costs)

    def draw(self, view: Any) -> str:
        """Return the grid as text."""
        return draw(view)


def _blank_map(ground: Ground) -> bytearray:
    return bytearray([UNKNOWN]) * len(ground.costs)


V0 = Rules(advice=True, random_reward=None, spread=0.0, split_trips=False)
V1 = Rules(advice=False, random_reward=0.5, spread=5.0, split_trips=True)
EASY = Dials(side=(8, 12), hills=4, rounds=(3, 5))
HARD = Dials(side=(10, 14), hills=5, rounds=(3, 5))
SIGHT = Dials(side=(8, 12), hills=4, rounds=(4, 6), scale=(0.10, 0.35), sight=2)
WIDE = Dials(side=(12, 16), hills=6, rounds=(6, 10), scale=(0.10, 0.35))
LONG = replace(EASY, rounds=(6, 8))
REMEMBERED = replace(EASY, memory="environment")
TINY = Dials(side=(4, 5), hills=2, rounds=(2, 3))

PAPER_PRESETS = {"easy": EASY, "hard": HARD, "sight": SIGHT, "wide": WIDE}
V0_PRESETS = {preset: replace(dials, memory="environment") for preset, dials in PAPER_PRESETS.items()}
V1_PRESETS = {"easy": EASY, "hard": HARD, "long": LONG, "remembered": REMEMBERED, "tiny": TINY}

register(GridNavigation("grid-navigation-v0", V0, V0_PRESETS))
register(GridNavigation("grid-navigation-v1", V1, V1_PRESETS))
