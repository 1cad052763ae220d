"""Rollout of lives: solve a task, update the context, solve the next task; many lives run concurrently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from codots.core.rng import Names
from codots.domains.base import Pack
from codots.domains.teacher import Player, Teacher
from codots.model.renderer import Render
from codots.rollout.environments import Environments, EnvProcesses
from codots.rollout.profile import EpisodeParams
from codots.rollout.steps import Episode, EpisodeKind, Given, LifeSteps, Own, SolveSteps, UpdateSteps, stopped
from codots.sampler.base import FinalError, Sampler, Session
from codots.sampler.budget import SpentError
from codots.sampler.scripted import ScriptedSession

TRIES = 3
"""Maximum number of attempts per life if the infrastructure fails."""


@dataclass(frozen=True)
class Life:
    """One rollout of a pack."""

    names: Names
    episodes: tuple[Episode, ...]
    failure: str | None = None
    """Error that made the whole life missing (lost to an infrastructure failure), or None if the life is complete."""

    def of(self, kind: EpisodeKind) -> list[Episode]:
        """Return the episodes of one kind, in order."""
        return [episode for episode in self.episodes if episode.kind == kind]

    @property
    def contexts(self) -> tuple[str, ...]:
        """Context of each solve."""
        return tuple(episode.context for episode in self.of("solve"))


OnLife = Callable[[int, Life], None]
"""Callback for each life when it ends. It receives the index of the life's job, and the life."""


@dataclass(frozen=True)
class Job:
    """One life to roll out."""

    pack: Pack
    contexts: Own | Given
    params: EpisodeParams
    names: Names
    """Prefix of the names of all random streams of the life."""
    teacher: Teacher | None = None
    """Teacher that replies instead of the model, or None."""


async def rollout(job: Job, sampler: Sampler, render: Render, processes: EnvProcesses | None = None) -> Life:
    """Roll out one life.

    Any exception counts as an infrastructure failure and restarts the life. After TRIES attempts, or a FinalError, the
    whole life is missing. Raises ValueError if there are fewer given contexts than tasks, and SpentError if a limit on
    tokens or money is reached.
    """
    tasks, contexts = job.pack.tasks, job.contexts
    if isinstance(contexts, Given) and len(contexts.contexts) < len(tasks):
        raise ValueError(f"{len(contexts.contexts)} contexts given for {len(tasks)} tasks")
    failure = ""
    for _ in range(TRIES):
        try:
            return Life(job.names, tuple([e async for e in episodes(job, sampler, render, processes)]))
        except SpentError:
            raise
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            if isinstance(error, FinalError):
                break
    return Life(job.names, (), failure)


async def episodes(
    job: Job, sampler: Sampler, render: Render, processes: EnvProcesses | None = None
) -> AsyncGenerator[Episode, None]:
    """Roll out one life once and yield each episode when it ends. An infrastructure failure raises its exception."""
    pack, style, teacher = job.pack, job.params.style, job.teacher
    life, player = LifeSteps(job.contexts, job.params, len(pack.tasks)), None

    def act() -> str:
        return cast(Player, player).act(env.view)

    async with Environments(pack, style, processes, views=teacher is not None) as env:
        for number, task in enumerate(pack.tasks):
            names, rules = (*job.names, task.position), task.domain.rules_text(task, style)
            # The session is open before the environment, since a lockstep sampler waits only for open sessions.
            async with _session(sampler, (*names, "solve"), render, act if teacher else None) as session:
                solve = life.solve(task.position, rules, await env.open(number))
                player = teacher.player(task, solve.context, style, names) if teacher else None
                while not solve.done:
                    step = await env.step(await reply(solve, session, render))
                    solve.observe(step)
            if player:
                player.end(step)
            yield (solved := solve.finish())
            if pack.domain.stops and solved.reward > pack.domain.solved_above:
                for left in pack.tasks[number + 1 :]:
                    yield stopped(solved, left.position)
                return
            if update := life.update(task.domain.reveals_reward, lambda text: len(render.encode(text))):
                async with _session(sampler, (*names, "update"), render, player.rewrite if player else None) as session:
                    await reply(update, session, render)
                yield update.finish()


def _session(sampler: Sampler, names: Names, render: Render, say: Callable[[], str] | None) -> Session:
    """Open the session of an episode. If `say` is given, it replies instead of the model."""
    return sampler.session(names) if say is None else ScriptedSession(render, lambda _: say(), 0)


async def reply(steps: SolveSteps | UpdateSteps, session: Session, render: Render) -> str:
    """Sample the next reply of an episode, and return its text after any thinking."""
    sampled = await session.sample(steps.next_ids(render), steps.sampling)
    return steps.reply(sampled, render.text(sampled.ids))


async def rollouts(
    jobs: Sequence[Job],
    sampler: Sampler,
    render: Render,
    on_life: OnLife = lambda index, life: None,
    room: asyncio.Semaphore | None = None,
    processes: EnvProcesses | None = None,
) -> list[Life]:
    """Roll out lives concurrently and return them in the order of the jobs.

    `on_life` is called for each life when it ends. `room` limits the number of lives that run at the same time, also of
    several calls together. With as many as the sampler serves at once, no life waits in the middle, so that lives end
    all along. Environments of blocking domains are in `processes`; without, their steps run in threads.
    """
    room = room or asyncio.Semaphore(max(1, len(jobs)))

    async def run(index: int, job: Job) -> Life:
        async with room:
            life = await rollout(job, sampler, render, processes)
            on_life(index, life)
        return life

    tasks = [asyncio.ensure_future(run(index, job)) for index, job in enumerate(jobs)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:  # after an exception, end the other lives before the sampler is closed
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
