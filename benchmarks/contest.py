"""Time contestants in turns, each in its own single-threaded process, so that machine noise affects all equally."""

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
Figures = dict[str, float]
RunOnce = Callable[[], Figures]


def options(about: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every contest."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="smoke test at a small scale; the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def contest(
    contestants: Mapping[str, AbstractContextManager[RunOnce]], rounds: int = ROUNDS
) -> dict[str, list[Figures]]:
    """Run every contestant once per round, after a warm-up round; return its figures of each round."""
    with ExitStack() as stack:
        runs = {name: stack.enter_context(contestant) for name, contestant in contestants.items()}
        found = [{name: run() for name, run in runs.items()} for _ in range(1 + rounds)]
    return {name: [row[name] for row in found[1:]] for name in runs}


@contextmanager
def in_process(prepare: Callable[..., RunOnce], *args: Any) -> Iterator[RunOnce]:
    """Prepare a contestant in its own process and yield a function that runs it once."""
    server = multiprocessing.get_context("forkserver")
    # The server imports these modules once for all contestants.
    server.set_forkserver_preload(["codots.training.train", "transformers.models.qwen3.modeling_qwen3"])
    parent, child = server.Pipe()
    process = server.Process(target=_serve, args=(child, prepare, args))
    process.start()
    child.close()

    def run() -> Figures:
        try:
            parent.send("again")
            return parent.recv()
        except (EOFError, OSError) as error:
            process.join()
            raise RuntimeError(f"a contestant ended with exit code {process.exitcode}") from error

    try:
        yield run
    finally:
        parent.close()
        process.join()


def _serve(connection: Connection, prepare: Callable[..., RunOnce], args: Sequence[Any]) -> None:
    import torch

    torch.set_num_threads(1)
    run = prepare(*args)
    with suppress(EOFError):
        while connection.recv():
            connection.send(run())


def timed(work: Callable[[], Any]) -> float:
    """Return the wall time of one call in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(rows: Sequence[Figures]) -> Figures:
    """Return the median of each figure over the rounds."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def show(found: dict[str, Any], columns: Mapping[str, str], as_json: bool) -> None:
    """Print one row per contestant, then the notes and each comparison with its target."""
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
    for name, (value, target) in found["bars"].items():
        console.print(f"{name}: {figure(value)} (target: {target})", highlight=False)


def figure(value: float | None) -> str:
    """Format a number with digits that suit its size."""
    if value is None:
        return "-"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
