"""Draw self-contained SVG figures with axes, lines that are labelled at their ends, and a colour-blind safe palette."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from scipy.optimize import isotonic_regression

WIDTH, HEIGHT = 520, 370
LEFT, RIGHT, TOP, BOTTOM = 46, 380, 62, 314
"""Edges of the plot area. The labels are to the right of the plot area."""
GAP = 19
"""Minimum distance between the baselines of two labels."""
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#B85C91", "#B87A00", "#5F6B76", "#000000")
DARK = ("#56B4E9", "#E69F00", "#2FBF94", "#CC79A7", "#F0E442", "#AEB9C4", "#FFFFFF")
"""The colour-blind safe palette of Okabe and Ito, with a grey. The pale colours are darkened for a white background."""
FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML does not allow, even escaped."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Area:
    """The size of a figure and the edges of its plot area."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    kind: str = "codots"
    """CSS classes of the figure."""


FIGURE = Area(WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM)
PANEL = Area(300, 212, 42, 290, 60, 184, "codots panel")
"""A small figure of a grid. It has a shared legend instead of labels."""


@dataclass(frozen=True)
class Label:
    """Text at the end of a line."""

    text: str
    end: Point
    kind: str
    """CSS class of the colour."""


@dataclass(frozen=True)
class Series:
    """The marks of one line, and the label of the line. The label is None if the line has no values."""

    marks: str
    label: Label | None


@dataclass(frozen=True)
class Frame:
    """Mapping from data coordinates to drawing coordinates."""

    x_range: tuple[float, float]
    heights: Sequence[float]
    """Tick values of the y axis. The plot reaches from the first tick to the last."""
    area: Area = FIGURE

    def x(self, value: float) -> float:
        """Return the x coordinate of a value. The value is centred if the x axis has only one value."""
        (low, high), left, right = self.x_range, self.area.left + 18, self.area.right - 18
        return left + (right - left) * (0.5 if low == high else (value - low) / (high - low))

    def y(self, value: float) -> float:
        """Return the y coordinate of a value, clipped to the plot."""
        low, high, top, bottom = self.heights[0], self.heights[-1], self.area.top, self.area.bottom
        return bottom - (bottom - top) * min(1.0, max(0.0, (value - low) / (high - low)))

    def points(self, xs: Iterable[float], ys: Iterable[float]) -> list[Point]:
        """Return the points of a line. The y coordinate is NaN if the value is not finite."""
        return [(self.x(x), self.y(y) if math.isfinite(y) else math.nan) for x, y in zip(xs, ys, strict=True)]


def heights(lines: Iterable[Sequence[float]], least_top: float = 1.0) -> list[float]:
    """Return a few round tick values whose range includes 0, `least_top` and all values."""
    values = [value for line in lines for value in line if math.isfinite(value)]
    low, high = min([0.0, *values]), max([least_top, *values])
    sizes = (base * 10.0**power for power in range(-12, 300) for base in (1, 2, 2.5, 5))
    size = next(size for size in sizes if (high - low) / size < 4.001)
    return [size * i for i in range(math.floor(low / size + 1e-6), math.ceil(high / size - 1e-6) + 1)]


def ticks(low: float, high: float, max_ticks: int = 6) -> list[float]:
    """Return integer tick values between `low` and `high`, at round distances and at most `max_ticks` of them."""
    sizes = (base * 10**power for power in range(12) for base in (1, 2, 5))
    size = next(size for size in sizes if (high - low) / size < max_ticks)
    return [float(at) for at in range(math.ceil(low / size) * size, math.floor(high) + 1, size)]


def short(value: float, top: float) -> str:
    """Format a value of a tick or label. `top` is the upper end of the y axis."""
    if 0 < top <= 0.1:  # no more decimals than the axis can show, so that labels stay short
        return f"{round(value, 2 - math.floor(math.log10(top))):.2g}"
    if top <= 20:
        return f"{value:.2f}"
    return f"{value:.0f}" if top < 10_000 else f"{value / 1000:.3g}k"


