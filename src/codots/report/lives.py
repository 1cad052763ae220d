"""Recorded lives made readable: replayed and drawn, flagged for the filters, packed for the page."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from codots.domains.base import Env, Pack
from codots.domains.registry import make_pack
from codots.rollout.records import MISSING, Row, names_of, read_rows, solves

MOST = 20_000
"""Episodes of a run that one page holds; of more, only every second, third, ... pack is shown."""
TOGETHER = 40
"""Lives that are packed, and unpacked by the page, in one piece."""
FAILED, HURT, MALFORMED, GONE = 1, 2, 4, 8
"""Flags of a life, as `list.js` knows them."""
Facts = tuple[int, int, int] | None


@dataclass(frozen=True)
class Move:
    """One exchange of a solve episode."""

    board: str | None
    """The drawing before the move, None where there is none."""
    seen: str
    """What the model read, empty where the drawing says it all."""
    said: str
    answer: str


@dataclass(frozen=True)
class Rewrite:
    """The update after a task."""

    said: str
    stop: str
    why: str
    """Why it did not count, empty if it did."""
    reward: float
    advantage: float | None
    tokens: int


@dataclass(frozen=True)
class Task:
    """One task of a life, with the context that it was given and the rewrite after it."""

    context: str
    facts: Facts
    """Right and wrong claims of that context, of how many that can be known."""
    reward: float
    stop: str
    advantage: float | None
    tokens: int
    moves: list[Move]
    last: str | None
    """The drawing after the last move."""
    rewrite: Rewrite | None


@dataclass(frozen=True)
class Story:
    """One life to read."""

    hidden: str
    """The world's secret, in the domain's own words."""
    rules: str
    style: str
    tasks: list[Task]
    gone: str
    """Why the life is missing, empty if it is there."""


@dataclass(frozen=True)
class Told:
    """One life in the list."""

    where: str
    arm: str
    pack: str
    life: int
    rewards: list[float]
    flags: int
    story: Story


@dataclass(frozen=True)
class Shelf:
    """All lives of a run that the page holds."""

    lives: list[Told]
    shown: int
    """Every so manieth pack is here; 1 is all of them."""


def read_lives(files: Iterable[tuple[str, Path]], most: int = MOST) -> Shelf:
    """Read files of rows into lives; those of one pack are kept or left out together."""
    found = [(where, rows) for where, path in files for rows in by_life(path)]
    every = -(-sum(len(rows) for _, rows in found) // most) or 1
    if every > 1:
        packs = {pack: i for i, pack in enumerate(dict.fromkeys(tuple(rows[0].pack) for _, rows in found))}
        found = [(where, rows) for where, rows in found if packs[tuple(rows[0].pack)] % every == 0]
    null = {(where, *rows[0].pack): rewards(rows) for where, rows in found if rows[0].arm == "null"}
    return Shelf([told(where, rows, null.get((where, *rows[0].pack))) for where, rows in found], every)


def by_life(path: Path) -> list[list[Row]]:
    """The rows of a file, life by life in the order they were lived."""
    lives: dict[tuple[Any, ...], list[Row]] = {}
    for row in read_rows(path):
        lives.setdefault((row.arm, *row.pack, row.life), []).append(row)
    return list(lives.values())


def rewards(rows: Iterable[Row]) -> list[float]:
    """Rewards of the tasks of a life."""
    return [row.reward for row in solves(rows)]


def told(where: str, rows: Sequence[Row], null: Sequence[float] | None) -> Told:
    """Make one life readable; `null` is what the same pack gave without contexts."""
    first = rows[0]
    pack = " ".join(map(str, first.pack))
    return Told(where, first.arm, pack, first.life, rewards(rows), flags(rows, null), story(rows))


def flags(rows: Sequence[Row], null: Sequence[float] | None) -> int:
    """Tell what a filter looks for."""
    if rows[0].kind == MISSING:
        return GONE
    found = rewards(rows)
    hurt = rows[0].arm != "null" and any(own < other - 1e-9 for own, other in zip(found, null or (), strict=False))
    return (
        FAILED * any(reward <= 0 for reward in found)
        | HURT * hurt
        | MALFORMED * any(row.stop == "malformed" for row in rows)
    )


def story(rows: Sequence[Row]) -> Story:
    """Lay a life out; where its domain cannot be had or does not answer as recorded, nothing is drawn."""
    solved = solves(rows)
    if not solved:
        return Story("", "", "", [], rows[0].outcome or "no task of it was recorded")
    pack, style = _pack_of(names_of(solved[0]), len(solved)), ""
    if pack is not None:
        style = spoken(pack, solved[0])
    updates = {row.position: row for row in rows if row.kind == "update"}
    boards = replay(pack, solved, style)
    tasks = [task(pack, row, drawn, updates.get(row.position)) for row, drawn in zip(solved, boards, strict=True)]
    if pack is None:
        return Story("", "", "", tasks, "")
    hidden = pack.domain.oracle_context(pack.world, style)
    return Story(hidden, pack.domain.rules_text(pack.tasks[0], style), style, tasks, "")


@lru_cache(maxsize=4096)
def _pack_of(names: tuple[str | int, ...], size: int) -> Pack | None:
    """Draw the pack of a life again; None if its domain is not installed here."""
    try:
        domain, preset, split, index = names
        return make_pack(str(domain), str(preset), str(split), int(index), size)
    except ValueError:
        return None


def task(pack: Pack | None, row: Row, boards: Sequence[str | None], update: Row | None) -> Task:
    """Lay out one task."""
    answers = [*(observation for observation, _ in row.turns[1:]), row.outcome]
    moves = [
        Move(board, "" if board else observation, reply, answer)
        for board, (observation, reply), answer in zip(boards, row.turns, answers, strict=False)
    ]
    rewrite = None
    if update is not None:
        said = update.turns[0][1] if update.turns else ""
        rewrite = Rewrite(said, update.stop, update.outcome, update.reward, update.advantage, update.tokens)
    facts = None if pack is None else pack.domain.facts(pack.world, row.context)
    return Task(row.context, facts, row.reward, row.stop, row.advantage, row.tokens, moves, boards[-1], rewrite)


def spoken(pack: Pack, first: Row) -> str:
    """Find the prompt style of a recorded life by its first observation."""
    for style in pack.domain.styles if not pack.domain.blocking else ():
        env = pack.tasks[first.position].env(style=style, memory=pack.domain.make_memory(pack.world))
        if first.turns and env.observe() == first.turns[0][0]:
            return style
    return pack.domain.styles[0]


def replay(pack: Pack | None, solved: Sequence[Row], style: str) -> list[list[str | None]]:
    """Play a recorded life again and draw it: before every move of a task, and after the last.

    A domain that waits for the outside world is not played again.
    """
    if pack is None or pack.domain.blocking:
        return [[None] * (len(row.turns) + 1) for row in solved]
    memory = pack.domain.make_memory(pack.world)
    return [list(_drawings(pack, pack.tasks[row.position].env(style=style, memory=memory), row)) for row in solved]


def _drawings(pack: Pack, env: Env, row: Row) -> Iterator[str | None]:
    """Draw an episode; where the environment answers otherwise than recorded, no drawing is better than a wrong one."""
    seen, faithful = env.observe(), True
    for observation, reply in row.turns:
        faithful = faithful and seen == observation
        yield pack.domain.draw(env.view) if faithful else None
        seen = env.step(reply).observation if faithful else ""
    yield pack.domain.draw(env.view) if faithful and seen == row.outcome else None


def index(lives: Sequence[Told]) -> dict[str, Any]:
    """What the list of lives needs, names written once."""
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
    return {**tables, "lives": rows, "together": TOGETHER}


def packed(lives: Sequence[Told]) -> list[str]:
    """The stories of lives in pieces: JSON, gzip, base64, so that a page of many long lives stays small."""
    pieces = [lives[first : first + TOGETHER] for first in range(0, len(lives), TOGETHER)]
    texts = [json.dumps([one.story for one in piece], default=vars, ensure_ascii=False) for piece in pieces]
    return [base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode() for text in texts]


def chosen(lives: Sequence[Told]) -> tuple[int, str]:
    """Choose the life to open with, the first that got better from first to last task, and say how usual it is.

    Lives with own contexts of the first source that has any; -1 and nothing where there is none.
    """
    own = [i for i, one in enumerate(lives) if one.arm == "own" and one.rewards]
    own = [i for i in own if lives[i].where == lives[own[0]].where]
    gains = [lives[i].rewards[-1] - lives[i].rewards[0] for i in own]
    if not gains:
        return (0 if lives else -1), ""
    up, down = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    first = next((i for i, gain in zip(own, gains, strict=True) if gain > 0), own[0])
    how = "the first that got better from its first task to its last" if up else "the first, for none got better"
    return first, f"{how}; of {len(gains)} lives {up} got better, {down} worse, {len(gains) - up - down} neither"
