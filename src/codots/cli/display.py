"""Tables, and progress displays on stderr, which keep stdout free for results."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from codots.cli.lines import Lines, ticking
from codots.core.processes import StopSignal, stop_signals_to

if TYPE_CHECKING:
    from codots.config.load import Key
    from codots.config.schema import TrainConfig
    from codots.domains.catalog import DomainInfo
    from codots.evaluation.evaluate import Report
    from codots.evaluation.rescore import Change
    from codots.preflight.doctor import Finding
    from codots.preflight.estimate import Estimate
    from codots.training.train import StepReport

SPARKS = "▁▂▃▄▅▆▇█"
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


class TrainDisplay:
    """Live display of a training run: reward by position, lift, speed, and the current stage."""

    def __init__(self, steps: int, done: int = 0) -> None:
        self.lines = Lines(print_line)
        """The same as plain lines, if stderr is not a terminal."""
        self.steps, self.done = steps, done
        self.bar = bar()
        self.task = self.bar.add_task("training", total=steps, completed=done)
        self.curves: dict[str, deque[float]] = {}
        """Rewards of the latest steps, by metric name, such as `reward/0`."""
        self.values: dict[str, float] = {}
        self.lift: float | None = None
        self.stage, self.since = "starting", time.monotonic()

    def on_progress(self, stage: str) -> None:
        """Show the name of the stage that has just started."""
        self.stage, self.since = stage, time.monotonic()
        self.lines.stage(f"after step {self.done}/{self.steps}: {stage}")

    def step(self, report: StepReport) -> None:
        """Update the display with the report of a step."""
        self.values, self.done = report.metrics, report.step
        self.lift = report.metrics.get("eval/lift", self.lift)
        rewards = {key: value for key, value in report.metrics.items() if key.startswith("reward/")}
        for key in dict.fromkeys((*self.curves, *rewards)):
            self.curves.setdefault(key, deque(maxlen=30)).append(rewards.get(key, float("nan")))
        self.bar.update(self.task, completed=report.step)

    def __rich__(self) -> Group:
        table = Table(box=None, pad_edge=False, show_header=False)
        for key, curve in self.curves.items():
            *domain, position = key.removeprefix("reward/").rsplit("/", 1)
            table.add_row(*domain, f"position {position}", f"{curve[-1]:.3f}", sparkline(curve))
        v = self.values
        parts = [f"{v['tokens/sampled'] / v['time/step']:,.0f} sampled tokens/s" if v else ""]
        parts += [f"entropy {v['train/entropy']:.3f}"] if "train/entropy" in v else []
        parts += unread(v)
        parts += [f"facts right {v['facts/right']:.2f} wrong {v['facts/wrong']:.2f}"] if "facts/right" in v else []
        parts += [f"lift on dev {self.lift:+.3f}"] if self.lift is not None else []
        parts += ["collapsing: replies become alike and rewards fall"] if v.get("train/collapse") else []
        seconds = time.monotonic() - self.since
        return Group(
            self.bar, table, Text("  ".join(filter(None, parts))), Text(f"{self.stage} ({seconds:.0f} s)", "dim")
        )


def sparkline(values: Iterable[float]) -> str:
    """Return a sparkline of values between 0 and 1. NaN is drawn as a blank."""
    return "".join(SPARKS[min(7, max(0, int(value * 8)))] if value == value else " " for value in values)


def watch_training(steps: Iterable[StepReport], display: TrainDisplay) -> Iterator[StepReport]:
    """Yield the steps of a run and display them.

    If stderr is not a terminal, print a line at each tenth of the steps, and at least every 30 seconds.
    """
    if not errors.is_terminal:
        with ticking(display.lines):
            for report in steps:
                display.step(report)
                display.lines.update("training", report.step, report.steps, step_line(report))
                yield report
        return
    with Live(display, console=errors, refresh_per_second=4):
        for report in steps:
            display.step(report)
            yield report


@dataclass(frozen=True)
class Stopped:
    """A training run that a signal stopped, and that was saved."""

    step: int
    exit_code: int


def run_training(config: TrainConfig, *, resume: bool = False) -> Stopped | None:
    """Train with a display. Returns None when training is complete.

    On Ctrl-C, SIGTERM or SIGHUP, finishes the current step, saves a checkpoint, and returns the number of that step. A
    second signal raises StopSignal.
    """
    from codots.training.train import train

    signals: list[StopSignal] = []
    display = TrainDisplay(config.steps)

    def stop(number: int, _: Any) -> None:
        signals.append(StopSignal(number))
        if number == getattr(signal, "SIGHUP", None):
            discard_output()
        if len(signals) > 1:
            raise signals[-1]
        name = "Ctrl-C" if number == signal.SIGINT else signals[0]
        display.on_progress(f"{name}: finishing this step, then saving; a second one stops at once")
        if not errors.is_terminal:
            errors.print(display.stage, highlight=False)

    with stop_signals_to(stop):
        steps = train(config, resume=resume, on_progress=display.on_progress)
        for report in watch_training(steps, display):
            if signals and report.step < config.steps:
                steps.close()
                return Stopped(report.step, signals[0].exit_code)
    return None


def unread(values: dict[str, float]) -> list[str]:
    """Return the shares of answers that could not be parsed, were cut, or had no room, without those below 1%."""
    words = (("malformed", "malformed"), ("cut", "cut at solve_tokens"), ("no_room", "without room"))
    shares = [(values.get(f"{name}/solve", 0.0), word) for name, word in words]
    return [f"{word} {share:.0%}" for share, word in shares if share >= 0.01]


def discard_output() -> None:
    """Discard all further output, because the terminal is closed and writing to it would raise OSError."""
    null = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(null, output)
    os.close(null)


def step_line(report: StepReport) -> str:
    """Format the report of a step as one line."""
    v = report.metrics
    curves: dict[str, list[str]] = {}
    for key in v:
        if key.startswith("reward/"):
            curves.setdefault(key.removeprefix("reward").rpartition("/")[0], []).append(f"{v[key]:.2f}")
    curve = ", ".join(" ".join([*filter(None, [label.strip("/")]), *curve]) for label, curve in curves.items())
    facts = f"  facts right {v['facts/right']:.2f}" if "facts/right" in v else ""
    facts = "".join(f"  {part}" for part in unread(v)) + facts
    lift = f"  lift on dev {v['eval/lift']:+.2f}" if "eval/lift" in v else ""
    lift = lift or (f"  dev score {v['eval/score']:.2f}" if "eval/score" in v else "")
    return f"step {report.step}/{report.steps}  reward by position {curve}{facts}{lift}  {v['time/step']:.1f} s"


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
    table = Table(title=f"{report.model} on {report.domain} {report.preset} {report.split}, {sampled}{by}")
    table.add_column("")
    for j in range(report.size):
        table.add_column(f"position {j}", justify="right")
    for arm, curves in report.arms.items():
        table.add_row(f"{arm} reward", *with_intervals(curves.reward, curves.ci95))
        table.add_row(f"{arm} success", *with_intervals(curves.success, curves.success_ci95), style="dim")
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
    table.add_section()
    for name in ("floor", "bayes", "ceiling"):
        table.add_row(name, *(f"{value:.3f}" for value in getattr(report, name)))
    return table


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


def estimate_table(estimate: Estimate) -> Table:
    """Return a table of the estimated memory and time, by use."""
    table = Table("", "", title=f"on {estimate.place.device}, in {estimate.place.dtype}", show_header=False)
    for part, bytes_ in estimate.parts.items():
        table.add_row(part, f"{bytes_ / 2**30:.2f} GiB")
    table.add_row("total", f"{estimate.needed / 2**30:.2f} of {estimate.there / 2**30:.1f} GiB", end_section=True)
    for part, seconds in estimate.seconds.items():
        table.add_row(f"{part}, per step", f"{seconds:.2f} s")
    if estimate.seconds:
        table.add_row("per step", f"{sum(estimate.seconds.values()):.2f} s")
        table.add_row(
            "the run", f"{estimate.whole / 60:.0f} min" if estimate.whole > 300 else f"{estimate.whole:.0f} s"
        )
    return table


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
