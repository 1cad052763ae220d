"""Updates that finished tasks wait for: those of one world in order, those of several worlds at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

from codots.agent.guard import GUARD, Guard
from codots.agent.model import ServedModel
from codots.agent.quotes import contexts_of, unquoted
from codots.agent.records import ConflictError, StaleError, Task, UnknownError, Version, World
from codots.agent.sql import reason, sa
from codots.agent.store import Store
from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.context.strategies import strategy_of
from codots.core.redact import without_secrets
from codots.core.rng import Names
from codots.core.transcript import StopReason
from codots.rollout.life import reply
from codots.rollout.profile import Profile
from codots.rollout.steps import Episode, UpdateSteps
from codots.sampler.openai import RefusedError

RETRY_SECONDS = 60.0
"""Time until the next try after an update for which the model gave no answer, in seconds."""
log = logging.getLogger("codots")


def stream_names(world: str) -> Names:
    """Return the names of the random streams of a world's episodes, as a `Job` has them."""
    return ("agent", world)


def opened_world(
    store: Store, profile: Profile, world: str, strategy: str | None = None, bounds: tuple[float, float] | None = None
) -> World:
    """Return a world, which is made with these settings, or those of the profile, if it is new.

    Raises ConflictError if it exists with another strategy or other bounds than the given ones.
    """
    profile = profile if strategy is None else replace(profile, update=strategy)
    found = store.create(world, profile.strategy().settings(), bounds or (0.0, 1.0))
    name = strategy_in(store, world).name
    if strategy not in (None, name):
        raise ConflictError(f"the contexts of {world} are of {name}; expected strategy={name!r}")
    if bounds is not None and tuple(bounds) != (found.low, found.high):
        raise ConflictError(f"rewards of {world} are from {found.low:g} to {found.high:g}; expected the same bounds")
    return found


def strategy_in(store: Store, world: str) -> Rewrite:
    """Return the strategy by which the contexts of a world are updated."""
    strategy = strategy_of(store.world(world).strategy)
    assert isinstance(strategy, Rewrite)
    return strategy


