"""A house: what is in it, how one finds one's way, and the chores that can be done there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

CARRIED = "I"
"""Who carries a thing, where it is the player."""
DIRECTIONS = ("north", "east", "south", "west")
Fact = tuple[str, ...]
"""A predicate of TextWorld and the names that it holds of, such as ("on", "spoon", "table")."""
Way = tuple[str | None, str | None]
"""Where an exit leads, None as long as one has not been there; its door, None where there is none."""


@dataclass(frozen=True)
class House:
    """One house as it stands at the start of every task."""

    seed: int
    """Of its rooms, its things and their names."""
    places: tuple[int, ...]
    """Of where the things are; the first room is as all but the last of these have it."""
    start: str
    """The room where one starts."""
    things: tuple[str, ...]
    """What can be carried."""
    supporters: tuple[str, ...]
    containers: tuple[str, ...]
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Chore:
    """Bring a thing to where it belongs."""

    thing: str
    target: str
    on: bool
    """Whether it goes onto the target, a supporter, and not into it."""

    @property
    def command(self) -> str:
        """The command that does it."""
        return f"put {self.thing} on {self.target}" if self.on else f"insert {self.thing} into {self.target}"

    @property
    def goal(self) -> Fact:
        """What holds once it is done."""
        return ("on" if self.on else "in", self.thing, self.target)


@dataclass
class Plan:
    """What is known of a house at the start of a task."""

    ways: dict[str, dict[str, Way]] = field(default_factory=dict)
    """By room and direction."""
    holder: dict[str, str] = field(default_factory=dict)
    """A room or a piece of furniture, by thing."""
    stands: dict[str, str] = field(default_factory=dict)
    """A room, by piece of furniture."""
    shut: set[str] = field(default_factory=set)
    """Doors and containers that are closed."""


@dataclass(frozen=True)
class State:
    """How far one is with a chore."""

    room: str
    held: bool = False
    opened: frozenset[str] = frozenset()


Finish = Callable[[State], str | None]
"""Gives the command that ends a search in a state, if there is one."""


def exits(facts: set[Fact], room: str) -> dict[str, Way]:
    """The exits of a room, by direction."""
    doors = {fact[3]: fact[2] for fact in facts if fact[0] == "link" and fact[1] == room}
    found = {fact[0].removesuffix("_of"): fact[1] for fact in facts if fact[0].endswith("_of") and fact[2] == room}
    return {way: (found[way], doors.get(found[way])) for way in DIRECTIONS if way in found}


@lru_cache(maxsize=256)
def plan_of(house: House) -> Plan:
    """All that there is to know of a house."""
    facts, furniture = set(house.facts), {*house.supporters, *house.containers}
    held = {fact[1]: fact[2] for fact in house.facts if fact[0] in ("at", "in", "on")}
    rooms = {fact[1] for fact in facts if fact[0].endswith("_of")}
    return Plan(
        ways={room: exits(facts, room) for room in sorted(rooms)},
        holder={thing: held[thing] for thing in house.things},
        stands={piece: held[piece] for piece in sorted(furniture)},
        shut={fact[1] for fact in facts if fact[0] == "closed"},
    )


def hides(house: House) -> bool:
    """Whether anything lies outside the room where one starts."""
    stands = plan_of(house).stands
    return any(stands.get(holder, holder) != house.start for holder in plan_of(house).holder.values())


def search(plan: Plan, start: State, chore: Chore, finish: Finish) -> list[str] | None:
    """Find a shortest row of commands to where `finish` gives the last one, None where what is known has none."""
    paths: dict[State, list[str]] = {start: []}
    for state in (queue := [start]):
        last = finish(state)
        if last is not None:
            return [*paths[state], last]
        for command, after in _moves(plan, state, chore):
            if after not in paths:
                paths[after] = [*paths[state], command]
                queue.append(after)
    return None


def _moves(plan: Plan, state: State, chore: Chore) -> Iterator[tuple[str, State]]:
    for way, (to, door) in plan.ways.get(state.room, {}).items():
        if door is not None and _is_shut(plan, state, door):
            yield f"open {door}", State(state.room, state.held, state.opened | {door})
        elif to is not None:
            yield f"go {way}", State(to, state.held, state.opened)
    for piece in {plan.holder.get(chore.thing), chore.target}:
        if piece is not None and plan.stands.get(piece) == state.room and _is_shut(plan, state, piece):
            yield f"open {piece}", State(state.room, state.held, state.opened | {piece})
    take = taking(plan, state, chore)
    if take is not None:
        yield take, State(state.room, True, state.opened)


def _is_shut(plan: Plan, state: State, what: str) -> bool:
    return what in plan.shut and what not in state.opened


def taking(plan: Plan, state: State, chore: Chore) -> str | None:
    """The command that takes the thing of a chore, where it is in reach."""
    holder = plan.holder.get(chore.thing)
    if state.held or holder is None:
        return None
    if holder == state.room:
        return f"take {chore.thing}"
    in_reach = plan.stands.get(holder) == state.room and not _is_shut(plan, state, holder)
    return f"take {chore.thing} from {holder}" if in_reach else None


def doing(plan: Plan, chore: Chore) -> Finish:
    """Ends a search where the chore can be done."""

    def finish(state: State) -> str | None:
        here = plan.stands.get(chore.target) == state.room
        return chore.command if state.held and here and not _is_shut(plan, state, chore.target) else None

    return finish


def exploring(plan: Plan, looked: set[str]) -> Finish:
    """Ends a search where there is an exit that leads to nobody knows where, or a container not looked into yet."""

    def finish(state: State) -> str | None:
        for piece, room in plan.stands.items():
            if room == state.room and piece not in looked and _is_shut(plan, state, piece):
                return f"open {piece}"
        for way, (to, door) in plan.ways.get(state.room, {}).items():
            if to is None and not (door is not None and _is_shut(plan, state, door)):
                return f"go {way}"
        return None

    return finish


def solution(house: House, chore: Chore) -> list[str] | None:
    """A shortest way to do a chore."""
    plan = plan_of(house)
    return search(plan, State(house.start), chore, doing(plan, chore))


@lru_cache(maxsize=256)
def chores(house: House, least: int, most: int) -> tuple[Chore, ...]:
    """Every chore of a house that takes no fewer and no more commands than given."""
    every: list[Any] = [Chore(thing, s, True) for thing in house.things for s in house.supporters]
    every += [Chore(thing, c, False) for thing in house.things for c in house.containers]
    left = [chore for chore in every if chore.goal not in house.facts]
    return tuple(c for c in left if least <= len(solution(house, c) or ()) <= most)
