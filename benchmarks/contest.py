"""Contestants side by side: a process of one thread for each, which take turns, so that noise falls on all alike."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.table import Table

ROUNDS = 5
ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
Told = dict[str, float]


def options(about: str) -> argparse.ArgumentParser:
    """What every contest is asked with."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="a small scale, to see that it runs; figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON in place of a table")
    parser.add_argument("--as", dest="name", help=argparse.SUPPRESS)  # which contestant this process is
    parser.add_argument("--folder", help=argparse.SUPPRESS)  # where contestants find what they work on
    return parser


def contest(commands: Mapping[str, Sequence[str]], rounds: int = ROUNDS) -> dict[str, list[Told]]:
    """Let every contestant do its work in every round, after once to warm up; gives what each told, round by round."""
    with ExitStack() as stack:
        started = {name: stack.enter_context(begun(command)) for name, command in commands.items()}
        told: dict[str, list[Told]] = {name: [] for name in commands}
        for _ in range(1 + rounds):
            for name, process in started.items():
                told[name].append(answer(name, process))
        for process in started.values():
            process.stdin.close()
    return {name: rows[1:] for name, rows in told.items()}


def begun(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a contestant."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, env=os.environ | ONE_THREAD)


def answer(name: str, process: subprocess.Popen[str]) -> Told:
    """Ask a contestant to do its work once."""
    process.stdin.write("again\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"the contestant {name} ended with exit code {process.wait()}")
    return json.loads(line)


def serve(work: Callable[[], Told]) -> None:
    """Be a contestant: do the work whenever asked, and tell what was measured."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    for _ in sys.stdin:
        print(json.dumps(work()), file=answers, flush=True)


def median(rows: Sequence[Told]) -> Told:
    """The median of each figure over the rounds."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def show(found: dict[str, Any], columns: Mapping[str, str], as_json: bool) -> None:
    """Print figures: a row for each contestant, and below it what was asked of them, beside its bar."""
    if as_json:
        print(json.dumps(found))
        return
    table = Table(title=found["what"], title_justify="left")
    table.add_column("")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for name, row in found["contestants"].items():
        table.add_row(name, *(figure(row.get(key)) for key in columns))
    console = Console()
    console.print(table)
    for line in found["notes"]:
        console.print(line, highlight=False)
    for name, (value, bar) in found["bars"].items():
        console.print(f"{name}: {figure(value)} (asked for: {bar})", highlight=False)


def figure(value: float | None) -> str:
    """Write a number so that its size is seen."""
    if value is None:
        return "-"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3f}"
