"""Build the report page of one or several runs: headline, figures, tables, and a reader of the recorded lives."""

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
from codots.report.figures import FIRST, FIRST_TAUGHT, Figure, figures, last_reward, side_by_side, write_figures
from codots.report.lives import LifeList, choose_life, index, packed, read_lives
from codots.report.multiples import Multiples, worlds
from codots.report.run import RunRecord, by_setting, is_exact, mean, read_run, references_of, unique_names
from codots.report.svg import STYLE, without_style

DASH, MINUS = "\u2013", "\u2212"
REPORT = "report.html"
"""File name of the page in a run folder."""
SCRIPTS = ("diff.js", "board.js", "list.js", "reader.js", "page.js")


@dataclass(frozen=True)
class Headline:
    """The numbers in the first sentences of a page. All of them are of the last position, except `alone`."""

    before: float | None
    """Reward before training, or in the first steps if `trained`. None if it was not measured."""
    after: float
    """Reward after training, or in the last steps if `trained`."""
    trained: bool
    """Whether the rewards are those of training lives, because the run has no evaluation after training."""
    alone: float | None
    """Reward of bayes at position 0; the best possible without a context if `exact`. None if it is not known."""
    exact: bool
    """Whether bayes is optimal, so that no policy can expect more than `alone` if it has no context."""
    share_ci95: Sequence[float] | None
    """95% interval of the share. None if the share was not computed."""
    worked: bool
    """Whether the 95% interval after training lies above the one before, and the lift is significantly above 0."""

    @property
    def needs_contexts(self) -> bool:
        """Whether the reward is significantly above the best possible reward without a context."""
        return self.exact and self.share_ci95 is not None and (self.share_ci95[0] or 0) > 0


@dataclass(frozen=True)
class RunSection:
    """The section of one run on the page."""

    run: RunRecord
    head: Headline | None
    figures: list[Figure]
    worlds: Multiples | None
    """The rewards of the training lives, if the recipe has several worlds."""
    groups: list[list[Evaluation]]
    """Evaluations grouped by setting."""
    matrix: list[list[str]]
    """Table of rewards by writer and reader, with a header row. Empty if no evaluation has another writer."""
    lives: LifeList
    first: int
    """Index of the life to open first."""
    why: str
    """Explanation of why that life was chosen."""

    @property
    def main_figures(self) -> list[Figure]:
        """The figures that are shown expanded: the first figure of each caption that the page puts first."""
        first = [*FIRST, *FIRST_TAUGHT] if self.run.taught else [*FIRST]
        if self.worlds:  # they show every world in place of the first
            first.remove("training")
        return list({figure.caption: figure for figure in reversed(self.figures) if figure.caption in first}.values())[
            ::-1
        ]

    @property
    def more_figures(self) -> list[Figure]:
        """All other figures."""
        return [figure for figure in self.figures if figure not in self.main_figures]


def write_report(folders: Sequence[Path], to: Path, *, with_figures: bool = False) -> list[Path]:
    """Write one page about run folders, and return the paths of the written files.

    If `with_figures` is true, also write the figures as files to `figures/` next to the page. Raises ValueError for a
    folder that is not a run, and for files that cannot be read.
    """
    runs = [read_run(folder) for folder in folders]
    writable(to)
    page = build([section(run) for run in runs])
    written = []
    if with_figures:
        several = len(runs) > 1
        shown = [(name if several else "", figures(run)) for name, run in zip(unique_names(runs), runs, strict=True)]
        for name, found in [("", side_by_side(runs)), *shown] if several else shown:
            written += write_figures(to.parent / "figures" / name, found)
    write_atomically(to, page)
    return [to, *written]


def section(run: RunRecord) -> RunSection:
    """Collect the content of the section of one run."""
    lives = read_lives(run.rows)
    first, why = choose_life(lives.lives)
    groups = list(by_setting(run))
    return RunSection(run, headline(run), figures(run), worlds(run), groups, matrix(run, groups), lives, first, why)


def build(sections: Sequence[RunSection], live: str = "") -> str:
    """Build the self-contained page. The page polls the URL `live` for changes unless `live` is empty."""
    script = "\n".join(asset(name) for name in SCRIPTS)
    style = asset("page.css") + STYLE
    data = {
        "runs": [
            {"name": s.run.name, "first": s.first, "every": s.lives.every, **index(s.lives.lives)} for s in sections
        ],
        "live": live,
    }
    return render(
        "page.html.jinja",
        sections=sections,
        several=side_by_side([s.run for s in sections]) if len(sections) > 1 else [],
        data=safe_json(data),
        pieces=[packed(s.lives.lives) for s in sections],
        style=style,
        style_hash=hashed(style),
        script=script,
        script_hash=hashed(script),
        live=live,
    )


