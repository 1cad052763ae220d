"""Write the section of a model card that says what a run's model can do, and how it was made and measured."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codots.core.yaml_text import write_yaml
from codots.report.evaluation import REFERENCES, Evaluation
from codots.report.page import interval, number, signed
from codots.report.run import RunRecord, by_setting, read_run

INTRODUCTION = """\
Mean reward by position, the number of earlier tasks in the same world, with 95% intervals over packs. Between two tasks
the model keeps nothing but a context. **own**: it writes the context itself. **null**: the context stays empty.
**shuffled**: that of another world. **oracle**: the truth. **lift** is own minus null, paired by pack.
"""
PACKAGES = ("codots", "torch", "transformers")


def model_card(folder: Path) -> str:
    """Return the section as Markdown. Raises ValueError if the folder is not a run or has no evaluation."""
    run = read_run(folder)
    if not run.evaluations:
        raise ValueError(
            f"{folder} has no evaluation to put on a card; first: codots eval {folder} packs=500 split=test "
            f"rows={folder}/eval.jsonl --json > {folder}/eval.json"
        )
    return "\n".join([*_figures(run), *_recipe(run)]) + "\n"


def _figures(run: RunRecord) -> Iterator[str]:
    """Yield the tables of the evaluations, one for each setting."""
    yield "## Learning within a world\n"
    yield INTRODUCTION
    for group in by_setting(run):
        first = group[0]
        yield f"### {first.report['domain']} {first.report['preset']}\n"
        yield f"{first.packs}, sampled at temperature {first.report['temperature']:g}.\n"
        yield from _table(group)


def _table(group: list[Evaluation]) -> Iterator[str]:
    size = int(group[0].report["size"])
    yield "| " + " | ".join(["model", "contexts", *(f"position {j}" for j in range(size)), "malformed"]) + " |"
    yield "|---" * (size + 3) + "|"
    for evaluation in group:
        report = evaluation.report
        for arm, curves in report["arms"].items():
            cells = _cells(curves["reward"], curves["ci95"])
            malformed = max(curves["malformed"], default=None)
            yield _row([evaluation.name, arm, *cells, "" if malformed is None else f"{malformed:.1%}"])
        if report["lift"]:
            cells = [
                f"{signed(value)} {interval(ends)}"
                for value, ends in zip(report["lift"], report["lift_ci95"], strict=True)
            ]
            yield _row([evaluation.name, "**lift**", *cells, ""])
    for name in REFERENCES:
        yield _row(["", f"*{name}*", *map(number, group[0].report[name]), ""])
    yield ""


def _cells(values: list[float | None], intervals: list[list[float | None]]) -> list[str]:
    return [f"{number(value)} {interval(ends)}" for value, ends in zip(values, intervals, strict=True)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _recipe(run: RunRecord) -> Iterator[str]:
    """Yield how the model was made: the recipe, the tokens and the versions."""
    yield "## How it was made\n"
    made: dict[str, Any] = {key: value for key, value in run.config.items() if key not in ("run", "loggers")}
    if made:
        command = "imitate" if run.taught else "train"
        tokens, hours = int(run.totals["tokens"]), run.totals["seconds"] / 3600
        yield f"`codots {command}` with this recipe: {run.last_step} steps, {tokens:,} sampled tokens, {hours:.1f} h.\n"
        yield f"```yaml\n{write_yaml(made).rstrip()}\n```\n"
    yield "Versions: " + ", ".join(f"{name} {version(name)}" for name in PACKAGES) + "."
