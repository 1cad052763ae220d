"""The environment of one chore in a house."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codots.core.templates import Prompts
from codots.domains.base import Step
from codots.domains.bridges.textworld.house import CARRIED, Chore, Fact, House, Way, exits
from codots.domains.bridges.textworld.upstream import Size, open_game, plain_facts
from codots.domains.family import action

render = Prompts(__package__)


@dataclass(frozen=True)
class View:
    """The public state of a task: what is visible from the current room."""

    chore: Chore
    room: str
    ways: tuple[tuple[str, Way], ...]
    """Exits by direction, without their destinations."""
    furniture: tuple[str, ...]
    """Furniture in the room."""
    things: tuple[tuple[str, str], ...]
    """Visible and carried things, each with its holder."""
    shut: tuple[str, ...]
    """Closed doors and furniture in the room."""
    commands: tuple[str, ...]
    turn: int
    """Commands used so far."""


def look(facts: set[Fact], chore: Chore, commands: list[str], turn: int) -> View:
    """Return the view of a task: what is visible of all facts."""
    room = next(fact[2] for fact in facts if fact[:2] == ("at", "P"))
    ways = exits(facts, room)
    furniture = {fact[1] for fact in facts if fact[0] == "at" and fact[2] == room and fact[1] != "P"}
    shut = {fact[1] for fact in facts if fact[0] == "closed"}
    reach = {room, CARRIED, *(furniture - shut)}
    held = {fact[1]: fact[2] for fact in facts if fact[0] in ("at", "in", "on") and fact[2] in reach}
    portable = {fact[1] for fact in facts if fact[0] in ("portable",)}
    things = {thing: holder for thing, holder in held.items() if thing in portable}
    here = furniture | {door for _, door in ways.values() if door}
    return View(
        chore,
        room,
        tuple((way, (None, door)) for way, (_, door) in ways.items()),
        tuple(sorted(furniture - portable)),
        tuple(sorted(things.items())),
        tuple(sorted(shut & here)),
        tuple(commands),
        turn,
    )


class HouseEnv:
    """The environment of one chore."""

    def __init__(self, size: Size, house: House, chore: Chore, turns: int) -> None:
        self.house, self.chore, self.turns = house, chore, turns
        self.game = open_game(size, house)
        self.view = self._look(self.game.reset(), 0)

    def _look(self, state: Any, turn: int) -> View:
        self.state = state
        self.facts = plain_facts(state.facts)
        marked = self.facts | {("portable", thing) for thing in self.house.things}
        return look(marked, self.chore, sorted(map(str, state.admissible_commands)), turn)

    def observe(self) -> str:
        """Return the chore, the description of the first room and the valid commands."""
        return f"Task: {self.chore.command}.\n{self._situation(self.state.description)}"

    def step(self, text: str) -> Step:
        """Run the command in the text."""
        words = (action(text) or "").split()
        if not words:
            self.game.close()
            feedback = "The reply did not hold one command in <action></action>; the task is lost."
            return Step("", 0.0, True, feedback, "malformed", self.view)
        command = {known.lower(): known for known in self.view.commands}.get(" ".join(words).lower())
        turn = self.view.turn + 1
        message = "That cannot be done here."
        if command is not None:  # the game also runs commands such as `save`, so pass only the valid ones
            state, _, _ = self.game.step(command)
            self.view = self._look(state, turn)
            message = str(state.feedback).partition("\n>")[0].strip()
        else:
            self.view = self._look(self.state, turn)
        done = self.chore.goal in self.facts
        if not done and turn < self.turns:
            return Step(self._situation(message), 0.0, False, view=self.view)
        self.game.close()
        feedback = "The task is done." if done else "The commands ran out before the task was done."
        reward = 1 - 0.1 * turn / self.turns if done else 0.0
        return Step(message, reward, True, feedback, "done" if done else "late", self.view)

    def _situation(self, message: str) -> str:
        return render("turn", message=message, view=self.view, turns=self.turns)