def nudge(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Return heights near the wanted ones that are at least GAP apart, with the smallest sum of squared shifts.

    The heights lie between `low` and `high` if there is enough room.
    """
    if not wanted:
        return []
    order, steps = np.argsort(wanted, kind="stable"), GAP * np.arange(len(wanted))
    apart = isotonic_regression(np.asarray(wanted, dtype=float)[order] - steps).x
    placed = np.empty(len(wanted))
    placed[order] = np.clip(apart, low, max(low, high - steps[-1])) + steps
    return [float(height) for height in placed]


def axes(frame: Frame, across: Sequence[float], title: str, unit: str) -> str:
    """Draw the grid, the ticks and the axis titles."""
    titles = svg_text((LEFT + RIGHT) / 2, BOTTOM + 44, title, "soft", "middle") + svg_text(14, TOP - 14, unit, "soft")
    return grid(frame, across) + titles


def grid(frame: Frame, across: Sequence[float]) -> str:
    """Draw the grid and the ticks."""
    area, top = frame.area, frame.heights[-1]
    return "".join(
        [
            *(f'<path class="grid" d="M{area.left} {frame.y(v):.1f}H{area.right}"/>' for v in frame.heights),
            *(svg_text(area.left - 8, frame.y(v) + 5, short(v, top), "soft", "end") for v in frame.heights),
            *(svg_text(frame.x(v), area.bottom + 22, f"{v:.0f}", "soft", "middle") for v in across),
        ]
    )


def line(points: Sequence[Point], kind: str) -> str:
    """Draw a line with a break at each NaN."""
    parts, pen = [], "M"
    for x, y in points:
        if math.isnan(y):
            pen = "M"
        else:
            parts.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
    return f'<path class="{kind}" d="{"".join(parts)}"/>' if parts else ""


def lone_dots(points: Sequence[Point], kind: str) -> str:
    """Draw a dot at each value with NaN or nothing on both sides, because a line does not show such a value."""
    missing = [True, *(math.isnan(y) for _, y in points), True]
    lone = [p for i, p in enumerate(points) if missing[i] and not missing[i + 1] and missing[i + 2]]
    return "".join(dot(x, y, kind) for x, y in lone)


def dot(x: float, y: float, kind: str, tooltip: str = "") -> str:
    """Draw a dot with an optional tooltip."""
    inside = f"<title>{xml(tooltip)}</title>" if tooltip else ""
    return f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{inside}</circle>'


def label(name: str, values: Sequence[float], points: Sequence[Point], kind: str, top: float = 1.0) -> Label | None:
    """Return a label with the name and the last value of a line, or None if the line has no values."""
    finite = [value for value in values if math.isfinite(value)]
    ends = [point for point in points if not math.isnan(point[1])]
    return Label(f"{short(finite[-1], top)} {name}", ends[-1], kind) if finite else None


def with_labels(series: Sequence[Series]) -> str:
    """Draw lines, with their labels to the right of the plot. Labels are left out evenly if not all of them fit."""
    labels = [one.label for one in series if one.label]
    capacity = (BOTTOM - TOP + GAP) // GAP
    shown = [labels[round(i)] for i in np.linspace(0, len(labels) - 1, min(capacity, len(labels)))]
    heights = dict(zip(map(id, shown), nudge([one.end[1] for one in shown], TOP, BOTTOM), strict=True))
    groups = []
    for one in series:
        height = heights.get(id(one.label))
        named = "" if one.label is None or height is None else end_label(one.label, height)
        groups.append(f'<g class="series">{one.marks}{named}</g>')
    return "".join(groups)


def end_label(one: Label, height: float) -> str:
    """Draw a label, and a thin line from the label to the end of its series."""
    start = f"M{one.end[0] + 7:.1f} {one.end[1]:.1f}H{max(one.end[0] + 7, RIGHT - 8):.1f}"
    tie = f'<path class="tie {one.kind}" d="{start}L{RIGHT + 8} {height:.1f}h4"/>'
    return tie + svg_text(RIGHT + 17, height + 5, one.text, "soft" if one.kind == "ref" else "ink")


def svg_text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    """Draw text."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{xml(text)}</text>'


def xml(text: str) -> str:
    """Escape text, and remove the characters that XML does not allow."""
    return escape(FORBIDDEN.sub("", text))


def document(
    title: str,
    values: Iterable[tuple[str, Sequence[float]]],
    marks: Iterable[str],
    area: Area = FIGURE,
    head: str | None = None,
) -> str:
    """Return a figure as SVG, with a description for screen readers that lists the values.

    `head` is drawn in place of the title if the title is not needed in full.
    """
    description = xml(
        " ".join(
            f"{name}: {', '.join(f'{v:.2f}' if math.isfinite(v) else 'none' for v in line)}." for name, line in values
        )
    )
    id = f"codots-{zlib.crc32(f'{xml(title)} {description}'.encode()):08x}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{area.kind}" viewBox="0 0 {area.width} {area.height}"'
        f' role="img" aria-labelledby="{id}-t {id}-d"><title id="{id}-t">{xml(title)}</title>'
        f'<desc id="{id}-d">{description}</desc><style>{STYLE}</style>'
        f'<rect class="paper" x=".5" y=".5" width="{area.width - 1}" height="{area.height - 1}" rx="10"/>'
        f"{svg_text(14, 26, head or title, 'ink head')}{''.join(marks)}</svg>\n"
    )


