"""Run training and imitation with a live display, and stop them at signals."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from codots.cli.display import bar, errors, print_line
from codots.cli.lines import Lines, ticking
from codots.core.processes import StopSignal, stop_signals_to

if TYPE_CHECKING:
    from codots.config.imitate import ImitateConfig
    from codots.config.schema import TrainConfig
    from codots.training.train import StepReport

SPARKS = "▁▂▃▄▅▆▇█"


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
        self.dev: dict[str, float] = {}
        """Metrics of the last evaluation on `dev`."""
        self.stage, self.since = "starting", time.monotonic()

    def on_progress(self, stage: str) -> None:
        """Show the name of the stage that has just started."""
        self.stage, self.since = stage, time.monotonic()
        self.lines.stage(f"after step {self.done}/{self.steps}: {stage}")

    def step(self, report: StepReport) -> None:
        """Update the display with the report of a step."""
        self.values, self.done = report.metrics, report.step
        self.dev = {key: v for key, v in report.metrics.items() if key.startswith("eval/")} or self.dev
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
        parts += [f"loss {v['train/loss']:.3f}"] if v and not self.curves else []
        parts += [f"entropy {v['train/entropy']:.3f}"] if "train/entropy" in v else []
        parts += unread(v)
        parts += [f"facts right {v['facts/right']:.2f} wrong {v['facts/wrong']:.2f}"] if "facts/right" in v else []
        parts += on_dev(self.dev, taught=not self.curves)
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


def run_training(config: TrainConfig | ImitateConfig, *, resume: bool = False) -> Stopped | None:
    """Train or imitate with a display. Returns None when training is complete.

    On Ctrl-C, SIGTERM or SIGHUP, finishes the current step, saves a checkpoint, and returns the number of that step. A
    second signal raises StopSignal.
    """
    from codots.config.imitate import ImitateConfig
    from codots.runs.checkpoint import saved_steps
    from codots.training.imitate import imitate
    from codots.training.train import train

    signals: list[StopSignal] = []
    display = TrainDisplay(config.steps, saved_steps(Path(config.run)) if resume else 0)

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
        steps: Generator[StepReport, None, None]
        if isinstance(config, ImitateConfig):
            steps = imitate(config, resume=resume, on_progress=display.on_progress)
        else:
            steps = train(config, resume=resume, on_progress=display.on_progress)
        for report in watch_training(steps, display):
            if signals and report.step < config.steps:
                steps.close()
                return Stopped(report.step, signals[0].exit_code)
    return None


def on_dev(values: dict[str, float], *, taught: bool) -> list[str]:
    """Return what an evaluation on `dev` has found. For a model that is `taught`, also whether it reads and replies."""
    found = [f"lift on dev {values['eval/lift']:+.2f}"] if "eval/lift" in values else []
    if taught and "eval/malformed/solve" in values:
        oracle = [value for key, value in values.items() if key.startswith("eval/") and "oracle_" in key]
        found += [f"oracle {sum(oracle) / len(oracle):.2f}"] if oracle else []
        found += [f"malformed {values['eval/malformed/solve']:.0%}"]
    return found


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
    if not any(key.startswith("reward/") for key in v):
        dev = "".join(f"  {part}" for part in on_dev(v, taught=True))
        return f"step {report.step}/{report.steps}  loss {v['train/loss']:.3f}{dev}  {v['time/step']:.1f} s"
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
