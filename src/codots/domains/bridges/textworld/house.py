"""Facts and plans of houses, path search and chores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

CARRIED = "I"
"""TextWorld's name for the player as holder of carried things."""
DIRECTIONS = ("north", "east", "south", "west")
Fact = tuple[str, ...]
"""A TextWorld predicate and its arguments, such as ("on", "spoon", "table")."""
Way = tuple[str | None, str | None]
"""Destination of an exit (None if unknown) and door of the exit (None if there is no door)."""


@dataclass(frozen=True)
class House:
    """The initial state of a house, the same for every task."""

    seed: int
    """Seed of the rooms, the things and their names."""
    places: tuple[int, ...]
    """Seeds of the places of things. Each seed after the first moves only things outside the first room."""
    start: str
    """The first room."""
    things: tuple[str, ...]
    """Portable things."""
    supporters: tuple[str, ...]
    containers: tuple[str, ...]
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Chore:
    """The content of a task: bring a thing to a target."""

    thing: str
    target: str
    on: bool
    """Whether the thing goes onto the target (a supporter) or into it (a container)."""

    @property
    def command(self) -> str:
        """The command that completes the chore."""
        return f"put {self.thing} on {self.target}" if self.on else f"insert {self.thing} into {self.target}"

    @property
    def goal(self) -> Fact:
        """The fact that holds once the chore is done."""
        return ("on" if self.on else "in", self.thing, self.target)


@dataclass
class HousePlan:
    """What is known about the initial state of a house."""

    ways: dict[str, dict[str, Way]] = field(default_factory=dict)
    """Exits by room and direction."""
    holder: dict[str, str] = field(default_factory=dict)
    """Room or piece of furniture that holds each thing."""
    room_of: dict[str, str] = field(default_factory=dict)
    """Room of each piece of furniture."""
    shut: set[str] = field(default_factory=set)
    """Closed doors and containers."""


@dataclass(frozen=True)
class State:
    """Progress on a chore."""

    room: str
    held: bool = False
    opened: frozenset[str] = frozenset()


Finish = Callable[[State], str | None]
"""Function that returns the command that ends a search in a state, or None if the search continues."""


def exits(facts: set[Fact], room: str) -> dict[str, Way]:
    """Return the exits of a room by direction."""
    doors = {fact[3]: fact[2] for fact in facts if fact[0] == "link" and fact[1] == room}
    found = {fact[0].removesuffix("_of"): fact[1] for fact in facts if fact[0].endswith("_of") and fact[2] == room}
    return {way: (found[way], doors.get(found[way])) for way in DIRECTIONS if way in found}


@lru_cache(maxsize=256)
def plan_of(house: House) -> HousePlan:
    """Return the full plan of a house."""
    facts, furniture = set(house.facts), {*house.supporters, *house.containers}
    held = {fact[1]: fact[2] for fact in house.facts if fact[0] in ("at", "in", "on")}
    rooms = {fact[1] for fact in facts if fact[0].endswith("_of")}
    return HousePlan(
        ways={room: exits(facts, room) for room in sorted(rooms)},
        holder={thing: held[thing] for thing in house.things},
        room_of={piece: held[piece] for piece in sorted(furniture)},
        shut={fact[1] for fact in facts if fact[0] == "closed"},
    )


def hides(house: House) -> bool:
    """Return whether some thing is outside the first room."""
    room_of = plan_of(house).room_of
    return any(room_of.get(holder, holder) != house.start for holder in plan_of(house).holder.values())


def search(plan: HousePlan, start: State, chore: Chore, finish: Finish) -> list[str] | None:
    """Return a shortest sequence of commands whose last one comes from `finish`, or None if the plan has none."""
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


def _moves(plan: HousePlan, state: State, chore: Chore) -> Iterator[tuple[str, State]]:
    for way, (to, door) in plan.ways.get(state.room, {}).items():
        if door is not None and _is_shut(plan, state, door):
            yield f"open {door}", State(state.room, state.held, state.opened | {door})
        elif to is not None:
            yield f"go {way}", State(to, state.held, state.opened)
    for piece in {plan.holder.get(chore.thing), chore.target}:
        if piece is not None and plan.room_of.get(piece) == state.room and _is_shut(plan, state, piece):
            yield f"open {piece}", State(state.room, state.held, state.opened | {piece})
    take = taking(plan, state, chore)
    if take is not None:
        yield take, State(state.room, True, state.opened)


def _is_shut(plan: HousePlan, state: State, name: str) -> bool:
    return name in plan.shut and name not in state.opened


def taking(plan: HousePlan, state: State, chore: Chore) -> str | None:
    """Return the command that takes the chore's thing, or None if it is out of reach."""
    holder = plan.holder.get(chore.thing)
    if state.held or holder is None:
        return None
    if holder == state.room:
        return f"take {chore.thing}"
    in_reach = plan.room_of.get(holder) == state.room and not _is_shut(plan, state, holder)
    return f"take {chore.thing} from {holder}" if in_reach else None


def doing(plan: HousePlan, chore: Chore) -> Finish:
    """Return a finish function that ends the search where the chore can be completed."""

    def finish(state: State) -> str | None:
        here = plan.room_of.get(chore.target) == state.room
        return chore.command if state.held and here and not _is_shut(plan, state, chore.target) else None

    return finish


def exploring(plan: HousePlan, looked: set[str]) -> Finish:
    """Return a finish function that ends the search at an unexplored exit or an unopened container."""

    def finish(state: State) -> str | None:
        for piece, room in plan.room_of.items():
            if room == state.room and piece not in looked and _is_shut(plan, state, piece):
                return f"open {piece}"
        for way, (to, door) in plan.ways.get(state.room, {}).items():
            if to is None and not (door is not None and _is_shut(plan, state, door)):
                return f"go {way}"
        return None

    return finish


def solution(house: House, chore: Chore) -> list[str] | None:
    """Return a shortest sequence of commands that completes a chore, or None if there is none."""
    plan = plan_of(house)
    return search(plan, State(house.start), chore, doing(plan, chore))


@lru_cache(maxsize=256)
def chores(house: House, least: int, most: int) -> tuple[Chore, ...]:
    """Return all chores of a house whose shortest solution takes `least` to `most` commands."""
    every: list[Any] = [Chore(thing, s, True) for thing in house.things for s in house.supporters]
    every += [Chore(thing, c, False) for thing in house.things for c in house.containers]
    left = [chore for chore in every if chore.goal not in house.facts]
    return tuple(c for c in left if least <= len(solution(house, c) or ()) <= most)
