"""Write the transfer matrix: the lift of several models in each evaluation of one suite, and where it is not 0."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from codots.core.files import writable, write_atomically
from codots.evaluation.suites import SUMMARY
from codots.report.evaluation import checked, worlds_of
from codots.report.page import asset, hashed, render
from codots.report.run import is_run, read_recipe

MATRIX = "matrix.html"
"""File name of the page."""
SAME = ("domain", "preset", "split", "n_packs", "size", "seed")
"""Settings of an evaluation that all suites of a matrix share."""
SHADES = 4
"""Number of shades of a colour."""
DARKEST = 0.4
"""Smallest lift that may get the darkest shade."""
Reports = dict[str, dict[str, Any]]
"""Reports of `evaluate` by the name of the evaluation."""


@dataclass(frozen=True)
class SuiteResult:
    """A suite as its folder keeps it."""

    folder: Path
    suite: str
    model: str
    reports: Reports
    """Reports of the model, or of the last checkpoint of a run."""
    start: Reports | None
    """Reports of the model that the run started from. None if it was not measured."""


@dataclass(frozen=True)
class Cell:
    """The lift of a model in an evaluation at the last position."""

    lift: float | None
    ci95: Sequence[float | None]
    gain: float | None = None
    """Difference to the lift of the model that the run started from. None if either is not known."""
    trained: bool = False
    """Whether the model was trained on the domain and the preset of the evaluation."""

    @property
    def sign(self) -> str:
        """Return `above 0` or `below 0` if the interval excludes 0, otherwise ''."""
        low, high = self.ci95
        if low is None or high is None:
            return ""
        return "above 0" if low > 0 else "below 0" if high < 0 else ""

    def shade(self, darkest: float) -> str:
        """Return the CSS class of the colour, given the lift of the darkest one, or '' for no lift."""
        level = ceil(SHADES * abs(self.lift or 0) / darkest - 1e-9)
        return f"{'up' if (self.lift or 0) > 0 else 'down'}-{level}" if level else ""


@dataclass(frozen=True)
class ModelRow:
    """A row of the matrix."""

    name: str
    about: str
    cells: list[Cell]


def is_suite_result(folder: Path) -> bool:
    """Return whether a folder has the results of a suite and is not a run."""
    return (folder / SUMMARY).is_file() and not is_run(folder)


def write_matrix(folders: Sequence[Path], to: Path) -> Path:
    """Write the matrix of the results of one suite for several models, and return its path.

    Raises ValueError if a folder has no results of a suite, or those of another suite or of other packs.
    """
    found = [read_result(folder) for folder in folders]
    for other in found[1:]:
        check_same(found[0], other)
    writable(to)
    table = [*starts(found), *rows(found)]
    lifts = [abs(cell.lift) for row in table for cell in row.cells if cell.lift is not None]
    style = asset("page.css")
    page = render(
        "matrix.html.jinja",
        suite=found[0].suite,
        evaluations=found[0].reports,
        rows=table,
        darkest=max([*lifts, DARKEST]),
        style=style,
        style_hash=hashed(style),
    )
    write_atomically(to, page)
    return to


def read_result(folder: Path) -> SuiteResult:
    """Read the results of a suite. Raises ValueError if there are none, or if an evaluation has no lift."""
    path = folder / SUMMARY
    if not path.is_file():
        raise ValueError(f"{folder} has no {SUMMARY}; expected the folder of a suite that `codots eval` has finished")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        steps = {entry["step"]: dict(entry["evaluations"]) for entry in content["steps"]}
        *_, last = steps
        suite, model = str(content["suite"]), str(content["model"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a summary of a suite") from error
    for reports in (steps[last], steps.get(0, {})):
        for name, report in reports.items():
            if not checked(path, report)["lift"]:
                raise ValueError(f"{path}: {name} has no lift; evaluate it with the arms own and null")
    return SuiteResult(folder, suite, model, steps[last], None if last == 0 else steps.get(0))


def check_same(one: SuiteResult, other: SuiteResult) -> None:
    """Raise ValueError unless both are results of the same suite with equal packs."""
    if one.suite != other.suite:
        raise ValueError(
            f"{other.folder} is of the suite {other.suite}, {one.folder} of {one.suite}; expected one suite"
        )
    if one.reports.keys() != other.reports.keys():
        names = " ".join(sorted(one.reports.keys() ^ other.reports.keys()))
        raise ValueError(f"only one of {one.folder} and {other.folder} has {names}; expected the same evaluations")
    for name, report in one.reports.items():
        for key in SAME:
            here, there = report.get(key), other.reports[name].get(key)
            if here != there:
                where = f"{name} has {key} {there} in {other.folder}, {here} in {one.folder}"
                raise ValueError(f"{where}; expected equal packs")


def starts(found: Sequence[SuiteResult]) -> Iterator[ModelRow]:
    """Yield a row for each model that a run started from, unless it has a folder of its own.

    Runs with the same start share a row.
    """
    names = list(found[0].reports)
    given = [measured(one.reports, names) for one in found]
    shared: dict[str, list[SuiteResult]] = {}
    for one in found:
        if one.start is not None and measured(one.start, names) not in given:
            shared.setdefault(measured(one.start, names), []).append(one)
    for runs in shared.values():
        reports = [(runs[0].start or {})[name] for name in names]
        about = f"start of {', '.join(Path(one.model).name for one in runs)}"
        yield ModelRow(Path(reports[0]["model"]).name, about, [cell(report) for report in reports])


def measured(reports: Reports, names: Sequence[str]) -> str:
    """Return a text that is equal for equal models with equal lifts."""
    return json.dumps([[reports[name]["model"], reports[name]["lift"]] for name in names])


def rows(found: Sequence[SuiteResult]) -> Iterator[ModelRow]:
    """Yield a row for each model."""
    names = [Path(one.model).name for one in found]
    for one, name in zip(found, names, strict=True):
        recipe = worlds_of(read_recipe(Path(one.model) / "config.yaml"))
        worlds = {
            f"{world['domain']} {world['preset']}": None for world in recipe if {"domain", "preset"} <= world.keys()
        }
        yield ModelRow(
            name if names.count(name) == 1 else str(one.folder),
            f"trained on {', '.join(worlds)}" if worlds else "",
            [
                cell(
                    one.reports[key],
                    (one.start or {}).get(key),
                    trained=f"{report['domain']} {report['preset']}" in worlds,
                )
                for key, report in found[0].reports.items()
            ],
        )


def cell(report: dict[str, Any], start: dict[str, Any] | None = None, trained: bool = False) -> Cell:
    """Return the cell of an evaluation, compared with that of the start if there is one."""
    lift, before = report["lift"][-1], None if start is None else start["lift"][-1]
    gain = None if lift is None or before is None else lift - before
    return Cell(lift, report["lift_ci95"][-1], gain, trained)
