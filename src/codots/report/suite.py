"""Write a suite as one page: curves by position, and over the steps of a run if its checkpoints were measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from codots.core.files import writable, write_atomically
from codots.evaluation.evaluate import Report
from codots.evaluation.suites import SuiteReport
from codots.report.curves import Curve, position_curves, step_curves
from codots.report.evaluation import REFERENCES
from codots.report.figures import ARM_COLOUR, Figure
from codots.report.multiples import Multiples, Panel, small_multiples
from codots.report.page import asset, hashed, render
from codots.report.svg import STYLE

LAST = ("floor", "ceiling")
"""References of a figure over training steps, which shows the last position."""


def write_suite_page(found: SuiteReport, to: Path) -> Path:
    """Write the page of a suite, and return its path."""
    writable(to)
    style = asset("page.css") + STYLE
    parts = {"multiples": list(multiples(found)), "figures": list(figures(found))}
    steps = list(found.reports.items())
    page = render("suite.html.jinja", suite=found, steps=steps, **parts, style=style, style_hash=hashed(style))
    write_atomically(to, page)
    return to


def multiples(found: SuiteReport) -> Iterator[Multiples]:
    """Yield the evaluations as small multiples: by position at the last step, then over the steps if there are several.

    Attempts at one task have further ones: the fraction of lives that has solved it.
    """
    *_, last = found.reports.values()
    at_last = f", step {list(found.reports)[-1]}" * (len(found.reports) > 1)
    panels = [
        Panel(name, about(report), range(report.size), curves(report), references(report))
        for name, report in last.items()
    ]
    yield small_multiples(f"Reward by position{at_last}", panels, "position")
    panels = [
        Panel(name, about(report), range(report.size), solved(report), {})
        for name, report in last.items()
        if solved(report)
    ]
    if panels:
        yield small_multiples(f"Fraction of lives that have solved their task so far{at_last}", panels, "position")
    if len(found.reports) > 1:
        panels = [
            Panel(name, f"{about(report)}, position {report.size - 1}", *over_steps(steps_of(found, name)))
            for name, report in last.items()
        ]
        yield small_multiples("Reward at the last position, over training", panels, "step")


def about(report: Report) -> str:
    """Return the world of an evaluation and the length of its lives."""
    return f"{report.domain} {report.preset}, {report.size} tasks"


def figures(found: SuiteReport) -> Iterator[Figure]:
    """Yield large figures of each evaluation: rewards over steps if there are several, then by position at the last."""
    *_, last = found.reports.values()
    for name, report in last.items():
        if len(found.reports) > 1:
            steps, lines, bounds = over_steps(steps_of(found, name))
            title = f"{name}: reward at position {report.size - 1} over training"
            levels = {line: values[-1] for line, values in bounds.items()}
            yield Figure(f"{name}-steps", step_curves(steps, lines, title=title, references=levels))
        title = f"{name}: {report.domain} {report.preset}"
        yield Figure(name, position_curves(curves(report), title=title, references=references(report)))
        if lines := solved(report):
            title = f"{name}: fraction that has solved its task so far"
            yield Figure(f"{name}-solved", position_curves(lines, title=title, references={}))


def curves(report: Report) -> list[Curve]:
    """Return the reward of every arm by position."""
    return [Curve(arm, r.reward, r.ci95, ARM_COLOUR[arm]) for arm, r in reversed(report.arms.items())]


def solved(report: Report) -> list[Curve]:
    """Return the fraction of lives that have solved their task, for every arm; [] if tasks do not repeat."""
    arms = reversed(report.arms.items())
    return [Curve(arm, r.solved_by, None, ARM_COLOUR[arm]) for arm, r in arms if r.solved_by]


def references(report: Report) -> dict[str, list[float]]:
    """Return the reference lines of an evaluation."""
    return {line: getattr(report, line) for line in REFERENCES}


def steps_of(found: SuiteReport, name: str) -> dict[int, Report]:
    """Return the reports of one evaluation by step."""
    return {step: reports[name] for step, reports in found.reports.items() if step is not None}


def over_steps(reports: dict[int, Report]) -> tuple[list[int], list[Curve], dict[str, list[float]]]:
    """Return the steps of a run, the reward of every arm at the last position, and the references at each step."""
    last, lines = next(reversed(reports.values())), []
    for arm in reversed(last.arms):
        arms = [report.arms[arm] for report in reports.values()]
        lines.append(Curve(arm, [c.reward[-1] for c in arms], [c.ci95[-1] for c in arms], ARM_COLOUR[arm]))
    return list(reports), lines, {line: [getattr(last, line)[-1]] * len(reports) for line in LAST}
