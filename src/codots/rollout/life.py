"""Rollout of lives: solve a task, update the context, solve the next task; many lives run concurrently."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from codots.core.rng import Names
from codots.domains.base import Env, Pack, Step
from codots.domains.teacher import Player, Teacher
from codots.model.renderer import Render
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


async def rollout(job: Job, sampler: Sampler, render: Render) -> Life:
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
            return Life(job.names, tuple([e async for e in episodes(job, sampler, render)]))
        except SpentError:
            raise
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            if isinstance(error, FinalError):
                break
    return Life(job.names, (), failure)


async def episodes(job: Job, sampler: Sampler, render: Render) -> AsyncGenerator[Episode, None]:
    """Roll out one life once and yield each episode when it ends. An infrastructure failure raises its exception."""
    pack, style = job.pack, job.params.style
    life, memory = LifeSteps(job.contexts, job.params, len(pack.tasks)), pack.domain.make_memory(pack.world)
    for number, task in enumerate(pack.tasks, start=1):
        names = (*job.names, task.position)
        env, rules = task.env(style=style, memory=memory), task.domain.rules_text(task, style)
        solve = life.solve(task.position, rules, env.observe())
        player = job.teacher.player(task, solve.context, style, names) if job.teacher else None
        say = partial(_act, player, env) if player else None
        async with _session(sampler, (*names, "solve"), render, say) as session:
            while not solve.done:
                act = partial(env.step, await reply(solve, session, render))
                step = await in_thread(act, task.domain.step_timeout) if task.domain.blocking else act()
                solve.observe(step)
        if player:
            player.end(step)
        yield (solved := solve.finish())
        if pack.domain.stops and solved.reward > pack.domain.solved_above:
            for left in pack.tasks[number:]:
                yield stopped(solved, left.position)
            return
        if update := life.update(task.domain.reveals_reward, lambda text: len(render.encode(text))):
            async with _session(sampler, (*names, "update"), render, player.rewrite if player else None) as session:
                await reply(update, session, render)
            yield update.finish()


def _act(player: Player, env: Env) -> str:
    return player.act(env.view)


def _session(sampler: Sampler, names: Names, render: Render, say: Callable[[], str] | None) -> Session:
    """Open the session of an episode. If `say` is given, it replies instead of the model."""
    return sampler.session(names) if say is None else ScriptedSession(render, lambda _: say(), 0)


async def reply(steps: SolveSteps | UpdateSteps, session: Session, render: Render) -> str:
    """Sample the next reply of an episode, and return its text after any thinking."""
    sampled = await session.sample(steps.next_ids(render), steps.sampling)
    return steps.reply(sampled, render.text(sampled.ids))


async def in_thread(call: Callable[[], Step], seconds: float) -> Step:
    """Run a call in its own thread. After `seconds`, abandon the thread and raise TimeoutError."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Step] = loop.create_future()

    def settle(step: Step | None, error: Exception | None) -> None:
        if done.done():
            return  # timed out
        if step is None:
            done.set_exception(error or RuntimeError("the environment returned no step"))
        else:
            done.set_result(step)

    def work() -> None:
        step = failure = None
        try:
            step = call()
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the loop may be closed
            loop.call_soon_threadsafe(settle, step, failure)

    threading.Thread(target=work, daemon=True).start()
    try:
        return await asyncio.wait_for(done, seconds)
    except TimeoutError as error:
        if done.done() and not done.cancelled():
            raise  # raised by the environment itself
        raise TimeoutError(f"the environment did not answer within {seconds:g} s") from error


async def rollouts(
    jobs: Sequence[Job],
    sampler: Sampler,
    render: Render,
    on_life: OnLife = lambda index, life: None,
    room: asyncio.Semaphore | None = None,
) -> list[Life]:
    """Roll out lives concurrently and return them in the order of the jobs.

    `on_life` is called for each life when it ends. `room` limits the number of lives that run at the same time, also of
    several calls together. With as many as the sampler serves at once, no life waits in the middle, so that lives end
    all along.
    """
    room = room or asyncio.Semaphore(max(1, len(jobs)))

    async def run(index: int, job: Job) -> Life:
        async with room:
            life = await rollout(job, sampler, render)
            on_life(index, life)
        return life

    tasks = [asyncio.ensure_future(run(index, job)) for index, job in enumerate(jobs)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:  # after an exception, end the other lives before the sampler is closed
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
