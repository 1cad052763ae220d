"""Read finished evaluations for other tools, and flatten them to a row per episode."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codots.core.redact import without_secrets_in
from codots.evaluation.evaluate import without_writer
from codots.evaluation.rescore import head_of
from codots.evaluation.rescored import is_rows, model_names
from codots.rollout.records import Row, read_rows
from codots.runs.resume import is_complete

EXPECTED = "expected the file of `codots eval ... rows=FILE`, or a folder with such files"
STEP = "step-"
"""Prefix of the folders that a suite writes for the checkpoints of a run."""
KEYS = ("domain", "preset", "split", "seed", "temperature", "pack_size", "packs", "arms")
TYPES = {"step": "int64", "prompt_tokens": "int64", "completion_tokens": "int64", "read": "int64"}
"""Parquet types of columns that may be empty. Other empty columns are strings."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation, without the values of secret environment variables."""

    path: Path
    step: int | None
    """Training step of the checkpoint, or None outside of a suite of checkpoints."""
    model: str
    writer: str | None
    head: dict[str, Any]
    """What identifies the evaluation."""
    lives: dict[str, list[list[Row]]]
    """Rows of each life, by arm and in the order of the packs."""

    @property
    def name(self) -> str:
        """Name of the file without its ending; that of the evaluation in a suite."""
        return self.path.stem


def read_evaluations(path: Path) -> list[Evaluation]:
    """Read the evaluation in a file, or those in the folder of a suite or a run.

    Raises ValueError if there is none, or if one is not finished.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in (*path.glob("*.jsonl"), *path.glob(f"{STEP}*/*.jsonl")) if is_rows(file))
    found = [_read(file) for file in files]
    if not found:
        raise ValueError(f"no evaluation in {path}; {EXPECTED}")
    return found


def _read(path: Path) -> Evaluation:
    head = head_of(path)
    if not isinstance(head, dict):
        raise ValueError(f"{path} holds rows of training; {EXPECTED}")
    if lacking := [key for key in KEYS if key not in head]:
        raise ValueError(f"{path} is not an evaluation of this version: its first line lacks {lacking[0]!r}")
    found: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in read_rows(path):
        clean = Row(**without_secrets_in(vars(row)))
        found[clean.arm, int(clean.pack[-1])].append(clean)
    arms = list(dict.fromkeys([*(arm for arm, _ in found), *head["arms"], *(["writer"] if head.get("writer") else [])]))
    keys = [(arm, index) for arm in arms for index in range(head["packs"])]
    there = sum(key in found and is_complete(found[key], head["pack_size"]) for key in keys)
    if there < len(keys):
        raise ValueError(
            f"{path} has {there} of {len(keys)} lives; finish it with the `codots eval` command that it is from"
        )
    lives = {arm: [found[arm, index] for index in range(head["packs"])] for arm in arms}
    if "writer" in lives and "own" in lives:
        lives["own"] = without_writer(lives["own"], lives["writer"])
    step = path.parent.name.removeprefix(STEP)
    named = model_names(path.stem, path.parent) or (head["model"], head.get("writer"))
    model, writer, head = without_secrets_in((*named, head))
    return Evaluation(path, int(step) if step.isdigit() else None, model, writer, head, lives)


def episode_rows(evaluations: list[Evaluation]) -> Iterator[dict[str, Any]]:
    """Yield one flat row per episode of evaluations."""
    for one in evaluations:
        for row in (row for lives in one.lives.values() for life in lives for row in life):
            domain, preset, split, index = row.pack
            yield {
                "evaluation": one.name,
                "step": one.step,
                "model": one.writer if row.arm == "writer" else one.model,
                "domain": domain,
                "preset": preset,
                "split": split,
                "index": index,
                "arm": row.arm,
                "position": row.position,
                "kind": row.kind,
                "reward": float(row.reward),
                "stop": row.stop,
                "ended": row.ended,
                "style": (row.prompt or {}).get("style"),
                "context": row.context,
                "written": row.written,
                "turns": row.turns,
                "outcome": row.outcome,
                "tokens": row.tokens,
                "read": row.read,
                "prompt_tokens": row.prompt_tokens,
                "completion_tokens": row.completion_tokens,
            }