def without_style(svg: str) -> str:
    """Return a figure without STYLE, for a page that already contains STYLE."""
    return svg.replace(f"<style>{STYLE}</style>", "")


def colours(palette: Sequence[str], paper: str, edge: str, grid: str, ink: str, soft: str) -> str:
    """Return the CSS of one colour scheme."""
    own = "".join(
        f".codots .c{i}{{stroke:{c}}}.codots .dot.c{i},.codots .band.c{i}{{fill:{c}}}" for i, c in enumerate(palette)
    )
    return (
        f"{own}.codots .paper{{fill:{paper};stroke:{edge}}}.codots .dot{{stroke:{paper}}}.codots .grid{{stroke:{grid}}}"
        f".codots .ink{{fill:{ink}}}.codots .soft{{fill:{soft}}}.codots .ref{{stroke:{soft}}}"
    )


STYLE = (
    ".codots{font:15px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,"
    "'Noto Sans','Liberation Sans','DejaVu Sans',sans-serif}"  # by name, because resvg resolves sans-serif to Arial
    ".codots text{font-variant-numeric:tabular-nums}"
    ".codots path{fill:none;stroke-linecap:round;stroke-linejoin:round}.codots .head{font-weight:650;font-size:16px}"
    ".codots .line{stroke-width:2.6}.codots .line.dotted{stroke-dasharray:.1 6}.codots .thin{opacity:.3}"
    ".codots .ref{stroke-width:1.5;stroke-dasharray:6 5}.codots .tie{stroke-width:1;opacity:.65;stroke-dasharray:none}"
    ".codots path.band{stroke:none;opacity:.16}.codots.panel{font-size:12.5px}.codots.panel .head{font-size:14px}"
    ".codots.panel .line{stroke-width:2.2}.codots.panel .ref.floor{stroke-dasharray:.1 4.5}"
    ".codots.panel .ref.ceiling{stroke-dasharray:16 4}.codots.panel .dot{r:3.5px}"
    ".codots .whisker{stroke-width:1.5;opacity:.8}.codots .dot{stroke-width:1.5}"
    + colours(LIGHT, "#ffffff", "#d5dae0", "#e8ebef", "#1c2127", "#59636e")
    + f"@media(prefers-color-scheme:dark){{{colours(DARK, '#12171d', '#323a43', '#252c34', '#eef1f4', '#a3adb8')}}}"
)
