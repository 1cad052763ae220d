"""The page that tells a whole run: what it reached, beside what chance and knowledge reach, and one life to read."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from codots.checkpoint import write_atomically
from codots.domain import Env, get_domain, make_pack
from codots.pack import Pack
from codots.records import Row, names_of, read_rows, solves
from codots.report.curves import Curve, position_curves, training_curves

DASH, MINUS = "\u2013", "\u2212"
Piece = tuple[str, str]
"""`same`, `new` or `gone`, and the words."""


@dataclass(frozen=True)
class Move:
    """One exchange of a solve episode."""

    board: str
    """The drawing before the move; where there is none, what the model read."""
    said: str
    answer: str


@dataclass(frozen=True)
class Chapter:
    """One task of a life, and the context after it."""

    position: int
    reward: float
    stop: str
    moves: list[Move]
    last_board: str
    unread: str
    """Why the rewrite did not count, empty if it did."""
    context: str | None
    """What the next task was given, None after the last."""
    pieces: list[Piece]
    """The same, word by word against the context before it."""
    facts: str


@dataclass(frozen=True)
class Story:
    """One life to read."""

    pack: str
    hidden: str
    """The world's secret, in the domain's own words."""
    chapters: list[Chapter]
    chosen: str
    """How this life was chosen."""


def write_report(folder: Path, summary: dict[str, Any]) -> Path:
    """Write `curves.svg` and `report.html` into a run folder and give the page's path.

    The page needs nothing but itself. What the folder lacks of `metrics.jsonl` and `after.jsonl`, the page leaves out.
    """
    figure = position_curves(
        curves(summary),
        title="Reward by position, before and after training",
        references={name: summary[name] for name in ("floor", "bayes", "ceiling")},
    )
    write_atomically(folder / "curves.svg", figure)
    page = _template().render(
        s=summary,
        head=headline(summary),
        figure=figure,
        training=training_figure(folder / "metrics.jsonl"),
        story=read_story(folder / "after.jsonl"),
    )
    path = folder / "report.html"
    write_atomically(path, page)
    return path


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("codots", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "interval": interval, "span": span}
    return environment.get_template("page.html.jinja")


def number(value: float | None, digits: int = 2) -> str:
    """Write a number; one that is not there is a dash."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """Write a difference."""
    text = number(value)
    return text if text[0] in (DASH, MINUS) else f"+{text}"


def interval(ends: Sequence[float]) -> str:
    """Write an interval."""
    return f"[{number(ends[0])}, {number(ends[1])}]"


def span(seconds: float) -> str:
    """Write a time."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


SHOWN = (("before", "before", "own", 1), ("after, null", "after", "null", 0), ("after", "after", "own", 0))
"""The curves of the first figure: name, report, arm, colour."""


def curves(summary: dict[str, Any]) -> list[Curve]:
    """Pick what the first figure shows: own contexts before and after, and empty ones after."""
    return [
        Curve(name, arms[arm]["reward"], arms[arm]["ci95"], colour, dotted=arm == "null")
        for name, when, arm, colour in SHOWN
        if arm in (arms := summary[when]["arms"])
    ]


@dataclass(frozen=True)
class Headline:
    """What the first sentences say, all of the last position but `alone`."""

    before: float
    after: float
    alone: float
    """What the best play without a context reaches: bayes at position 0."""
    exact: bool
    """Whether nobody can expect more than `alone`."""
    share_ci95: Sequence[float] | None
    worked: bool
    """Whether the rise is beyond both intervals, and part of it is owed to the contexts."""

    @property
    def needs_contexts(self) -> bool:
        """Whether reward is surely above what is possible without a context."""
        return self.exact and self.share_ci95 is not None and self.share_ci95[0] > 0


def headline(summary: dict[str, Any]) -> Headline:
    """Judge a run by its last position."""
    before, after = (summary[when]["arms"]["own"] for when in ("before", "after"))
    lift, share = (summary["after"][key] for key in ("lift_ci95", "share_ci95"))
    return Headline(
        before=before["reward"][-1],
        after=after["reward"][-1],
        alone=summary["bayes"][0],
        exact=get_domain(summary["domain"]).exact,
        share_ci95=share and share[-1],
        worked=bool(after["ci95"][-1][0] > before["ci95"][-1][1] and lift and lift[-1][0] > 0),
    )


