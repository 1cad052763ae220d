"""Reference policies for TextWorld."""

from __future__ import annotations

from dataclasses import dataclass

from codots.domains.base import Rng, Step
from codots.domains.bridges.textworld.env import View
from codots.domains.bridges.textworld.house import (
    CARRIED,
    House,
    HousePlan,
    State,
    doing,
    exploring,
    plan_of,
    search,
    taking,
)


def write_command(command: str) -> str:
    """Return a reply with this command."""
    return f"<action>{command}</action>"


@dataclass
class Random:
    """Policy that draws uniformly from the valid commands."""

    rng: Rng

    def act(self, view: View) -> str:
        return write_command(view.commands[self.rng.integers(len(view.commands))])

    def end(self, step: Step) -> None:
        """Ignore the outcome."""


class Informed:
    """Policy that does the chore by a shortest path."""

    def __init__(self, house: House) -> None:
        self.plan = plan_of(house)
        self.opened: frozenset[str] = frozenset()

    def act(self, view: View) -> str:
        if view.turn == 0:
            self.opened = frozenset()
        command = self.choose(view, State(view.room, (view.chore.thing, CARRIED) in view.things, self.opened))
        if command.startswith("open "):
            self.opened |= {command.removeprefix("open ")}
        return write_command(command)

    def choose(self, view: View, state: State) -> str:
        """Return the next command of a shortest path."""
        found = search(self.plan, state, view.chore, doing(self.plan, view.chore))
        return found[0] if found else "look"

    def end(self, step: Step) -> None:
        """Ignore the outcome; the world is already known."""


class AdaptivePolicy(Informed):
    """Policy that remembers all observations of the life, does the chore if possible, and otherwise explores nearby."""

    def __init__(self) -> None:
        self.plan = HousePlan()
        self.opened = frozenset()
        self.looked: set[str] = set()
        """Furniture that has been seen open."""
        self.went: tuple[str, str] | None = None
        """The room that the last command left and the direction, or None if that command was not a move."""

    def choose(self, view: View, state: State) -> str:
        if view.turn == 0:
            self.went = None
        self._update(view)
        ends = [doing(self.plan, view.chore), lambda s: taking(self.plan, s, view.chore)]
        for finish in (*ends, exploring(self.plan, self.looked)):
            found = search(self.plan, state, view.chore, finish)
            if found:
                self.went = (view.room, found[0].removeprefix("go ")) if found[0].startswith("go ") else None
                return found[0]
        return "look"

    def end(self, step: Step) -> None:
        self._update(step.view)
        self.went = None

    def _update(self, view: View) -> None:
        plan = self.plan
        if view.room not in plan.ways:
            plan.ways[view.room] = dict(view.ways)
            plan.shut |= set(view.shut)
        if self.went is not None and self.went[0] != view.room:
            left, way = self.went
            plan.ways[left][way] = (view.room, plan.ways[left][way][1])
        for piece in view.furniture:
            plan.room_of.setdefault(piece, view.room)
            if piece not in view.shut:
                self.looked.add(piece)
        for thing, holder in view.things:
            if holder != CARRIED:
                plan.holder.setdefault(thing, holder)
