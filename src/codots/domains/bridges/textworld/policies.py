"""Reference policies for TextWorld."""

from __future__ import annotations

from collections.abc import Sequence

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
from codots.domains.bridges.textworld.notes import SOMEWHERE, Claim, Exit, Lies, Stands, read_claims, write_plan


def write_command(command: str) -> str:
    """Return a reply with this command."""
    return f"<action>{command}</action>"


class Random:
    """Policy that draws uniformly from the valid commands.

    If it has read claims that show how to do the chore, it follows them.
    """

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.claims: list[Claim] = []

    def act(self, view: View) -> str:
        return write_command(self._planned(view) or view.commands[self.rng.integers(len(view.commands))])

    def _planned(self, view: View) -> str | None:
        """Return the next command under the claims and what is visible, or None if they do not suffice."""
        if not self.claims:
            return None
        sight = AdaptivePolicy(self.claims)
        sight.update(view)
        plan = sight.belief
        state = State(view.room, (view.chore.thing, CARRIED) in view.things)
        found = search(plan, state, view.chore, doing(plan, view.chore))
        return found[0] if found and found[0] in view.commands else None

    def end(self, step: Step) -> None:
        """Ignore the outcome."""

    def read(self, context: str) -> None:
        """Read claims about the house."""
        self.claims = read_claims(context)


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
    """Policy that remembers all observations of the life, does the chore if possible, and otherwise explores nearby.

    It takes claims that it has read as known until it sees that they are wrong.
    """

    def __init__(self, claims: Sequence[Claim] = ()) -> None:
        self.plan = HousePlan()
        self.opened = frozenset()
        self.looked: set[str] = set()
        """Furniture that has been seen open."""
        self.went: tuple[str, str] | None = None
        """The room that the last command left and the direction, or None if that command was not a move."""
        self.claims = claims
        self.supporters: set[str] = set()
        """Furniture that can be neither opened nor closed, so that things are on it."""

    def choose(self, view: View, state: State) -> str:
        if view.turn == 0:
            self.went = None
        self.update(view)
        plan = self.belief
        ends = [doing(plan, view.chore), lambda s: taking(plan, s, view.chore)]
        for finish in (*ends, exploring(plan, self.searched)):
            found = search(plan, state, view.chore, finish)
            if found:
                self.went = (view.room, found[0].removeprefix("go ")) if found[0].startswith("go ") else None
                return found[0]
        return "look"

    def end(self, step: Step) -> None:
        self.update(step.view)
        self.went = None

    def read(self, context: str) -> None:
        """Read claims about the house."""
        self.claims = read_claims(context)

    def notes(self, style: str) -> dict[str, str]:
        """Return all exits, furniture and things that are known."""
        on = {claim.place for claim in self.claims if isinstance(claim, Lies) and claim.on}
        return write_plan(self.belief, self.supporters | on, self.searched)

    @property
    def searched(self) -> set[str]:
        """Furniture that has been seen open, or of which this was read."""
        return self.looked | {claim.piece for claim in self.claims if isinstance(claim, Stands) and claim.searched}

    @property
    def belief(self) -> HousePlan:
        """What was seen, and the claims that it does not contradict."""
        if not self.claims:
            return self.plan
        seen, plan = self.plan, HousePlan(shut=set(self.plan.shut))
        for claim in self.claims:
            if isinstance(claim, Exit):
                to = None if claim.to == SOMEWHERE else claim.to
                plan.ways.setdefault(claim.room, {})[claim.way] = (to, claim.door)
            elif isinstance(claim, Stands) and claim.room not in seen.ways and claim.piece not in seen.room_of:
                plan.room_of[claim.piece] = claim.room
                plan.shut |= {claim.piece} if claim.closed else set()
            elif isinstance(claim, Lies) and claim.place not in self.looked | {*seen.ways}:
                plan.holder[claim.thing] = claim.place
        for room, ways in seen.ways.items():
            claimed = plan.ways.get(room, {})
            plan.ways[room] = {way: (to or claimed.get(way, (None, None))[0], door) for way, (to, door) in ways.items()}
        plan.room_of |= seen.room_of
        plan.holder |= seen.holder
        return plan

    def update(self, view: View) -> None:
        """Remember what is visible."""
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
            if not {f"open {piece}", f"close {piece}"} & {*view.commands}:
                self.supporters.add(piece)
        for thing, holder in view.things:
            if holder != CARRIED:
                plan.holder.setdefault(thing, holder)