def asset(name: str) -> str:
    """Read a file from `assets`."""
    return (files("codots.report") / "assets" / name).read_text(encoding="utf-8")


def hashed(text: str) -> str:
    """Return the Content-Security-Policy hash that allows exactly this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def safe_json(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element: `<` and similar characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
        .encode("utf-8", "replace")
        .decode()
    )


def render(name: str, **values: Any) -> str:
    """Render a template. All values are escaped except `style`, `script` and `data`."""
    environment = Environment(
        loader=PackageLoader("codots.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "interval": interval, "span": span}
    environment.filters["drawn"] = lambda figure: Markup(without_style(figure.svg))
    ready = {key: Markup(value) if key in ("style", "script", "data") else value for key, value in values.items()}
    return str(environment.get_template(name).render(**ready))


def number(value: float | None, digits: int = 2) -> str:
    """Format a number. None and values that are not finite become a dash."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """Format a number with its sign."""
    text = number(value)
    return text if text[0] in (DASH, MINUS) else f"+{text}"


def interval(ends: Sequence[float | None]) -> str:
    """Format an interval."""
    return f"[{number(ends[0])}, {number(ends[1])}]"


def span(seconds: float) -> str:
    """Format a duration in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def headline(run: RunRecord) -> Headline | None:
    """Return the headline of a run, from its evaluation after training if there is one, otherwise from training lives.

    Returns None if there are no rewards.
    """
    own = [e for e in run.evaluations if "own" in e.report["arms"] and e.report["writer"] is None]
    after = next((e for e in own if e.when == "after"), None)
    if after is None:
        return training_headline(run)
    before = next((e for e in own if e.when == "before" and e.setting == after.setting), None)
    reached, share = after.report["arms"]["own"], after.report["share_ci95"]
    return Headline(
        before=before.report["arms"]["own"]["reward"][-1] if before else None,
        after=reached["reward"][-1],
        trained=False,
        alone=after.report["bayes"][0],
        exact=is_exact(after.report["domain"], after.report["preset"]),
        share_ci95=share and share[-1],
        worked=before is not None and rose(before.report["arms"]["own"], reached, after.report["lift_ci95"]),
    )


def rose(before: dict[str, Any], after: dict[str, Any], lift: Sequence[Sequence[float]] | None) -> bool:
    """Return whether the 95% interval after training lies above the one before, and the lift is significantly above 0.

    Both are taken at the last position.
    """
    low, high = after["ci95"][-1][0], before["ci95"][-1][1]
    return bool(None not in (low, high) and low > high and lift and (lift[-1][0] or 0) > 0)


def training_headline(run: RunRecord) -> Headline | None:
    """Compare rewards at the last position in the first and in the last tenth of the steps, averaged over entries.

    Returns None if there are no rewards.
    """
    several = len(run.labels) > 1
    names = [last_reward(run, label) for label in run.labels] if several else [f"reward/{run.size - 1}"]
    means = [mean(np.array(values)) for values in zip(*map(run.column, names), strict=True)]
    rewards = [value for value in means if math.isfinite(value)]
    if not rewards:
        return None
    few, bayes = max(1, len(rewards) // 10), None if several else references_of(run).get("bayes")
    first, last = sum(rewards[:few]) / few, sum(rewards[-few:]) / few
    exact = is_exact(*(str(run.config.get(key, "")) for key in ("domain", "preset")))
    return Headline(first if len(rewards) > 1 else None, last, True, bayes[0] if bayes else None, exact, None, False)


def matrix(run: RunRecord, groups: Sequence[Sequence[Evaluation]]) -> list[list[str]]:
    """Return a table of the rewards at the last position, by writer and reader of the contexts.

    Returns [] if no evaluation has another writer.
    """
    group = next((g for g in groups if any(e.report["writer"] is not None for e in g)), None)
    if group is None:
        return []
    cells: dict[tuple[str, str], str] = {}
    for e in group:
        reader = {"before": "base", "after": "trained"}.get(e.when) or Path(e.report["model"]).name
        writer = reader if e.report["writer"] is None else model_label(run, e.report["writer"])
        if own := e.report["arms"].get("own"):
            cells[writer, reader] = f"{number(own['reward'][-1])} {interval(own['ci95'][-1])}"
    names = list(dict.fromkeys(name for pair in cells for name in pair))
    return [["", *names], *([writer, *(cells.get((writer, reader), DASH) for reader in names)] for writer in names)]


def model_label(run: RunRecord, model: str) -> str:
    """Return `trained` for the model that the run trained, `base` for the model in its recipe, otherwise its name."""
    if run.name in (Path(model).name, Path(model).parent.name):
        return "trained"
    return "base" if model == run.config.get("model") else Path(model).name
