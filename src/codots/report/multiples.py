"""Small multiples: a grid of small figures with one y axis and one legend, such as one for each world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from codots.report.curves import FEW, Curve, moving_mean, reference, with_intervals
from codots.report.figures import Figure, levels_of, training_curves
from codots.report.run import RunRecord
from codots.report.svg import PANEL, Frame, document, grid, heights, svg_text, ticks


@dataclass(frozen=True)
class Panel:
    """The content of one small figure."""

    name: str
    about: str
    """Second line of the title."""
    across: Sequence[float]
    """Positions or steps."""
    curves: Sequence[Curve]
    references: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Multiples:
    """A grid of small figures."""

    title: str
    axis: str
    """What the x axis shows."""
    legend: list[Figure]
    """A stroke in the style of each line, under the name of the line."""
    panels: list[Figure]


def small_multiples(title: str, panels: Sequence[Panel], axis: str) -> Multiples:
    """Draw panels on a common y axis."""
    ranges = heights(values for one in panels for values in (*(c.values for c in one.curves), *one.references.values()))
    kinds = {name: f"ref {name.partition(' ')[0]}" for one in panels for name in one.references}
    lines = {c.name: f"line {c.kind}" + " dotted" * c.dotted for one in panels for c in one.curves}
    keys = dict(reversed(lines.items())) | dict(reversed(kinds.items()))
    return Multiples(
        title,
        axis,
        [Figure(name, stroke(kind)) for name, kind in keys.items()],
        [Figure(one.name, drawn(one, ranges, title, axis)) for one in panels],
    )


def worlds(run: RunRecord) -> Multiples | None:
    """Draw the rewards of the training lives of each world of a recipe. Returns None if it has only one."""
    panels = []
    for label in run.labels:
        width = 2 * (len(run.steps) // FEW) + 1
        shown = [replace(one, values=moving_mean(one.values, width)) for one in training_curves(run, label)]
        levels = {name: [value] * len(run.steps) for name, value in levels_of(run, label).items()}
        panels.append(Panel(label.rstrip("/"), f"{len(shown)} tasks", run.steps, shown, levels))
    several = len(panels) > 1 and all(one.curves for one in panels)
    return small_multiples("Reward while training, by world", panels, "step") if several else None


def drawn(panel: Panel, ranges: Sequence[float], title: str, axis: str) -> str:
    """Draw one panel."""
    frame = Frame((panel.across[0], panel.across[-1]), ranges, PANEL)
    lines = [reference(name, values, frame, panel.across).marks for name, values in panel.references.items()]
    lines += [marks for marks, _ in with_intervals(panel.curves, frame, axis, panel.across)]
    marks = "".join(f'<g class="series">{one}</g>' for one in lines)
    values = [(curve.name, curve.values) for curve in panel.curves] + list(panel.references.items())
    parts = [svg_text(14, 43, panel.about, "soft"), grid(frame, ticks(*frame.x_range)), marks]
    return document(f"{panel.name}: {title}", values, parts, PANEL, head=panel.name)


def stroke(kind: str) -> str:
    """Draw a short line of a legend."""
    return (
        f'<svg class="codots panel key" viewBox="0 0 30 12" aria-hidden="true"><path class="{kind}" d="M2 6H28"/></svg>'
    )