def training_figure(path: Path) -> str:
    """Draw the rewards of a metrics file, nothing if it holds none."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    rows = [json.loads(row) for row in text[: text.rfind("\n") + 1].splitlines()]
    size = 1 + max((int(key.partition("/")[2]) for row in rows for key in row if key.startswith("reward/")), default=-1)
    rewards = [[row.get(f"reward/{j}", math.nan) for row in rows] for j in range(size)]
    return training_curves([row["step"] for row in rows], rewards, title="Reward while training") if size else ""


def read_story(path: Path) -> Story | None:
    """Choose the first life that got better from its first task to its last, else the first."""
    by_name: dict[tuple[str | int, ...], list[Row]] = {}
    for row in read_rows(path) if path.is_file() else ():
        if row.arm == "own":
            by_name.setdefault((*names_of(row), row.life), []).append(row)
    lives = [life for life in by_name.values() if solves(life)]
    if not lives:
        return None
    gains = [solves(life)[-1].reward - solves(life)[0].reward for life in lives]
    first = next((i for i, gain in enumerate(gains) if gain > 0), 0)
    return tell(lives[first], choice(gains, gains[first] > 0))


def choice(gains: Sequence[float], better: bool) -> str:
    """Say how a life was chosen, and how usual it is."""
    how = "the first that got better from its first task to its last" if better else "the first, for none got better"
    up, down = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return f"{how}; of {len(gains)} lives {up} got better, {down} worse, {len(gains) - up - down} neither"


def tell(rows: Sequence[Row], chosen: str) -> Story:
    """Make a recorded life readable."""
    solved = solves(rows)
    domain, preset, split, index = names_of(solved[0])
    pack = make_pack(str(domain), str(preset), str(split), int(index), len(solved))
    style = spoken(pack, solved[0])
    unread = {row.position: row.outcome for row in rows if row.kind == "update" and row.stop == "malformed"}
    contexts: list[str | None] = [*(row.context for row in solved[1:]), None]
    boards = replay(pack, solved, style)
    chapters = [
        chapter(pack, row, drawn, after, unread.get(row.position, ""))
        for row, drawn, after in zip(solved, boards, contexts, strict=True)
    ]
    hidden = pack.domain.oracle_context(pack.world, style)
    return Story(" ".join(map(str, pack.names)), hidden, chapters, chosen)


def chapter(pack: Pack, row: Row, boards: Sequence[str | None], context: str | None, unread: str) -> Chapter:
    """Lay out one task, and what was noted after it."""
    answers = [*(observation for observation, _ in row.turns[1:]), row.outcome]
    moves = [
        Move(board or observation, reply, answer)
        for board, (observation, reply), answer in zip(boards, row.turns, answers, strict=False)
    ]
    pieces = [] if context is None else changes(row.context, context)
    told = None if context is None else pack.domain.facts(pack.world, context)
    facts = "" if told is None else f"{told[0]} of {told[2]} facts right, {told[1]} wrong"
    return Chapter(row.position, row.reward, row.stop, moves, boards[-1] or "", unread, context, pieces, facts)


def spoken(pack: Pack, first: Row) -> str:
    """Find the prompt style of a recorded life by its first observation."""
    for style in pack.domain.styles:
        env = pack.tasks[0].env(style=style, memory=pack.domain.make_memory(pack.world))
        if first.turns and env.observe() == first.turns[0][0]:
            return style
    return pack.domain.styles[0]


def replay(pack: Pack, solved: Sequence[Row], style: str) -> list[list[str | None]]:
    """Play a recorded life again and draw it: before every move of a task, and after the last."""
    memory = pack.domain.make_memory(pack.world)
    pairs = zip(pack.tasks, solved, strict=True)
    return [list(_drawings(pack, task.env(style=style, memory=memory), row)) for task, row in pairs]


def _drawings(pack: Pack, env: Env, row: Row) -> Iterator[str | None]:
    """Draw an episode; where the environment answers otherwise than recorded, no drawing is better than a wrong one."""
    seen, faithful = env.observe(), True
    for observation, reply in row.turns:
        faithful = faithful and seen == observation
        yield pack.domain.draw(env.view) if faithful else None
        seen = env.step(reply).observation if faithful else ""
    yield pack.domain.draw(env.view) if faithful and seen == row.outcome else None


def changes(before: str, after: str) -> list[Piece]:
    """Tell the words of a text that were kept, added and dropped, in reading order."""
    old, new = (re.findall(r"\s+|\S+", text) for text in (before, after))
    pieces: list[Piece] = []
    for _, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        same = old[a:b] == new[c:d]
        pairs = [("same", new[c:d])] if same else [("gone", old[a:b]), ("new", new[c:d])]
        pieces += [(kind, "".join(words)) for kind, words in pairs if words]
    return pieces
