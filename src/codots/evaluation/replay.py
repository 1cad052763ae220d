"""Feed the recorded replies of lives to new environments and parsers, in place of a model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import zip_longest
from typing import Any, Self

from codots.context.record import Count, Record
from codots.context.rewrite import Trajectory
from codots.context.strategies import strategy_of
from codots.core.rng import Names
from codots.core.transcript import Sampled, StopReason
from codots.domains.registry import make_pack
from codots.evaluation.evaluate import split_known
from codots.model.alphabet import END, make_render
from codots.model.renderer import Render
from codots.rollout.life import Job, episodes
from codots.rollout.profile import EpisodeParams
from codots.rollout.records import DIVERGED, MISSING, Row, has_all_updates, solves
from codots.rollout.steps import Episode, Given, Own
from codots.sampler.base import SamplingParams

AT_ONCE = 8
"""Number of lives that are replayed at the same time, so that environments that wait do not wait in turn."""


class DivergedError(Exception):
    """The model was never asked what it would be asked now."""


class RecordedSession:
    """A session that answers with recorded replies, in order. Raises DivergedError if it is asked for more."""

    def __init__(self, replies: Sequence[str]) -> None:
        self.replies, self.turn = replies, 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Return the next reply, as the ids of `model.alphabet`. The prompt is compared afterwards, by `rescored`."""
        if self.turn == len(self.replies):
            raise DivergedError(
                f"the environment asks for reply {self.turn + 1}, the record ends after reply {self.turn}"
            )
        said = [*map(ord, self.replies[self.turn]), END]
        self.turn += 1
        return Sampled(said, [0.0] * len(said), StopReason.STOP, [0] * len(said))


class RecordedSampler:
    """A sampler that answers the sessions of a life with the replies in its rows."""

    version = 0

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = {(row.kind, row.position): row for row in rows}

    def session(self, names: Names) -> RecordedSession:
        """Open the session of an episode, which the last two names identify."""
        position, kind = names[-2:]
        return RecordedSession([reply for _, reply in self.rows[str(kind), int(position)].turns])

    async def load(self, weights: Any, version: int) -> None:
        """Raise ValueError: recorded replies cannot be trained."""
        raise ValueError("recorded replies have no weights")


class Recorded:
    """The contexts of a life that a `Record` wrote, in order, of which each is compared with the record of today.

    They were cut by the model's tokens, so each must be an end of the whole record.
    """

    def __init__(self, strategy: Record, contexts: Sequence[str]) -> None:
        self.strategy, self.contexts = strategy, list(contexts)
        self.whole = strategy.initial()
        self.initial, self.solve, self.settings = strategy.initial, strategy.solve, strategy.settings

    def record(self, trajectory: Trajectory, context: str, style: str, count: Count) -> str:
        """Return the recorded context after a task. Raises DivergedError if it would be another one today."""
        self.whole = replace(self.strategy, budget=sys.maxsize).record(trajectory, self.whole, style, count)
        written = self.contexts.pop(0)
        if not self.whole.endswith(written):
            raise DivergedError("the context of this solve was another one")
        return written


def replay_lives(lives: Sequence[tuple[list[Row], tuple[str, ...] | None]]) -> list[list[Row]]:
    """Re-score lives, each given as its rows and as the contexts that its arm gives now (None for the recorded ones).

    A life whose rows are not enough is one row of kind MISSING. An episode that must be sampled again, and what follows
    from it, is a row of kind MISSING with the stop word DIVERGED. All other rows are re-scored.
    """
    room, render = asyncio.Semaphore(AT_ONCE), make_render()

    async def one(rows: list[Row], contexts: tuple[str, ...] | None) -> list[Row]:
        async with room:
            return await _replayed(rows, contexts, render)

    async def every() -> list[list[Row]]:
        return list(await asyncio.gather(*(one(*life) for life in lives)))

    return asyncio.run(every())


def unusable(rows: Sequence[Row]) -> str:
    """Return why a life cannot be replayed, or '' if it can."""
    solved = solves(rows)
    if not solved or [row.position for row in solved] != list(range(len(solved))):
        return "not every task of the life was recorded"
    if not has_all_updates(rows):
        return "not every update of the life was recorded"
    if any(row.prompt is None for row in rows):
        return "recorded by an earlier version of codots, without the prompt style"
    return ""


def missing_at(row: Row, position: int, stop: str, why: str) -> Row:
    """Return the row of an episode that could not be re-scored. `row` is any row of its life."""
    return Row(row.pack, row.arm, row.life, position, MISSING, 0.0, stop, "", None, [], why, 0, step=row.step)


async def _replayed(rows: list[Row], contexts: tuple[str, ...] | None, render: Render) -> list[Row]:
    first = rows[0]
    if first.kind == MISSING:
        return rows
    if why := unusable(rows):
        return [missing_at(first, 0, MISSING, why)]
    solved = solves(rows)
    domain, preset, split, index = first.pack
    pack = make_pack(str(domain), str(preset), str(split), int(index), len(solved))
    settings = dict(solved[0].prompt or {})
    params = EpisodeParams(settings.pop("style"), SamplingParams(1), SamplingParams(1))
    del settings["hash"]
    strategy = strategy_of(settings)
    given: Own | Given = Given(strategy, contexts or tuple(row.context for row in solved))
    if contexts is None and any(row.kind == "update" for row in rows):
        given = Own(strategy)
    if contexts is None and isinstance(strategy, Record):
        given = Own(Recorded(strategy, [row.context for row in solved[1:]]))
    sampler, new = RecordedSampler(rows), []
    for piece in split_known(pack, given, ())[1]:
        new += await _piece(Job(piece, given, params, ()), sampler, render, first)
    return new


async def _piece(job: Job, sampler: RecordedSampler, render: Render, first: Row) -> list[Row]:
    """Re-score the tasks of a job up to the first one that must be sampled again or whose environment fails."""
    new: list[Row] = []
    stop = MISSING
    try:
        async with aclosing(episodes(job, sampler, render)) as found:
            async for episode in found:
                new += [rescored(sampler.rows[episode.kind, episode.position], episode)]
        return new
    except DivergedError as error:
        stop, why = DIVERGED, str(error)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    left = job.pack.tasks[len(solves(new))]
    return [*new, missing_at(first, left.position, stop, why)]


def rescored(row: Row, episode: Episode) -> Row:
    """Return the row with the rewards, texts and stop word of its replay.

    The tokens stay those that were sampled. If fewer replies than recorded end the episode, the row has only these, and
    how the last one ended is not known. Raises DivergedError if the model saw anything else when it was recorded.
    """
    turns = [[turn.observation, turn.reply] for turn in episode.turns]
    if episode.context != row.context:
        raise DivergedError(f"the context of this {row.kind} was another one")
    if episode.prompt != row.prompt:
        raise DivergedError(f"the prompt of this {row.kind} was another one")
    for number, (now, then) in enumerate(zip_longest(turns, row.turns[: len(turns)]), start=1):
        if now != then:
            raise DivergedError(f"the observation of turn {number} was another one")
    return replace(
        row,
        reward=episode.reward,
        stop=episode.stop,
        written=episode.written,
        turns=turns,
        outcome=episode.outcome,
        ended=row.ended if len(turns) == len(row.turns) else None,
    )
