"""Compute rewards, arms and reports anew from recorded rows, after a domain or a parser has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codots.core.progress import OnProgress, no_progress
from codots.core.suggest import closest
from codots.domains.base import Pack
from codots.domains.registry import make_pack
from codots.evaluation.curves import compare, rounded
from codots.evaluation.evaluate import Report, without_writer
from codots.evaluation.replay import missing_at, replay_lives, unusable
from codots.rollout.arms import contexts_of, stranger
from codots.rollout.records import DIVERGED, HEAD, MISSING, Row, dump, lost, read_rows, solves

Key = tuple[Any, ...]
"""Step, arm, name of the pack, and index of the life."""
Lives = dict[Key, list[Row]]
CHUNK = 200
"""Number of lives between two calls of `on_progress`."""


@dataclass(frozen=True)
class Change:
    """What re-scoring changed in one arm, or in the lives of training steps. Lists are indexed by position."""

    rescored: int
    """Number of tasks that were re-scored."""
    changed: int
    """Number of these whose reward is another one."""
    updates: int
    """Number of updates whose new context or reward is another one."""
    diverged: int
    """Number of recorded tasks that must be sampled again: the model was never asked what it would be asked now."""
    missing: int
    """Number of recorded tasks that could not be re-scored for another reason, and of lives that were lost before."""
    why: dict[str, str]
    """Why the first task is `diverged` or `missing`, as far as there is one."""
    before: list[float]
    """Mean recorded reward of the re-scored tasks."""
    after: list[float]
    """Mean reward of the same tasks now."""


@dataclass(frozen=True)
class Rescored:
    """The re-scored lives of one file."""

    path: Path
    head: dict[str, Any] | None
    """What identifies the evaluation, or None if the file is not that of an evaluation."""
    before: Lives
    lives: Lives

    @property
    def changes(self) -> dict[str, Change]:
        """What changed, by arm."""
        arms = dict.fromkeys(rows[0].arm for rows in self.before.values())
        pairs = {key: (rows, self.lives[key]) for key, rows in self.before.items()}
        return {arm: change_of([pair for pair in pairs.values() if pair[0][0].arm == arm]) for arm in arms}

    def content(self) -> str:
        """Return the file of the re-scored lives."""
        head = "" if self.head is None else json.dumps({HEAD: self.head}) + "\n"
        return head + "".join(map(dump, self.lives.values()))


def rescore(path: Path, *, on_progress: OnProgress = no_progress) -> Rescored:
    """Re-score the rows of one file.

    The recorded replies are given to environments and parsers as they are now. An episode diverges if the model would
    now be asked for something that it was not asked for: another prompt, another observation or one more reply. It
    becomes a row of kind `missing` with the stop word `diverged`, as do the episodes that follow from it, and the lives
    of other arms that were given contexts from its life.

    Raises ValueError if the file has no rows, or none that can be re-scored, or if its tasks diverged before.
    """
    head, before = head_of(path), lives_of(read_rows(path))
    if not before:
        raise ValueError(f"{path} has no rows to re-score; expected the file of `codots eval rows=FILE` or of a step")
    if any(row.stop == DIVERGED for rows in before.values() if (row := lost(rows))):
        raise ValueError(f"{path} was re-scored, and tasks diverged; re-score the file that was, or sample again first")
    reasons = [unusable(rows) for rows in before.values() if rows[0].kind != MISSING]
    if reasons and all(reasons):
        raise ValueError(f"{path} cannot be re-scored: {reasons[0]}; sample again")
    done: Lives = {}
    packs = packs_of(head) if head is not None and any(key[1] == "shuffled" for key in before) else []
    sources = {} if head is None else {key: source_of(key, head["writer"] is not None, packs) for key in before}
    for keys in stages(before):
        for first in range(0, len(keys), CHUNK):
            part = keys[first : first + CHUNK]
            done |= _replayed(part, before, done, sources)
            on_progress(path.name, len(done), len(before))
    return Rescored(path, head, before, {key: done[key] for key in before})


def head_of(path: Path) -> dict[str, Any] | None:
    """Return what identifies the evaluation that a file belongs to, or None if the file begins with a row.

    Raises ValueError if the file is missing or holds neither.
    """
    if not path.is_file():
        raise ValueError(f"no rows at {path}; expected a run folder or a .jsonl file{closest(path)}")
    with path.open("rb") as file, suppress(ValueError):
        first = json.loads(file.readline())
        if isinstance(first, dict) and (HEAD in first or {"pack", "arm", "turns"} <= first.keys()):
            return first.get(HEAD)
    raise ValueError(f"{path} holds no recorded episodes; expected the file of `codots eval rows=FILE` or of a step")


def lives_of(rows: Iterator[Row]) -> Lives:
    """Group rows by life, in the order of the file."""
    lives: Lives = {}
    for row in rows:
        lives.setdefault((row.step, row.arm, *row.pack, row.life), []).append(row)
    return lives


def stages(lives: Lives) -> list[list[Key]]:
    """Return the keys of lives so that those whose contexts other arms are given come first."""
    order = {"writer": 0, "own": 1}
    return [[key for key in lives if order.get(key[1], 2) == stage] for stage in range(3)]


def _replayed(keys: Sequence[Key], before: Lives, done: Lives, sources: dict[Key, Key | None]) -> Lives:
    new: Lives = {}
    asked: list[tuple[Key, tuple[list[Row], tuple[str, ...] | None]]] = []
    for key in keys:
        source = sources.get(key)
        if source is not None and source in done and lost(done[source]) != lost(before[source]):
            why = f"its contexts are those of a life of {source[1]} that is no longer complete"
            new[key] = [missing_at(before[key][0], 0, DIVERGED, why)]
        else:
            asked.append((key, (before[key], oracle(before[key]))))
    return new | dict(zip([key for key, _ in asked], replay_lives([life for _, life in asked]), strict=True))


def source_of(key: Key, has_writer: bool, packs: Sequence[Pack]) -> Key | None:
    """Return the key of the life that a life of an evaluation got its contexts from, or None if there is none."""
    step, arm, domain, preset, split, index, life = key
    if arm == "own" and has_writer:
        return (step, "writer", domain, preset, split, index, life)
    if arm == "shuffled":
        index = stranger(index, packs)
    return (step, "own", domain, preset, split, index, life) if arm in ("shuffled", "frozen") else None


def oracle(rows: Sequence[Row]) -> tuple[str, ...] | None:
    """Return the contexts that the arm `oracle` gives now, or None for a life of another arm."""
    solved = solves(rows)
    if rows[0].arm != "oracle" or not solved or solved[0].prompt is None:
        return None
    domain, preset, split, index = rows[0].pack
    pack = make_pack(str(domain), str(preset), str(split), int(index), len(solved))
    return contexts_of("oracle", 0, [pack], [], str(solved[0].prompt["style"]))


def packs_of(head: dict[str, Any]) -> list[Pack]:
    """Return the packs of an evaluation."""
    names = head["domain"], head["preset"], head["split"]
    return [make_pack(*names, i, head["pack_size"]) for i in range(head["packs"])]


def change_of(pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]]) -> Change:
    """Compare lives, each given as its rows before and after."""
    counts = dict.fromkeys(("rescored", "changed", "updates", "diverged", "missing"), 0)
    rewards: dict[int, list[tuple[float, float]]] = {}
    gone: list[Row] = []
    for before, after in pairs:
        now = {(row.kind, row.position): row for row in after}
        if (first := lost(after)) is not None:
            gone.append(first)
            there = len(solves(before)) - len(solves(after))
            counts["diverged" if first.stop == DIVERGED else "missing"] += there or 1
        for row in before:
            new = now.get((row.kind, row.position))
            if new is None or row.kind == MISSING:
                continue
            counts["updates"] += row.kind == "update" and (new.reward, new.written) != (row.reward, row.written)
            if row.kind == "solve":
                rewards.setdefault(row.position, []).append((row.reward, new.reward))
                counts["rescored"] += 1
                counts["changed"] += row.reward != new.reward
    means = [np.mean(rewards[j], axis=0) for j in sorted(rewards)]
    why = {row.stop: f"position {row.position}: {row.outcome}" for row in reversed(gone)}
    return Change(
        **counts,
        why=why,
        before=rounded(np.array([m[0] for m in means])),
        after=rounded(np.array([m[1] for m in means])),
    )


def report_of(found: Rescored, model: str | None = None, writer: str | None = None) -> Report:
    """Return the report of an evaluation whose rows were re-scored.

    `model` and `writer` are the names of the models; the default is how the rows identify them. Lives that the file
    does not have, because the evaluation was stopped, count as missing.
    """
    head = dict(found.head or {})
    packs = packs_of(head)

    def of(arm: str) -> list[list[Row]]:
        absent = "the evaluation was stopped before this life"
        return [
            found.lives.get((None, arm, *pack.names, 0))
            or [Row(list(pack.names), arm, 0, 0, MISSING, 0.0, MISSING, "", None, [], absent, 0)]
            for pack in packs
        ]

    lives = {arm: of(arm) for arm in head["arms"]}
    if head["writer"] is not None and "own" in lives:
        lives["own"] = without_writer(lives["own"], of("writer"))
    return Report(
        model=model or head["model"],
        writer=writer or head["writer"],
        n_packs=head["packs"],
        size=head["pack_size"],
        **{key: head[key] for key in ("domain", "preset", "split", "seed", "temperature", "writer_temperature")},
        context_tokens=head.get("context_tokens"),
        **compare(packs, lives),
        tokens=sum(row.tokens for arm_lives in lives.values() for life in arm_lives for row in life),
    )
