"""The page that tells a run, or several: what was reached beside what chance and knowledge reach, and every life."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from codots.core.files import writable, write_atomically
from codots.report.evaluation import Evaluation
from codots.report.figures import FIRST, Figure, figures, last_reward, side_by_side, write_figures
from codots.report.lives import Shelf, chosen, index, packed, read_lives
from codots.report.run import Run, apart, grounds, is_exact, mean, read_run, references_of
from codots.report.svg import STYLE, bare

DASH, MINUS = "\u2013", "\u2212"
REPORT = "report.html"
"""The page of a run, in its folder."""
SCRIPTS = ("diff.js", "board.js", "list.js", "reader.js", "page.js")


@dataclass(frozen=True)
class Headline:
    """What the first sentences say, all of the last position but `alone`."""

    before: float | None
    """None where nothing was measured before training."""
    after: float
    trained: bool
    """Whether these are the rewards of training lives, for nothing better is there."""
    alone: float | None
    """What the best play without a context reaches: bayes at position 0."""
    exact: bool
    """Whether nobody can expect more than `alone`."""
    share_ci95: Sequence[float] | None
    worked: bool
    """Whether the rise is beyond both intervals, and part of it is owed to the contexts."""

    @property
    def needs_contexts(self) -> bool:
        """Whether reward is surely above what is possible without a context."""
        return self.exact and self.share_ci95 is not None and (self.share_ci95[0] or 0) > 0


@dataclass(frozen=True)
class Chapter:
    """One run on the page."""

    run: Run
    head: Headline | None
    figures: list[Figure]
    grounds: list[list[Evaluation]]
    matrix: list[list[str]]
    """Writer by reader: a row of names, then a row per writer; empty where no evaluation had another writer."""
    shelf: Shelf
    first: int
    """The life to open with."""
    why: str

    @property
    def telling(self) -> list[Figure]:
        """The figures that are shown unfolded: one of each kind, of an evaluation the first."""
        return list({figure.caption: figure for figure in reversed(self.figures) if figure.caption in FIRST}.values())[
            ::-1
        ]

    @property
    def further(self) -> list[Figure]:
        """All other figures."""
        return [figure for figure in self.figures if figure not in self.telling]


def write_report(folders: Sequence[Path], to: Path, *, with_figures: bool = False) -> list[Path]:
    """Write one page about run folders, with their figures as files in `figures/` beside it; give what was written.

    Raises ValueError for a folder that is no run, and for files that cannot be read.
    """
    runs = [read_run(folder) for folder in folders]
    writable(to)
    page = build([chapter(run) for run in runs])
    written = []
    if with_figures:
        several = len(runs) > 1
        shown = [(name if several else "", figures(run)) for name, run in zip(apart(runs), runs, strict=True)]
        for name, found in [("", side_by_side(runs)), *shown] if several else shown:
            written += write_figures(to.parent / "figures" / name, found)
    write_atomically(to, page)
    return [to, *written]


def chapter(run: Run) -> Chapter:
    """Gather what the page says of one run."""
    shelf = read_lives(run.rows)
    first, why = chosen(shelf.lives)
    evaluated = list(grounds(run))
    return Chapter(run, headline(run), figures(run), evaluated, matrix(run, evaluated), shelf, first, why)


def build(chapters: Sequence[Chapter], live: str = "") -> str:
    """Put the page together; it needs nothing but itself. `live` is where it asks for news, empty for never."""
    script = "\n".join(asset(name) for name in SCRIPTS)
    style = asset("page.css") + STYLE
    data = {
        "runs": [
            {"name": c.run.name, "first": c.first, "every": c.shelf.shown, **index(c.shelf.lives)} for c in chapters
        ],
        "live": live,
    }
    return render(
        "page.html.jinja",
        chapters=chapters,
        several=side_by_side([c.run for c in chapters]) if len(chapters) > 1 else [],
        data=safe_json(data),
        pieces=[packed(c.shelf.lives) for c in chapters],
        style=style,
        style_hash=hashed(style),
        script=script,
        script_hash=hashed(script),
        live=live,
    )


def asset(name: str) -> str:
    """Read a file of the page."""
    return (files("codots.report") / "assets" / name).read_text(encoding="utf-8")


def hashed(text: str) -> str:
    """What the page's own policy lets run: this text and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def safe_json(value: Any) -> str:
    """Write JSON that can stand in a script element: no `<` in it ends or opens anything."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
        .encode("utf-8", "replace")
        .decode()
    )


def render(name: str, **said: Any) -> str:
    """Fill a template; what it is told is escaped, its style and script are not."""
    environment = Environment(
        loader=PackageLoader("codots.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "interval": interval, "span": span}
    environment.filters["drawn"] = lambda figure: Markup(bare(figure.svg))
    ready = {key: Markup(value) if key in ("style", "script", "data") else value for key, value in said.items()}
    return str(environment.get_template(name).render(**ready))


def number(value: float | None, digits: int = 2) -> str:
    """Write a number; one that is not there is a dash."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """Write a difference."""
    text = number(value)
    return text if text[0] in (DASH, MINUS) else f"+{text}"


def interval(ends: Sequence[float | None]) -> str:
    """Write an interval."""
    return f"[{number(ends[0])}, {number(ends[1])}]"


def span(seconds: float) -> str:
    """Write a time."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def headline(run: Run) -> Headline | None:
    """Judge a run by its last position: evaluated if it was, else by its training lives."""
    own = [e for e in run.evaluations if "own" in e.report["arms"] and e.report["writer"] is None]
    after = next((e for e in own if e.when == "after"), None)
    if after is None:
        return training_headline(run)
    before = next((e for e in own if e.when == "before" and e.ground == after.ground), None)
    reached, share = after.report["arms"]["own"], after.report["share_ci95"]
    return Headline(
        before=before.report["arms"]["own"]["reward"][-1] if before else None,
        after=reached["reward"][-1],
        trained=False,
        alone=after.report["bayes"][0],
        exact=is_exact(after.report["domain"]),
        share_ci95=share and share[-1],
        worked=before is not None and rose(before.report["arms"]["own"], reached, after.report["lift_ci95"]),
    )


