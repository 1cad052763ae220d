"""Roll out scripted policies: one episode turn by turn, or a whole pack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from codots.domains.base import Domain, Env, Pack, Step, Task

OnTurn = Callable[[Domain, list[tuple[str, Step]]], None]
"""Callback for each turn. It receives the domain and the turns of the episode so far."""


@dataclass(frozen=True)
class Played:
    """Record of one task played by a policy."""

    task: Task
    opening: str
    """The first observation."""
    turns: list[tuple[str, Step]]
    """Each action and its step."""

    @property
    def reward(self) -> float:
        """The reward of the task."""
        return self.turns[-1][1].reward


def turns(env: Env, act: Callable[[Any], str]) -> Iterator[tuple[str, Step]]:
    """Play a task to its end. Yield the text of each action, which `act` returns for the view, and its step."""
    done = False
    while not done:
        text = act(env.view)
        step = env.step(text)
        yield text, step
        done = step.done


def play_pack(
    pack: Pack, policy: str, style: str | None = None, on_turn: OnTurn = lambda domain, turns: None
) -> Iterator[Played]:
    """Yield the tasks of a pack as one scripted policy plays them. `style` defaults to the domain's first style.

    After a success that ends the life, the attempts that are left repeat its record.
    """
    domain, memory = pack.domain, pack.domain.make_memory(pack.world)
    scripted, played = domain.policy(policy, pack.world), None
    for task in pack.tasks:
        if domain.stops and played and played.reward > domain.solved_above:
            played = replace(played, task=task)
            yield played
            continue
        env = task.env(style=style or domain.styles[0], memory=memory)
        played = Played(task, env.observe(), [])
        for turn in turns(env, scripted.act):
            played.turns.append(turn)
            on_turn(domain, played.turns)
        scripted.end(played.turns[-1][1])
        yield played
