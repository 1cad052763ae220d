"""Prepare recorded lives for the page: replay and draw the lives, set the flags of the filters, and compress."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from codots.core.transcript import StopReason
from codots.domains.base import Env, Pack
from codots.domains.registry import make_pack
from codots.rollout.records import UNANSWERED, Row, lost, names_of, read_rows, solves

MAX_EPISODES = 20_000
"""Maximum number of episodes on one page, approximately. For a longer run only every n-th pack is shown."""
PIECE_SIZE = 40
"""Number of lives that are compressed together."""
FAILED, HURT, MALFORMED, LOST = 1, 2, 4, 8
"""Flags of a life: a task without a positive reward, a task with less reward than with an empty context, a malformed
reply, and a missing life (lost to an infrastructure failure). `list.js` uses the same numbers."""
Facts = tuple[int, int, int] | None


@dataclass(frozen=True)
class TurnView:
    """One turn of a solve episode."""

    board: str | None
    """Drawing of the state before the turn. None if there is no drawing."""
    seen: str
    """Observation that the model received. Empty if the drawing replaces the observation."""
    said: str
    """Reply of the model."""
    answer: str
    """Answer of the environment to the reply."""


@dataclass(frozen=True)
class RewriteView:
    """The update of the context after a task."""

    said: str
    """Reply of the model."""
    stop: str
    why: str
    """Reason why the reply was rejected. Empty if the reply was accepted."""
    reward: float
    advantage: float | None
    tokens: int


@dataclass(frozen=True)
class TaskView:
    """One task of a life, with its context and the rewrite after it."""

    context: str
    facts: Facts
    """Number of correct claims in the context, number of wrong claims, and number of all facts. None if the domain does
    not count facts or is not installed."""
    reward: float
    stop: str
    note: str
    """What cut the last reply short. Empty if nothing did."""
    advantage: float | None
    tokens: int
    moves: list[TurnView]
    last: str | None
    """Drawing of the state after the last turn. None if there is no drawing."""
    rewrite: RewriteView | None


@dataclass(frozen=True)
class Story:
    """The content of one life as the page shows it."""

    hidden: str
    """The hidden rule of the world, as the oracle context of the domain."""
    rules: str
    style: str
    tasks: list[TaskView]
    gone: str
    """Reason why the life is missing (lost to an infrastructure failure). Empty if the life is not missing."""


@dataclass(frozen=True)
class LifeView:
    """One life in the list of lives."""

    where: str
    arm: str
    pack: str
    life: int
    rewards: list[float]
    flags: int
    story: Story


@dataclass(frozen=True)
class LifeList:
    """The lives of a run that the page shows."""

    lives: list[LifeView]
    every: int
    """Every n-th pack is shown. All packs are shown if n is 1."""


def read_lives(files: Iterable[tuple[str, Path]], max_episodes: int = MAX_EPISODES) -> LifeList:
    """Read the lives of named JSONL files.

    If the files have more than `max_episodes` episodes, only every n-th pack is kept, with all of its lives.
    """
    found = [(where, rows) for where, path in files for rows in by_life(path)]
    every = -(-sum(len(rows) for _, rows in found) // max_episodes) or 1
    if every > 1:
        packs = {pack: i for i, pack in enumerate(dict.fromkeys(tuple(rows[0].pack) for _, rows in found))}
        found = [(where, rows) for where, rows in found if packs[tuple(rows[0].pack)] % every == 0]
    null = {(where, *rows[0].pack): rewards(rows) for where, rows in found if rows[0].arm == "null"}
    return LifeList([life_view(where, rows, null.get((where, *rows[0].pack))) for where, rows in found], every)


def by_life(path: Path) -> list[list[Row]]:
    """Group the rows of a file by life, in the order of the file."""
    lives: dict[tuple[Any, ...], list[Row]] = {}
    for row in read_rows(path):
        lives.setdefault((row.arm, *row.pack, row.life), []).append(row)
    return list(lives.values())


def rewards(rows: Iterable[Row]) -> list[float]:
    """Return the reward of each task of a life, or an empty list if a part of the life is missing."""
    rows = list(rows)
    return [] if lost(rows) else [row.reward for row in solves(rows)]


def life_view(where: str, rows: Sequence[Row], null: Sequence[float] | None) -> LifeView:
    """Prepare one life. `null` is the rewards of the same pack with empty contexts, if they were recorded."""
    first = rows[0]
    pack = " ".join(map(str, first.pack))
    return LifeView(where, first.arm, pack, first.life, rewards(rows), flags(rows, null), story(rows))


def flags(rows: Sequence[Row], null: Sequence[float] | None) -> int:
    """Return the flags of a life. `null` is the rewards of the same pack with empty contexts, if they were recorded."""
    if lost(rows):
        return LOST
    found = rewards(rows)
    hurt = rows[0].arm != "null" and any(own < other - 1e-9 for own, other in zip(found, null or (), strict=False))
    return (
        FAILED * any(reward <= 0 for reward in found)
        | HURT * hurt
        | MALFORMED * any(row.stop == "malformed" for row in rows)
    )


def story(rows: Sequence[Row]) -> Story:
    """Prepare the content of a life.

    States are not drawn if the domain is not installed or is blocking, or from the point where the replay of a task
    differs from its record.
    """
    solved = solves(rows)
    missing = lost(rows)
    if missing or not solved:
        return Story("", "", "", [], (missing or rows[0]).outcome or "none of its tasks was recorded")
    pack, style = _pack_of(names_of(solved[0]), len(solved)), ""
    if pack is not None:
        style = find_style(pack, solved[0])
    updates = {row.position: row for row in rows if row.kind == "update"}
    boards = replay(pack, solved, style)
    tasks = [task_view(pack, row, drawn, updates.get(row.position)) for row, drawn in zip(solved, boards, strict=True)]
    if pack is None:
        return Story("", "", "", tasks, "")
    truths = dict.fromkeys(pack.domain.oracle_context(pack.world.at(row.position), style) for row in solved)
    return Story("\n\nlater:\n".join(truths), pack.domain.rules_text(pack.tasks[0], style), style, tasks, "")


@lru_cache(maxsize=4096)
def _pack_of(names: tuple[str | int, ...], size: int) -> Pack | None:
    """Return the pack of a recorded life, or None if it cannot be made, such as when its domain is not installed."""
    try:
        domain, preset, split, index = names
        return make_pack(str(domain), str(preset), str(split), int(index), size)
    except ValueError:
        return None


def cut_note(row: Row) -> str:
    """Return what cut the last reply of an episode short, or an empty string."""
    if row.ended == StopReason.LENGTH:
        return f"reply cut at {'solve_tokens' if row.kind == 'solve' else 'update_tokens'}"
    if row.ended in UNANSWERED:
        return f"reply {UNANSWERED[row.ended][0]}"
    return "no room in the context window" if row.ended == StopReason.FULL else ""


def task_view(pack: Pack | None, row: Row, boards: Sequence[str | None], update: Row | None) -> TaskView:
    """Prepare one task, with the rewrite of the context after it."""
    answers = [*(observation for observation, _ in row.turns[1:]), row.outcome]
    moves = [
        TurnView(board, "" if board else observation, reply, answer)
        for board, (observation, reply), answer in zip(boards, row.turns, answers, strict=False)
    ]
    rewrite = None
    if update is not None:
        reply = update.turns[0][1] if update.turns else ""
        why = "; ".join(filter(None, (update.outcome, cut_note(update))))
        rewrite = RewriteView(reply, update.stop, why, update.reward, update.advantage, update.tokens)
    facts = None if pack is None else pack.domain.facts(pack.world.at(row.position), row.context)
    return TaskView(
        row.context, facts, row.reward, row.stop, cut_note(row), row.advantage, row.tokens, moves, boards[-1], rewrite
    )


def find_style(pack: Pack, first: Row) -> str:
    """Return the prompt style whose first observation equals the recorded one.

    Returns the first style of the domain if none matches or the domain is blocking.
    """
    for style in pack.domain.styles if not pack.domain.blocking else ():
        env = pack.tasks[first.position].env(style=style, memory=pack.domain.make_memory(pack.world))
        if first.turns and env.observe() == first.turns[0][0]:
            return style
    return pack.domain.styles[0]


def replay(pack: Pack | None, solved: Sequence[Row], style: str) -> list[list[str | None]]:
    """Replay a recorded life and draw the state of each task, before every turn and after the last turn.

    A drawing is None if the domain is blocking or not installed, or once the replay of a task differs from its record.
    """
    if pack is None or pack.domain.blocking:
        return [[None] * (len(row.turns) + 1) for row in solved]
    memory = pack.domain.make_memory(pack.world)
    return [list(_drawings(pack, pack.tasks[row.position].env(style=style, memory=memory), row)) for row in solved]


def _drawings(pack: Pack, env: Env, row: Row) -> Iterator[str | None]:
    """Replay and draw an episode. Once an observation differs from the record, yield only None."""
    actual, faithful = env.observe(), True
    for observation, reply in row.turns:
        faithful = faithful and actual == observation
        yield pack.domain.draw(env.view) if faithful else None
        actual = env.step(reply).observation if faithful else ""
    yield pack.domain.draw(env.view) if faithful and actual == row.outcome else None


def index(lives: Sequence[LifeView]) -> dict[str, Any]:
    """Return the data of the list of lives. Each file, arm and pack name is stored once and referred to by index."""
    tables = {name: list(dict.fromkeys(getattr(one, name) for one in lives)) for name in ("where", "arm", "pack")}
    places: dict[str, Callable[[str], int]] = {
        name: {value: i for i, value in enumerate(values)}.__getitem__ for name, values in tables.items()
    }
    rows = [
        [
            *(places[name](getattr(one, name)) for name in tables),
            one.life,
            one.flags,
            *(round(r, 4) for r in one.rewards),
        ]
        for one in lives
    ]
    return {**tables, "lives": rows, "together": PIECE_SIZE}


def packed(lives: Sequence[LifeView]) -> list[str]:
    """Return the content of the lives in pieces. Each piece is base64 of gzipped JSON, which keeps the page small."""
    pieces = [lives[first : first + PIECE_SIZE] for first in range(0, len(lives), PIECE_SIZE)]
    texts = [json.dumps([one.story for one in piece], default=vars, ensure_ascii=False) for piece in pieces]
    return [base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode() for text in texts]


def choose_life(lives: Sequence[LifeView]) -> tuple[int, str]:
    """Choose the life to open first. Return its index and an explanation.

    The candidates are the lives with own contexts in the first file that has such a life. If the reward rose from the
    first task to the last in any candidate, the first such candidate is chosen. If it rose in no candidate, the first
    candidate is chosen. In both cases the explanation counts in how many candidates the reward rose, fell and stayed
    equal. If there are no candidates, the index is 0, or -1 if there are no lives, and the explanation is empty.
    """
    own = [i for i, one in enumerate(lives) if one.arm == "own" and one.rewards]
    own = [i for i in own if lives[i].where == lives[own[0]].where]
    gains = [lives[i].rewards[-1] - lives[i].rewards[0] for i in own]
    if not gains:
        return (0 if lives else -1), ""
    up, down = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    first = next((i for i, gain in zip(own, gains, strict=True) if gain > 0), own[0])
    why = "its reward rose from the first task to the last" if up else "the reward rose in no life"
    return first, f"{why} (rose in {up} of {len(gains)} lives, fell in {down}, equal in {len(gains) - up - down})"