def rose(before: dict[str, Any], after: dict[str, Any], lift: Sequence[Sequence[float]] | None) -> bool:
    """Whether reward at the last position rose beyond both intervals, and surely above that of empty contexts."""
    low, high = after["ci95"][-1][0], before["ci95"][-1][1]
    return bool(None not in (low, high) and low > high and lift and (lift[-1][0] or 0) > 0)


def training_headline(run: Run) -> Headline | None:
    """Compare the first tenth of the steps with the last, None before any step; of several entries the mean."""
    several = len(run.labels) > 1
    names = [last_reward(run, label) for label in run.labels] if several else [f"reward/{run.size - 1}"]
    means = [mean(np.array(values)) for values in zip(*map(run.column, names), strict=True)]
    rewards = [value for value in means if math.isfinite(value)]
    if not rewards:
        return None
    few, bayes = max(1, len(rewards) // 10), None if several else references_of(run).get("bayes")
    first, last = sum(rewards[:few]) / few, sum(rewards[-few:]) / few
    exact = is_exact(str(run.config.get("domain", "")))
    return Headline(first if len(rewards) > 1 else None, last, True, bayes[0] if bayes else None, exact, None, False)


def matrix(run: Run, evaluated: Sequence[Sequence[Evaluation]]) -> list[list[str]]:
    """Reward of own contexts at the last position, by who wrote them and who read them."""
    ground = next((g for g in evaluated if any(e.report["writer"] is not None for e in g)), None)
    if ground is None:
        return []
    cells: dict[tuple[str, str], str] = {}
    for e in ground:
        reader = {"before": "base", "after": "trained"}.get(e.when) or Path(e.report["model"]).name
        writer = reader if e.report["writer"] is None else player(run, e.report["writer"])
        if own := e.report["arms"].get("own"):
            cells[writer, reader] = f"{number(own['reward'][-1])} {interval(own['ci95'][-1])}"
    names = list(dict.fromkeys(name for pair in cells for name in pair))
    return [["", *names], *([writer, *(cells.get((writer, reader), DASH) for reader in names)] for writer in names)]


def player(run: Run, model: str) -> str:
    """How a model is called beside a run."""
    if run.name in (Path(model).name, Path(model).parent.name):
        return "trained"
    return "base" if model == run.config.get("model") else Path(model).name
