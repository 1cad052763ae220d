"""TextWorld: chores in one generated house, as text.

Description:
    `textworld:house` (`pip install 'codots[textworld]'`): a house of several rooms with doors, furniture and things,
    generated and compiled by the package textworld. Each task asks to bring one thing onto or into one piece of
    furniture, and begins with the house in its initial state.
Hidden and shared:
    The house: its map, and the places of furniture and things. It holds for the whole world.
Observation:
    TextWorld's own description of the room or the effect of a command, and the valid commands.
Action:
    Exactly one `<action>go north</action>`. An invalid command costs a turn; it never reaches the game.
Reward:
    1 - 0.1 k/H for doing the chore with command k of H; otherwise 0.
Episode end:
    the chore (`done`), out of commands (`late`), or malformed text.
Presets:
    `easy`, 6 rooms, 10 pieces, 12 commands; `hard`, 9 rooms, 16 pieces, 20 commands. Dials: rooms, pieces, turns, least
    (minimum commands of a chore).
Reference policies:
    `random`, uniform over the valid commands; `informed`, a shortest path by the true plan of the house; `bayes`, an
    adaptive scripted policy, not the optimum: it remembers what it saw in its life, does the chore by a shortest path
    if it can, and otherwise visits the nearest unvisited room or opens the nearest unopened container. The floor is 0,
    the ceiling exact.
Version history:
    Houses are those of the installed textworld: another version may draw others. Game files are compiled once per house
    and kept in `$CODOTS_CACHE`, or in `~/.cache/codots`. Nothing is ever locked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from codots.core.rng import digest, stream
from codots.core.suggest import check_known
from codots.domains.base import Domain, Env, Rng, Task, World
from codots.domains.bridges.textworld.env import HouseEnv, render
from codots.domains.bridges.textworld.house import Chore, House, chores, hides, plan_of, solution
from codots.domains.bridges.textworld.policies import AdaptivePolicy, Informed, Random
from codots.domains.bridges.textworld.upstream import Size, draw_house
from codots.domains.family import Family, Policies
from codots.domains.isolation import isolated
from codots.domains.registry import Bridge

CHORES = 16
"""Minimum number of different chores in a house, so that none repeats soon."""


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    rooms: int
    pieces: int
    """Number of pieces of furniture and things."""
    turns: int
    """Maximum commands of an episode, H."""
    least: int = 4
    """Minimum commands of a chore."""

    @property
    def size(self) -> Size:
        """Size of the houses."""
        return Size(self.rooms, self.pieces)


SPECS = {"house": {"easy": Dials(rooms=6, pieces=10, turns=12), "hard": Dials(rooms=9, pieces=16, turns=20)}}


class TextWorld(Family):
    """The family of chores in a house."""

    chance = False

    def make_world(self, rng: Rng, dials: Dials) -> House:
        """Draw houses until one has enough chores."""
        while True:
            seed, places = rng.integers(1 << 31, size=2).tolist()
            house = draw_house(dials.size, seed, (places,))
            if hides(house) and self._has_chores(house, dials):
                return house

    def _has_chores(self, house: House, dials: Dials) -> bool:
        return len(chores(house, dials.least, dials.turns)) >= CHORES

    def belongs(self, hidden: House, split: str) -> bool:
        """Whether a house may appear in this split; `train` and held-out houses are disjoint."""
        return (digest("textworld", *("|".join(fact) for fact in hidden.facts)) % 2 == 1) == (split == "train")

    def make_task(self, world: World, position: int, rng: Rng) -> Chore:
        """Return the chore at this position of the world's random order."""
        every: tuple[Chore, ...] = chores(world.hidden, world.dials.least, world.dials.turns)
        order: list[int] = stream(*world.names, "chores").permutation(len(every)).tolist()
        return every[order[position % len(every)]]

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        return HouseEnv(task.world.dials.size, task.world.hidden, task.content, task.world.dials.turns)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules as text."""
        return render("rules", style, turns=task.world.dials.turns)

    def policies(self, world: World) -> Policies:
        """Return a constructor for each scripted policy."""
        return {
            "random": lambda: Random(stream(*world.names, "random")),
            "informed": lambda: Informed(world.hidden),
            "bayes": AdaptivePolicy,
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Return the rooms, furniture and things as text."""
        plan = plan_of(world.hidden)
        return render("oracle", style, plan=plan, supporters=world.hidden.supporters)

    def ceiling(self, task: Task) -> float:
        """Return the reward of a shortest solution."""
        commands = solution(task.world.hidden, task.content)
        return 1 - 0.1 * len(commands) / task.world.dials.turns if commands else 0.0

    def twin(self, world: World, rng: Rng) -> World:
        """Draw new places in the same house for all things outside the first room, which is visible at once."""
        before = world.hidden
        while True:
            house = draw_house(world.dials.size, before.seed, (*before.places, int(rng.integers(1 << 31))))
            if (
                house.facts != before.facts
                and self.belongs(house, world.split)
                and self._has_chores(house, world.dials)
            ):
                return replace(world, hidden=house)

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims that a thing is on or in a place; claims about the room of furniture do not count."""
        plan, house = plan_of(world.hidden), world.hidden
        things, places = (_any(names) for names in (house.things, (*plan.room_of, *plan.ways)))
        pattern = rf"\b({things})\b\W{{1,3}}(?:(?:is|lies)\W)?(?:on|in)\W(?:the\W)?({places})\b"
        claims = re.findall(pattern, context, re.I)
        truth = {thing.lower(): holder.lower() for thing, holder in plan.holder.items()}
        right = sum(truth[thing.lower()] == place.lower() for thing, place in claims)
        return right, len(claims) - right, len(house.things)


def _any(names: tuple[str, ...]) -> str:
    """Return a pattern for these names, the longest first."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


def build(spec: str) -> Domain:
    """Build the domain of a kind of house. Raises ValueError if the kind is unknown."""
    check_known(spec, SPECS, "spec of textworld")
    with isolated("textworld", "import"):  # fail here, not in the middle of a life, if the package is missing
        import textworld  # noqa: F401

    return TextWorld(f"textworld:{spec}", spec, SPECS[spec])


bridge = Bridge(build, "textworld:house", "textworld", "codots[textworld]")
