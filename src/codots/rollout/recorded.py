"""Recorded lives as teachers: their replies are given again to new environments."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from codots.core.rng import Names
from codots.domains.base import Pack, Step, Task
from codots.domains.registry import make_pack
from codots.rollout.life import Job
from codots.rollout.profile import Profile
from codots.rollout.records import MISSING, Row, has_all_updates, load_rollouts, solves
from codots.rollout.steps import Given, Own


@dataclass
class RecordedPlayer:
    """The recorded replies of one task and of the update after it."""

    replies: list[str]
    update: str
    turn: int = 0

    def act(self, view: Any) -> str:
        """Return the next reply. Raises ValueError if the record has no more."""
        if self.turn == len(self.replies):
            raise ValueError(f"the environment asks for reply {self.turn + 1}, the record ends after {self.turn}")
        self.turn += 1
        return self.replies[self.turn - 1]

    def end(self, step: Step) -> None:
        """Ignore the outcome; the replies are recorded."""

    def rewrite(self) -> str:
        """Return the recorded update."""
        return self.update


@dataclass(frozen=True)
class RecordedLife:
    """A recorded life, which can teach."""

    rows: tuple[Row, ...]

    def player(self, task: Task, context: str, style: str, names: Names) -> RecordedPlayer:
        """Return the player of a task."""
        said = {row.kind: [reply for _, reply in row.turns] for row in self.rows if row.position == task.position}
        return RecordedPlayer(said["solve"], said.get("update", [""])[0])

    @property
    def reward(self) -> float:
        """Mean reward of the tasks."""
        return float(np.mean([row.reward for row in solves(self.rows)]))

    @property
    def size(self) -> int:
        """Number of tasks."""
        return len(solves(self.rows))

    @property
    def pack(self) -> Pack:
        """The pack of the life."""
        domain, preset, split, index = self.rows[0].pack
        return make_pack(str(domain), str(preset), str(split), int(index), self.size)

    def job(self, profile: Profile, names: Names) -> Job:
        """Return the job that lives this life again."""
        strategy, solved = profile.strategy(), solves(self.rows)
        updates = any(row.kind == "update" for row in self.rows)
        contexts = Own(strategy) if updates else Given(strategy, tuple(row.context for row in solved))
        return Job(self.pack, contexts, profile.episode_params(), names, self)


def recorded_lives(path: str, min_reward: float) -> list[RecordedLife]:
    """Return the lives recorded in a run folder or file whose mean reward is at least `min_reward`, in order.

    Lives with a malformed reply, incomplete lives and lives of a held-out split are left out. Raises ValueError if no
    life remains.
    """
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in load_rollouts(path):
        found[(row.step, row.arm, *row.pack, row.life)].append(row)
    lives = [RecordedLife(tuple(rows)) for rows in found.values() if _is_lesson(rows)]
    good = [life for life in lives if life.reward >= min_reward]
    if not good:
        best = f"; the best has {max(life.reward for life in lives):.3g}" if lives else ""
        raise ValueError(
            f"{path} has {len(lives)} complete well-formed lives of the split train, and none with a mean reward of "
            f"{min_reward:g}{best}"
        )
    return good


def _is_lesson(rows: list[Row]) -> bool:
    positions = [row.position for row in solves(rows)]
    return (
        bool(positions)
        and positions == list(range(len(positions)))
        and has_all_updates(rows)
        and all(row.kind != MISSING and row.stop != "malformed" for row in rows)
        and rows[0].pack[2] == "train"
    )
