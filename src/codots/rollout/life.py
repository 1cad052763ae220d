"""The life: solve a task, rewrite the context, solve the next; many lives at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from codots.context.rewrite import Prompt, Strategy, Trajectory, Turn
from codots.core.rng import Names
from codots.core.transcript import StopReason, Transcript
from codots.domains.base import Env, Pack, Step, Task
from codots.model.renderer import Render
from codots.rollout.profile import Play
from codots.sampler.base import Params, Sampler, Session

Kind = Literal["solve", "update"]
TRIES = 3
"""A life hit by a failure of the infrastructure is tried this often in all."""
FORMAT_PENALTY = 0.1
"""What an update loses whose reply cannot be read (arXiv 2606.20002, table 1)."""


@dataclass(frozen=True)
class Own:
    """A life that writes its own contexts."""

    strategy: Strategy


@dataclass(frozen=True)
class Given:
    """A life that is handed a context for each position, and writes none."""

    strategy: Strategy
    contexts: tuple[str, ...]


@dataclass(frozen=True)
class Episode:
    """One solve or update that was played."""

    kind: Kind
    position: int
    reward: float
    context: str
    """What it was given."""
    written: str | None
    """What an update left behind."""
    stop: str
    """How it ended, in the domain's word; of an update: `ok` or `malformed`."""
    turns: tuple[Turn, ...]
    outcome: str
    """The answer to the last action."""
    transcript: Transcript


@dataclass(frozen=True)
class Life:
    """One rollout of a pack."""

    names: Names
    episodes: tuple[Episode, ...]
    failure: str | None = None
    """Why the life is missing as a whole, None if it is there."""

    def of(self, kind: Kind) -> list[Episode]:
        """The episodes of one kind in order."""
        return [episode for episode in self.episodes if episode.kind == kind]

    @property
    def contexts(self) -> tuple[str, ...]:
        """The context that each solve was given."""
        return tuple(episode.context for episode in self.of("solve"))


async def rollout(
    pack: Pack, sampler: Sampler, render: Render, contexts: Own | Given, play: Play, names: Names
) -> Life:
    """Live one life; a failure of the infrastructure is tried again, then the life is missing as a whole."""
    if isinstance(contexts, Given) and len(contexts.contexts) < len(pack.tasks):
        raise ValueError(f"{len(contexts.contexts)} contexts given for {len(pack.tasks)} tasks")
    failure = ""
    for _ in range(TRIES):
        try:
            return Life(names, tuple([e async for e in _episodes(pack, sampler, render, contexts, play, names)]))
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
    return Life(names, (), failure)


async def _episodes(
    pack: Pack, sampler: Sampler, render: Render, contexts: Own | Given, play: Play, names: Names
) -> AsyncIterator[Episode]:
    strategy = contexts.strategy
    memory = pack.domain.make_memory(pack.world)
    z = strategy.initial()
    for task in pack.tasks:
        j = task.position
        if isinstance(contexts, Given):
            z = contexts.contexts[j]
        env, rules = task.env(style=play.style, memory=memory), task.domain.rules_text(task, play.style)
        async with sampler.session((*names, j, "solve")) as session:
            solved, end = await solve(task, rules, env, session, render, strategy, z, play)
        yield solved
        if isinstance(contexts, Own) and j + 1 < len(pack.tasks):
            reward = solved.reward if task.domain.reveals_reward else None
            trajectory = Trajectory(rules, solved.turns, solved.outcome, reward, end.feedback)
            async with sampler.session((*names, j, "update")) as session:
                updated = await update(j, trajectory, session, render, strategy, z, play)
            yield updated
            z = updated.written or ""


async def solve(
    task: Task, rules: str, env: Env, session: Session, render: Render, strategy: Strategy, z: str, play: Play
) -> tuple[Episode, Step]:
    """Play one task to its end."""
    observation = env.observe()
    prompt = strategy.solve(rules, z, observation, play.style)
    transcript, turns = Transcript(), []
    ids = render.opening(prompt.system, prompt.user)
    while True:
        text, stop = await _answer(session, render, transcript, ids, play.solve)
        turns.append(Turn(observation, text))
        blocking, patience = task.domain.blocking, task.domain.patience
        act = partial(env.step, render.spoken(text))
        step = await in_thread(act, patience) if blocking else act()
        if step.done:
            break
        observation = step.observation
        ids = render.turn(observation, stop)
    ended = step.stop or "done"
    return Episode(
        "solve", task.position, step.reward, z, None, ended, tuple(turns), step.observation, transcript
    ), step


async def in_thread(call: Callable[[], Step], seconds: float) -> Step:
    """Wait for a call in a thread of its own, which is left to itself when it takes too long."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Step] = loop.create_future()

    def settle(step: Step | None, error: Exception | None) -> None:
        if done.done():
            return  # nobody waits any more
        if step is None:
            done.set_exception(error or RuntimeError("the environment gave no step"))
        else:
            done.set_result(step)

    def work() -> None:
        step = failure = None
        try:
            step = call()
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # even the loop may be gone
            loop.call_soon_threadsafe(settle, step, failure)

    threading.Thread(target=work, daemon=True).start()
    try:
        return await asyncio.wait_for(done, seconds)
    except TimeoutError as error:
        if done.done() and not done.cancelled():
            raise  # the environment's own
        raise TimeoutError(f"the environment did not answer within {seconds:g} s") from error


async def update(
    position: int, trajectory: Trajectory, session: Session, render: Render, strategy: Strategy, z: str, play: Play
) -> Episode:
    """Rewrite the context once."""
    prompt: Prompt = strategy.prompt(trajectory, z, play.style)
    transcript = Transcript()
    text, _ = await _answer(session, render, transcript, render.opening(prompt.system, prompt.user), play.update)
    parsed = strategy.parse(render.spoken(text), z)
    reward, stop = (0.0, "ok") if parsed.failure is None else (-FORMAT_PENALTY, "malformed")
    turns = (Turn(prompt.user, text),)
    return Episode("update", position, reward, z, parsed.context, stop, turns, parsed.failure or "", transcript)


async def _answer(
    session: Session, render: Render, transcript: Transcript, ids: list[int], params: Params
) -> tuple[str, StopReason]:
    sampled = await session.sample(ids, params)
    if sampled.stop is not StopReason.FULL or sampled.ids:
        transcript.read(ids)
        transcript.wrote(sampled)
    return render.text(sampled.ids), sampled.stop


@dataclass(frozen=True)
class Job:
    """One life to live."""

    pack: Pack
    contexts: Own | Given
    names: Names
    """Everything random about the life is drawn under this name."""


async def rollouts(
    jobs: Sequence[Job], sampler: Sampler, render: Render, play: Play, told: Callable[[Life], None] = lambda _: None
) -> list[Life]:
    """Live many lives at once, and tell of each as it ends."""

    async def live(job: Job) -> Life:
        life = await rollout(job.pack, sampler, render, job.contexts, play, job.names)
        told(life)
        return life

    return list(await asyncio.gather(*map(live, jobs)))
