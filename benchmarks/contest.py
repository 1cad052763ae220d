"""Contestants side by side: a process of one thread for each, which take turns, so that noise falls on all alike."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console
from rich.table import Table

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
ROUNDS = 5
Told = dict[str, float]
Ask = Callable[[], Told]


def options(about: str) -> argparse.ArgumentParser:
    """What every contest is asked with."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="a small scale, to see that it runs; figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON in place of a table")
    return parser


def contest(contestants: Mapping[str, AbstractContextManager[Ask]], rounds: int = ROUNDS) -> dict[str, list[Told]]:
    """Let every contestant work once in every round, after once to warm up; gives what each told, round by round."""
    with ExitStack() as stack:
        asks = {name: stack.enter_context(one) for name, one in contestants.items()}
        told = [{name: ask() for name, ask in asks.items()} for _ in range(1 + rounds)]
    return {name: [row[name] for row in told[1:]] for name in asks}


@contextmanager
def apart(prepare: Callable[..., Ask], *given: Any) -> Iterator[Ask]:
    """A contestant in a process of its own, which prepares once and works whenever it is asked."""
    server = multiprocessing.get_context("forkserver")
    # What is preloaded is imported only once.
    server.set_forkserver_preload(["codots.training.train", "transformers.models.qwen3.modeling_qwen3"])
    here, there = server.Pipe()
    process = server.Process(target=_serve, args=(there, prepare, given))
    process.start()
    there.close()

    def ask() -> Told:
        try:
            here.send("again")
            return here.recv()
        except (EOFError, OSError) as gone:
            process.join()
            raise RuntimeError(f"a contestant ended with exit code {process.exitcode}") from gone

    try:
        yield ask
    finally:
        here.close()
        process.join()


def _serve(asked: Connection, prepare: Callable[..., Ask], given: Sequence[Any]) -> None:
    import torch

    torch.set_num_threads(1)
    work = prepare(*given)
    with suppress(EOFError):
        while asked.recv():
            asked.send(work())


def timed(work: Callable[[], Any]) -> float:
    """Seconds by the clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


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
    console = Console(width=120)
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
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
