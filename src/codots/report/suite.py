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
from codots.report.page import asset, hashed, render
from codots.report.svg import STYLE


def write_suite_page(found: SuiteReport, to: Path) -> Path:
    """Write the page of a suite, and return its path."""
    writable(to)
    style = asset("page.css") + STYLE
    steps = list(found.reports.items())
    page = render(
        "suite.html.jinja", suite=found, steps=steps, figures=[*figures(found)], style=style, style_hash=hashed(style)
    )
    write_atomically(to, page)
    return to


def figures(found: SuiteReport) -> Iterator[Figure]:
    """Yield the figures of each evaluation: rewards over steps if there are several, then by position at the last."""
    *_, last = found.reports.values()
    for name, report in last.items():
        steps = [step for step, reports in found.reports.items() if step is not None and name in reports]
        if len(steps) > 1:
            yield over_steps(name, {step: found.reports[step][name] for step in steps})
        shown = [Curve(arm, r.reward, r.ci95, ARM_COLOUR[arm]) for arm, r in reversed(report.arms.items())]
        references = {line: getattr(report, line) for line in REFERENCES}
        drawn = position_curves(shown, title=f"{name}: {report.domain} {report.preset}", references=references)
        yield Figure(name, drawn)
        if any(arm.solved_by for arm in report.arms.values()):
            solved = [Curve(arm, r.solved_by or [], None, ARM_COLOUR[arm]) for arm, r in reversed(report.arms.items())]
            drawn = position_curves(solved, title=f"{name}: fraction that has solved its task so far", references={})
            yield Figure(f"{name}-solved", drawn)


def over_steps(name: str, reports: dict[int, Report]) -> Figure:
    """Draw the reward of every arm at the last position over the steps of a run."""
    steps, last = list(reports), next(reversed(reports.values()))
    lines = []
    for arm in reversed(last.arms):
        curves = [report.arms[arm] for report in reports.values()]
        lines.append(Curve(arm, [c.reward[-1] for c in curves], [c.ci95[-1] for c in curves], ARM_COLOUR[arm]))
    references = {line: getattr(last, line)[-1] for line in ("floor", "ceiling")}
    title = f"{name}: reward at position {last.size - 1} over training"
    return Figure(f"{name}-steps", step_curves(steps, lines, title=title, references=references))
