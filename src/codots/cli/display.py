"""Tables, and progress displays on stderr, which keep stdout free for results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from codots.cli.lines import Lines, ticking

if TYPE_CHECKING:
    from codots.config.load import Key
    from codots.domains.catalog import DomainInfo
    from codots.evaluation.evaluate import Report
    from codots.evaluation.rescore import Change
    from codots.evaluation.suites import SuiteReport
    from codots.preflight.doctor import Finding
    from codots.preflight.estimate import Estimate

errors = Console(stderr=True)


def bar() -> Progress:
    """Return a progress bar that shows a description, a count, the elapsed time and the remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=errors,
    )


def print_line(line: str) -> None:
    """Print a line to stderr as it is, however long."""
    errors.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def counting(what: str, *, together: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of each part of a long operation.

    If stderr is not a terminal, print a line at each tenth of a part, and at least every 30 seconds. If `together` is
    true, all parts share one progress bar, which names the current part.
    """
    if not errors.is_terminal:
        lines = Lines(print_line)
        lines.stage(f"{what}: starting")
        with ticking(lines):
            yield lambda part, done, total: lines.update(
                "" if together else part, done, total, f"{what} {part}: {done} of {total}"
            )
        return
    with bar() as progress:
        tasks: dict[str, Any] = {}

        def on_progress(part: str, done: int, total: int) -> None:
            bar = "" if together else part
            if bar not in tasks:
                tasks[bar] = progress.add_task("", total=total)
            progress.update(tasks[bar], completed=done, description=f"{what} {part}")

        yield on_progress


def report_table(report: Report) -> Table:
    """Return a table of the curves of an evaluation."""
    from codots.rollout.records import UNANSWERED

    sampled = f"{report.n_packs} packs at temperature {report.temperature:g}"
    by = f", contexts by {report.writer} at temperature {report.writer_temperature:g}" if report.writer else ""
    cut = f", transcript and notes of at most {report.context_tokens} tokens" if report.context_tokens else ""
    table = Table(title=f"{report.model} on {report.domain} {report.preset} {report.split}, {sampled}{by}{cut}")
    table.add_column("")
    for j in range(report.size):
        table.add_column(f"position {j}", justify="right")
    for arm, curves in report.arms.items():
        table.add_row(f"{arm} reward", *with_intervals(curves.reward, curves.ci95))
        table.add_row(f"{arm} success", *with_intervals(curves.success, curves.success_ci95), style="dim")
        if curves.tokens_out:
            pairs = zip(curves.tokens_in or [math.nan] * report.size, curves.tokens_out, strict=True)
            table.add_row(f"{arm} tokens in, out", *(f"{read:.0f}, {wrote:.0f}" for read, wrote in pairs), style="dim")
        if curves.solved_by is not None:
            table.add_row(f"{arm} solved so far", *(f"{value:.3f}" for value in curves.solved_by), style="dim")
        if curves.tokens_per_success is not None:
            table.add_row(f"{arm}: {curves.tokens_per_success:g} tokens per life that succeeded", style="dim")
        for shares, cause in ((curves.cut, "replies cut at solve_tokens"), (curves.no_room, "no room: max_model_len")):
            if any(share >= 0.01 for share in shares):
                table.add_row(f"{arm}: {cause}", *(f"{share:.0%}" for share in shares), style="yellow")
        for end, count in curves.unanswered.items():
            table.add_row(f"{arm}: {count} replies {UNANSWERED[end][0]}", style="yellow")
        if curves.cut_updates >= 0.01:
            table.add_row(f"{arm}: {curves.cut_updates:.0%} of rewrites cut at update_tokens", style="yellow")
        if curves.diverged:
            table.add_row(f"{arm}: diverged, sample again", *map(str, curves.diverged), style="red")
        if curves.missing:
            table.add_row(f"{arm}: {curves.missing} lives are missing", style="red")
    table.add_section()
    for name in ("lift", "share", "shuffled_lift"):
        values, intervals = getattr(report, name), getattr(report, f"{name}_ci95")
        if values is not None:
            table.add_row(name.replace("_", " "), *with_intervals(values, intervals, "+"))
    if report.hurt is not None:
        table.add_row("hurt by the context", *(f"{value:.1%}" for value in report.hurt))
    table.add_section()
    for name in ("floor", "bayes", "ceiling"):
        table.add_row(name, *(f"{value:.3f}" for value in getattr(report, name)))
    return table


def suite_tables(found: SuiteReport) -> Iterator[Table]:
    """Yield a table for each step of a suite, with one row per evaluation, at the first and the last position."""
    for step, reports in found.reports.items():
        at = "" if step is None else f", step {step}"
        table = Table("", title=f"{found.name}: {found.model}{at}")
        for name in ("own, first", "own, last", "null, last", "lift, last", "share, last", "malformed", "tokens"):
            table.add_column(name, justify="right")
        for name, report in reports.items():
            own, null = report.arms.get("own"), report.arms.get("null")
            malformed = max(max(arm.malformed, default=0.0) for arm in report.arms.values())
            table.add_row(
                f"{name} ({report.n_packs} packs)",
                "" if own is None else with_intervals(own.reward, own.ci95)[0],
                "" if own is None else with_intervals(own.reward, own.ci95)[-1],
                "" if null is None else with_intervals(null.reward, null.ci95)[-1],
                "" if report.lift is None else with_intervals(report.lift, report.lift_ci95 or [], "+")[-1],
                "" if report.share is None else with_intervals(report.share, report.share_ci95 or [], "+")[-1],
                f"{malformed:.1%}",
                f"{report.tokens:,}",
            )
        yield table


def changes_table(title: str, changes: dict[str, Change]) -> Table:
    """Return a table of what re-scoring changed, by arm."""
    table = Table("", title=title)
    for name in ("tasks", "changed", "updates changed", "diverged", "missing"):
        table.add_column(name, justify="right")
    for j in range(max((len(change.before) for change in changes.values()), default=0)):
        table.add_column(f"position {j}", justify="right")
    for arm, c in changes.items():
        counts = (c.rescored, c.changed, c.updates, c.diverged, c.missing)
        means = (f"{before:.3f} -> {after:.3f}" for before, after in zip(c.before, c.after, strict=True))
        table.add_row(arm, *map(str, counts), *means)
    return table


def with_intervals(values: list[float], intervals: list[list[float]], sign: str = "") -> list[str]:
    """Format each value with its 95% interval."""
    return [f"{v:{sign}.3f} [{low:.2f}, {high:.2f}]" for v, (low, high) in zip(values, intervals, strict=True)]


def domains_table(entries: list[DomainInfo]) -> Table:
    """Return a table of the domains; a preset in parentheses cannot be used until something is set up."""
    table = Table("", "presets", "styles", "hidden and shared", "bayes", "packs of")
    for entry in entries:
        presets = ", ".join(f"({preset})" if preset in entry.lacks else preset for preset in entry.presets)
        bayes, sizes = "exact" if entry.exact else "scripted", " or ".join(map(str, entry.sizes))
        table.add_row(entry.id, escape(presets), ", ".join(entry.styles), escape(entry.hidden), bayes, sizes)
    return table


def findings_table(findings: list[Finding]) -> Table:
    """Return a table of the findings about this machine, with the change that each finding asks for."""
    table = Table("", "found", "to change")
    for found in findings:
        mark = ("[red]must[/]: " if found.must else "") if found.change else ""
        table.add_row(found.what, escape(found.found), mark + (escape(found.change) or "[green]nothing[/]"))
    return table


def estimate_table(estimate: Estimate, device: str | None = None) -> Table:
    """Return a table of the estimated memory and time, by use. `device` is the name of a device that is not here."""
    table = Table("", "", title=f"on {device or estimate.place.device}, in {estimate.place.dtype}", show_header=False)
    for part, bytes_ in estimate.parts.items():
        table.add_row(part, f"{bytes_ / 2**30:.2f} GiB")
    table.add_row("total", f"{estimate.needed / 2**30:.2f} of {estimate.there / 2**30:.1f} GiB", end_section=True)
    if estimate.actors:
        actors = ", ".join(f"{count} {role}{'s' * (count > 1)}" for role, count in estimate.actors.items())
        unit = "a GPU" if estimate.place.device.startswith("cuda") else "a CPU"
        more = f", a sampler {estimate.devices}" if estimate.devices > 1 else ""
        table.add_row("actors on Ray", f"{actors}; each needs {unit}{more}", end_section=True)
    for part, seconds in estimate.seconds.items():
        table.add_row(f"{part}, per step", f"{seconds:.2f} s")
    if estimate.seconds:
        at_once = ", learning beside the rest" if estimate.overlap else ""
        table.add_row(f"per step{at_once}", f"{estimate.step:.2f} s")
        table.add_row("sampled tokens", f"{estimate.sampled / max(estimate.step, 1e-9):,.0f} per second")
        table.add_row("the run", _duration(estimate.whole))
    return table


def _duration(seconds: float) -> str:
    if seconds > 7200:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds > 300 else f"{seconds:.0f} s"


def keys_table(keys: Sequence[Key]) -> Table:
    """Return a table of the keys of a recipe."""
    table = Table(title="key=value changes a recipe, in the file or on the command line")
    for name in ("key", "default", "meaning"):
        table.add_column(name)
    for key in keys:
        default = "" if key.default is None else json.dumps(key.default)
        table.add_row(key.name, Text(default), Text(key.meaning))
    return table


def plain_table(title: str, rows: dict[str, list[float]]) -> Table:
    """Return a table with one row per name and one column per position."""
    table = Table(title=title)
    table.add_column("")
    for j in range(max(map(len, rows.values()))):
        table.add_column(f"position {j}", justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in values))
    return table
