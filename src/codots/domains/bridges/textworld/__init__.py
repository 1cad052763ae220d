"""TextWorld: chores in one generated house, played in words.

Description:
    `textworld:house` (`pip install 'codots[textworld]'`): a house of several rooms with doors, furniture and things,
    made and compiled by the package textworld. Each task asks to bring one thing onto or into one piece of furniture,
    and begins with the house as it was.
Hidden and shared:
    The house: how its rooms lie, what stands where, where each thing is. It holds for the whole world.
Observation:
    TextWorld's own words for the room and for what a command did, and the commands that work.
Action:
    Exactly one `<action>go north</action>`. A command that does not work costs a turn; it never reaches the game.
Reward:
    Doing the chore with command k of H gives 1 - 0.1 k/H, anything else 0.
Episode end:
    the chore (`done`), out of commands (`late`), or malformed text.
Presets:
    `easy`, 6 rooms, 10 pieces, 12 commands; `hard`, 9 rooms, 16 pieces, 20 commands. Dials: rooms, pieces, turns, least
    (commands that a chore takes at least).
Reference policies:
    `random`, even over the commands that work; `informed`, a shortest way by the true plan of the house; `bayes`, a
    scripted learner, not the optimum: it remembers what it saw in its life, does what it knows how to do by a shortest
    way, and else goes where it has not been yet, or opens what it has not looked into, nearest first. The floor is 0,
    the ceiling exact.
Version history:
    Houses are those of the installed textworld: another version may draw others. Game files are compiled once a house
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
from codots.domains.bridges.textworld.policies import Informed, Learner, Random
from codots.domains.bridges.textworld.upstream import Size, draw_house
from codots.domains.family import Family, Policies
from codots.domains.isolation import isolated
from codots.domains.registry import Bridge

CHORES = 16
"""Different chores that a house has at least, so that none returns soon."""


@dataclass(frozen=True)
class Dials:
    """What differs between presets."""

    rooms: int
    pieces: int
    """Furniture and things."""
    turns: int
    """Commands of an episode, H."""
    least: int = 4
    """Commands that a chore takes at least."""

    @property
    def size(self) -> Size:
        """How large houses are."""
        return Size(self.rooms, self.pieces)


SPECS = {"house": {"easy": Dials(rooms=6, pieces=10, turns=12), "hard": Dials(rooms=9, pieces=16, turns=20)}}


class TextWorld(Family):
    """Chores in a house."""

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
        """Keep the houses of `train` apart from all others."""
        return (digest("textworld", *("|".join(fact) for fact in hidden.facts)) % 2 == 1) == (split == "train")

    def make_task(self, world: World, position: int, rng: Rng) -> Chore:
        """Give the next of the house's chores, which stand in an order of the world's own."""
        every: tuple[Chore, ...] = chores(world.hidden, world.dials.least, world.dials.turns)
        order: list[int] = stream(*world.names, "chores").permutation(len(every)).tolist()
        return every[order[position % len(every)]]

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Enter the house."""
        return HouseEnv(task.world.dials.size, task.world.hidden, task.content, task.world.dials.turns)

    def rules_text(self, task: Task, style: str) -> str:
        """Say the rules."""
        return render("rules", style, turns=task.world.dials.turns)

    def policies(self, world: World) -> Policies:
        """Say how each scripted player is made."""
        return {
            "random": lambda: Random(stream(*world.names, "random")),
            "informed": lambda: Informed(world.hidden),
            "bayes": Learner,
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Write down the rooms, the furniture and the things."""
        plan = plan_of(world.hidden)
        return render("oracle", style, plan=plan, supporters=world.hidden.supporters)

    def ceiling(self, task: Task) -> float:
        """The reward of a shortest way."""
        way = solution(task.world.hidden, task.content)
        return 1 - 0.1 * len(way) / task.world.dials.turns if way else 0.0

    def twin(self, world: World, rng: Rng) -> World:
        """Put the things of the same house elsewhere, but for those in the first room, which one sees at once."""
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
        """Count claims of the form thing: on or in place; the furniture's own room is not counted."""
        plan, house = plan_of(world.hidden), world.hidden
        things, places = (_any(names) for names in (house.things, (*plan.stands, *plan.ways)))
        said = rf"\b({things})\b\W{{1,3}}(?:(?:is|lies)\W)?(?:on|in)\W(?:the\W)?({places})\b"
        claims = re.findall(said, context, re.I)
        truth = {thing.lower(): holder.lower() for thing, holder in plan.holder.items()}
        right = sum(truth[thing.lower()] == place.lower() for thing, place in claims)
        return right, len(claims) - right, len(house.things)


def _any(names: tuple[str, ...]) -> str:
    """A pattern of these names, the longest first."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


def build(spec: str) -> Domain:
    """Make the domain of a kind of house. Raises ValueError for an unknown one."""
    check_known(spec, SPECS, "spec of textworld")
    with isolated("textworld", "import"):  # what is missing is missing now, and not in the middle of a life
        import textworld  # noqa: F401

    return TextWorld(f"textworld:{spec}", spec, SPECS[spec])


bridge = Bridge(build, "textworld:house", "textworld", "codots[textworld]")
