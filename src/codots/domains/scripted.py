"""Scripted policies at play: an episode turn by turn, and a whole life."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from codots.domains.base import Domain, Env, Pack, Step, Task

Seen = Callable[[Domain, list[tuple[str, Step]]], None]
"""Told after each turn: the domain and the turns of the episode so far."""


@dataclass(frozen=True)
class Played:
    """One task that a policy played."""

    task: Task
    opening: str
    """The first observation."""
    line: list[tuple[str, Step]]
    """Each action and the step it led to."""

    @property
    def reward(self) -> float:
        """Reward of the task."""
        return self.line[-1][1].reward


def turns(env: Env, act: Callable[[Any], str]) -> Iterator[tuple[str, Step]]:
    """Play a task to its end: `act` gives the text for a view; yields each text and its step."""
    done = False
    while not done:
        text = act(env.view)
        step = env.step(text)
        yield text, step
        done = step.done


def play_pack(
    pack: Pack, policy: str, style: str | None = None, seen: Seen = lambda domain, line: None
) -> Iterator[Played]:
    """Play a pack task by task with one scripted policy, in the domain's first style unless told otherwise."""
    domain, memory = pack.domain, pack.domain.make_memory(pack.world)
    player = domain.policy(policy, pack.world)
    for task in pack.tasks:
        env = task.env(style=style or domain.styles[0], memory=memory)
        played = Played(task, env.observe(), [])
        for turn in turns(env, player.act):
            played.line.append(turn)
            seen(domain, played.line)
        player.end(played.line[-1][1])
        yield played