class Updater:
    """Runs the updates of worlds with a model, in the model's event loop.

    Several processes may run the updates of one world: the first result counts, and the others are dropped.
    """

    def __init__(self, store: Store, model: ServedModel, guard: Guard | None = GUARD) -> None:
        self.store, self.model, self.guard = store, model, guard
        self.failed: dict[str, str] = {}
        """Error of the last try, by world, where it failed."""
        self.updates = Counter[str]()
        """Number of updates by how they ended: `accepted`, `rejected`, `held`, `dropped` or `failed`."""
        self._due: set[str] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, asyncio.TimerHandle] = {}

    def wake(self, world: str) -> None:
        """Run the due updates of a world in the background."""
        self.model.submit(self._wake(world))

    def wake_all(self) -> None:
        """Run all due updates of the store in the background."""
        for world in self.store.worlds_due():
            self.wake(world)

    def wait(self, world: str, number: int, timeout: float | None = None) -> Version:
        """Return the version that learned from the finish of a number.

        Raises the error of an update that failed; the finish stays due.
        """
        return self.model.call(self.version_after(world, number), timeout)

    async def version_after(self, world: str, number: int) -> Version:
        """Return the version that learned from a finish, when there is one. Runs in the model's event loop."""
        while (found := await asyncio.to_thread(self.store.version_after, world, number)) is None:
            await asyncio.shield(self._run(world))
        return found

    async def idle(self) -> None:
        """Wait until no update is running. Runs in the model's event loop."""
        while self._running:
            await asyncio.wait(self._running.values())

    async def _wake(self, world: str) -> None:
        self._run(world)

    def _run(self, world: str) -> asyncio.Task[None]:
        self._due.add(world)
        if retry := self._retries.pop(world, None):
            retry.cancel()
        if world not in self._running:
            self._running[world] = asyncio.create_task(self._drain(world))
            self._running[world].add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._running[world]

    async def _drain(self, world: str) -> None:
        """Run updates until none is due, whatever is finished meanwhile."""
        try:
            while world in self._due:
                self._due.discard(world)
                while due := await asyncio.to_thread(self.store.due, world):
                    await self._learn(world, *due)
            self.failed.pop(world, None)
        except UnknownError:  # the world was forgotten
            self.failed.pop(world, None)
            raise
        except Exception as error:
            self._retry_later(world, error)
            raise
        finally:
            del self._running[world]

    def _retry_later(self, world: str, error: Exception) -> None:
        if not threading.main_thread().is_alive():
            return  # the program ends; the update runs at the next start
        self.updates["failed"] += 1
        self.failed[world] = described(error)
        log.warning(f"the update of {world} is tried again in {RETRY_SECONDS:g} s: {self.failed[world]}")
        self._retries[world] = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._run, world)

    async def _learn(self, world: str, head: Version, task: Task, trajectory: Trajectory) -> None:
        """Add the version that learns from a task. If the model refuses the prompt, it has the old context."""
        try:
            new = await self._rewritten(world, head, task, trajectory)
        except RefusedError as error:
            if self.model.refuses_all:
                raise
            new = {"context": head.context, "tokens": head.tokens, "failure": str(error)}
        new |= await asyncio.to_thread(self._held, head, new, trajectory)
        known: dict[str, Any] = {"cause": "task", "source": task.name, "model": self.model.name, **new}
        try:
            await asyncio.to_thread(lambda: self.store.append(world, head, **known))
            self.updates["held" if "held" in new else "rejected" if new["failure"] else "accepted"] += 1
        except StaleError:
            self.updates["dropped"] += 1
            log.info(f"{world} has a newer version than {head.number}; the update of {task.name} is dropped")

    def _held(self, head: Version, new: dict[str, Any], said: Trajectory) -> dict[str, Any]:
        """Return what is written instead if the guard holds the new context back: the old one, with the reason."""
        found = self.guard and self.guard.check(head.context, new["context"], said)
        if not found:
            return {}
        held = {"context": new["context"], "tokens": new["tokens"], "reason": found.reason, "passage": found.passage}
        failure = f"held back: {found.reason}"
        return {"context": head.context, "tokens": head.tokens, "failure": failure, "held": held}

    async def _rewritten(self, world: str, head: Version, task: Task, trajectory: Trajectory) -> dict[str, Any]:
        """Return what an update writes into a version.

        It does not read the contexts that the task quotes, and the newer part of a trajectory that is too long.
        """
        strategy = await asyncio.to_thread(strategy_in, self.store, world)
        trajectory = unquoted(await asyncio.to_thread(contexts_of, self.store, task, head), trajectory)
        episode = await self._update(world, head, task, trajectory, strategy)
        while episode.ended == StopReason.FULL and (shorter := newer_half(trajectory)) != trajectory:
            trajectory = shorter
            episode = await self._update(world, head, task, trajectory, strategy)
        written = episode.written or ""
        tokens = len(self.model.render.encode(written))
        return {"context": written, "tokens": tokens, "failure": why_rejected(episode), "episode": asdict(episode)}

    async def _update(
        self, world: str, head: Version, task: Task, trajectory: Trajectory, strategy: Rewrite
    ) -> Episode:
        self.model.ask_again()
        params = self.model.profile.episode_params()
        steps = UpdateSteps(task.number, trajectory, head.context, strategy, params)
        async with self.model.sampler.session((*stream_names(world), task.number, "update")) as session:
            await reply(steps, session, self.model.render)
        return steps.finish()


def described(error: Exception) -> str:
    """Describe in one line, without secrets and what is stored, why an update failed."""
    said = reason(error) if isinstance(error, sa.exc.SQLAlchemyError) else f"{type(error).__name__}: {error}"
    return without_secrets(" ".join(said.split()))


def newer_half(trajectory: Trajectory) -> Trajectory:
    """Return a trajectory that is too long for the model with the newer half of its turns, or of its only turn."""
    turns = trajectory.turns
    if len(turns) > 1:
        return replace(trajectory, turns=turns[-(len(turns) // 2) :])
    halves = tuple(Turn(half(turn.observation), half(turn.reply)) for turn in turns)
    return replace(trajectory, turns=halves, outcome=half(trajectory.outcome), feedback=half(trajectory.feedback))


def half(text: str) -> str:
    """Return the second half of a text."""
    return text[-(len(text) // 2) :] if len(text) > 1 else ""


def why_rejected(episode: Episode) -> str:
    """Return why the context stayed as it was, or an empty text."""
    cut = "" if episode.ended == StopReason.STOP else f" (the reply ended: {episode.ended})"
    return f"{episode.outcome}{cut}" if episode.outcome else ""
