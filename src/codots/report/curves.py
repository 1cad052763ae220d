"""The two kinds of figure: reward by position in a life, and metrics over training steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from codots.report.svg import (
    LIGHT,
    Frame,
    Point,
    Series,
    axes,
    document,
    dot,
    heights,
    label,
    line,
    lone_dots,
    ticks,
    with_labels,
)

FEW = 20
"""Below this many steps, each value is drawn as a dot and nothing is smoothed."""
CROWDED = 20
"""Below this mean distance between two values, intervals are drawn as a band and values without dots."""


@dataclass(frozen=True)
class Curve:
    """A line of a figure, with one value per position or per step."""

    name: str
    values: Sequence[float]
    ci95: Sequence[Sequence[float]] | None = None
    """Lower and upper end of the 95% interval of each value."""
    colour: int = 0
    """Index into the palette."""
    dotted: bool = False

    @property
    def kind(self) -> str:
        """CSS class of the line's colour."""
        return f"c{self.colour % len(LIGHT)}"


def position_curves(series: Sequence[Curve], *, title: str, references: Mapping[str, Sequence[float]]) -> str:
    """Draw reward by position with 95% intervals, and dashed reference lines."""
    lines = [*(curve.values for curve in series), *references.values()]
    size = max(map(len, lines), default=1)
    frame = Frame((0, size - 1), heights(lines))
    drawn = [reference(name, values, frame, range(size)) for name, values in references.items()]
    for curve, (marks, points) in zip(series, with_intervals(series, frame, "position", range(size)), strict=True):
        drawn.append(Series(marks, label(curve.name, curve.values, points, curve.kind)))
    values = [(curve.name, curve.values) for curve in series] + list(references.items())
    return document(
        title,
        values,
        [axes(frame, ticks(0, size - 1, 12), "position: number of earlier tasks", "mean reward"), with_labels(drawn)],
    )


def step_curves(
    steps: Sequence[float],
    series: Sequence[Curve],
    *,
    title: str,
    unit: str = "mean reward",
    references: Mapping[str, float] | None = None,
    least_top: float = 1.0,
) -> str:
    """Draw values over training steps.

    From FEW steps on, a bold line is the moving mean and a thin line the raw values. With fewer steps, a bold line is
    the raw values.
    """
    fixed = {name: [value] * len(steps) for name, value in (references or {}).items() if steps}
    frame = Frame(
        (min(steps, default=0), max(steps, default=0)),
        heights([*(c.values for c in series), *fixed.values()], least_top),
    )
    top, width = frame.heights[-1], 2 * (len(steps) // FEW) + 1
    drawn = [reference(name, values, frame, steps) for name, values in fixed.items()]
    ends: list[tuple[str, Sequence[float]]] = []
    for curve in series:
        smooth = moving_mean(curve.values, width)
        points = frame.points(steps, smooth)
        marks = line(frame.points(steps, curve.values), f"thin {curve.kind}") if width > 1 else ""
        marks += line(points, f"line {curve.kind}" + " dotted" * curve.dotted)
        marks += dots(curve, points, "step", steps) if len(steps) <= FEW else lone_dots(points, curve.kind)
        drawn.append(Series(marks, label(curve.name, smooth, points, curve.kind, top)))
        ends.append((curve.name, [smooth[0], smooth[-1]] if smooth else []))
    return document(title, ends, [axes(frame, ticks(*frame.x_range), "training step", unit), with_labels(drawn)])


def with_intervals(
    series: Sequence[Curve], frame: Frame, what: str, across: Sequence[float]
) -> Iterator[tuple[str, list[Point]]]:
    """Yield the marks and the points of each line: with bars and dots side by side, or with a band if it is crowded."""
    crowded = frame.area.right - frame.area.left < CROWDED * len(across)
    for i, curve in enumerate(series):
        shift = 0 if crowded else 5 * (i - (len(series) - 1) / 2)
        points = [(x + shift, y) for x, y in frame.points(list(across)[: len(curve.values)], curve.values)]
        marks = line(points, f"line {curve.kind}" + " dotted" * curve.dotted)
        if crowded:
            yield band(curve, points, frame) + marks + lone_dots(points, curve.kind), points
        else:
            yield marks + whiskers(curve, points, frame) + dots(curve, points, what, across), points


def reference(name: str, values: Sequence[float], frame: Frame, across: Sequence[float]) -> Series:
    """Draw a dashed reference line. If it has only one value, the line spans the whole plot."""
    points = frame.points(list(across)[: len(values)], values)
    if len(points) == 1:
        points = [(frame.area.left, points[0][1]), (frame.area.right, points[0][1])]
    return Series(line(points, f"ref {name.partition(' ')[0]}"), label(name, values, points, "ref", frame.heights[-1]))


def whiskers(curve: Curve, points: Sequence[Point], frame: Frame) -> str:
    """Draw the 95% interval of each value."""
    drawn = []
    for x, top, bottom in intervals(curve, points, frame):
        if not math.isnan(x):
            caps = "".join(f"M{x - 4:.1f} {end:.1f}h8" for end in (top, bottom))
            drawn.append(f'<path class="whisker {curve.kind}" d="M{x:.1f} {top:.1f}V{bottom:.1f}{caps}"/>')
    return "".join(drawn)


def band(curve: Curve, points: Sequence[Point], frame: Frame) -> str:
    """Draw the 95% intervals of all values as a band, with a gap where one is missing."""
    drawn = []
    for missing, run in groupby(intervals(curve, points, frame), key=lambda interval: math.isnan(interval[0])):
        if not missing:
            ends = list(run)
            outline = [(x, top) for x, top, _ in ends] + [(x, bottom) for x, _, bottom in reversed(ends)]
            drawn.append(line(outline, f"band {curve.kind}"))
    return "".join(drawn)


def intervals(curve: Curve, points: Sequence[Point], frame: Frame) -> Iterator[tuple[float, float, float]]:
    """Yield the x coordinate and the upper and lower end of each interval, or NaN if there is none."""
    for (x, y), interval in zip(points, curve.ci95 or [], strict=False):
        if not math.isnan(y) and all(map(math.isfinite, interval)):
            yield x, frame.y(interval[1]), frame.y(interval[0])
        else:
            yield math.nan, math.nan, math.nan


def dots(curve: Curve, points: Sequence[Point], what: str, across: Sequence[float]) -> str:
    """Draw each value as a dot whose tooltip shows the value."""
    drawn = []
    for i, (x, y) in enumerate(points):
        if not math.isnan(y):
            tooltip = f"{curve.name}, {what} {across[i]:.0f}: {curve.values[i]:.3f}"
            if curve.ci95 and all(map(math.isfinite, curve.ci95[i])):
                tooltip += " [{:.3f}, {:.3f}]".format(*curve.ci95[i])
            drawn.append(dot(x, y, curve.kind, tooltip))
    return "".join(drawn)


def moving_mean(values: Sequence[float], width: int) -> list[float]:
    """Return the centred moving mean over `width` values, or fewer at both ends. NaN and inf are ignored."""
    windows = [values[max(0, i - width // 2) : i + width // 2 + 1] for i in range(len(values))]
    finite = [[value for value in window if math.isfinite(value)] for window in windows]
    return [sum(window) / len(window) if window else math.nan for window in finite]
