"""Measuring a model: position curves of every arm on the same packs, with floors, optima and intervals."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from codots.config.schema import EvalConfig
from codots.core.files import writable
from codots.core.progress import OnProgress, no_progress
from codots.domains.base import POLICIES, Pack
from codots.domains.registry import make_pack
from codots.engine.open import Player
from codots.evaluation.curves import ArmReport, compare, rounded, scripted_rewards
from codots.rollout.arms import ARMS, contexts_of, fitted, needed_own
from codots.rollout.life import Job, Life
from codots.rollout.records import MISSING, Row, contexts, life_rows, missing_row, solves
from codots.rollout.steps import Given, Own
from codots.runs.resume import Journal

log = logging.getLogger("codots")

__all__ = ["ARMS", "POLICIES", "ArmReport", "Report", "as_json", "baselines", "evaluate"]

RANDOM_LIVES = 8
"""Lives of the random policy on each pack: luck is most of what it has."""
CHUNK = 100
"""Packs lived at once, and written down at once."""


@dataclass(frozen=True)
class Report:
    """An evaluation; differences are by position and paired by pack."""

    model: str
    writer: str | None
    domain: str
    preset: str
    split: str
    n_packs: int
    size: int
    seed: int
    temperature: float
    arms: dict[str, ArmReport]
    floor: list[float]
    bayes: list[float]
    ceiling: list[float]
    lift: list[float] | None
    """own - null."""
    lift_ci95: list[list[float]] | None
    share: list[float] | None
    """(own_j - bayes_0) / (ceiling_j - bayes_0): the part of what only a context can give."""
    share_ci95: list[list[float]] | None
    shuffled_lift: list[float] | None
    """shuffled - null."""
    shuffled_lift_ci95: list[list[float]] | None
    tokens: int
    """Sampled ids of all arms; those of an episode that two arms share count for both."""


def evaluate(config: EvalConfig, *, on_progress: OnProgress = no_progress) -> Report:
    """Measure a model on held-out packs, every arm on the same ones.

    With `writer`, the contexts of `own` and of the arms made from them are another model's, rolled out by that model
    (the rows of arm `writer`) and only read here. `rows` takes one JSON line per episode as soon as a chunk of packs is
    over, also of arms that only another one needs; what such a file holds of this evaluation is not rolled out again,
    and the report is the same. What is missing is warned of. Raises ValueError for an unknown model, and for rows of
    another evaluation; TimeoutError if a chunk of packs takes longer than `stage_timeout` seconds.
    """
    arms, rows = config.arms, None if config.rows is None else Path(config.rows)
    if rows is not None:
        writable(rows)
    drawn = [make_pack(config.domain, config.preset, config.split, i, config.pack_size) for i in range(config.packs)]
    reader = _Player(config.model, config)
    author = None if config.writer is None else _Player(config.writer, config)
    asked = config.model_dump(include={"domain", "preset", "split", "seed", "temperature"})
    head: dict[str, Any] = {}
    if rows is not None:
        head = {"model": reader.player.identity, "writer": None if author is None else author.player.identity}
        head |= asked | config.model_dump(include={"pack_size"}) | {"packs": config.packs, "arms": arms}
        head |= {"workers": config.workers, "chunk": CHUNK, "profile": config.profile}
    journal = Journal(rows, head)
    try:
        lives = live_arms(arms, drawn, reader, author, journal, on_progress)
    finally:
        reader.player.close()
        if author is not None:
            author.player.close()
    tell_of_missing(lives)
    if {row.stop for arm in arms for life in lives[arm] for row in solves(life)} == {"malformed"}:
        log.warning(f"no answer of {config.model} could be read; does it know {config.domain}?")
    return Report(
        model=config.model,
        writer=config.writer,
        n_packs=config.packs,
        size=config.pack_size,
        **asked,
        **compare(drawn, lives),
        tokens=sum(row.tokens for of in lives.values() for life in of for row in life),
    )


def tell_of_missing(lives: dict[str, list[list[Row]]]) -> None:
    """Warn of lives that are missing, with what the first of them failed of."""
    for arm, of in lives.items():
        if missing := [rows[0] for rows in of if rows[0].kind == MISSING]:
            log.warning(f"{len(missing)} of {len(of)} lives of {arm} are missing: {missing[0].outcome}")


class _Player:
    """A model at work on packs."""

    def __init__(self, model: str, config: EvalConfig) -> None:
        how: dict[str, Any] = config.model_dump(include={"temperature", "profile", "workers", "device"})
        self.player, self.seed, self.timeout = Player(model, config.domain, **how), config.seed, config.stage_timeout
        profile = self.player.profile
        self.style, self.strategy, self.params = profile.style, profile.strategy(), profile.episode_params()

    def live(
        self,
        arm: str,
        packs: Sequence[Pack],
        given: Sequence[Own | Given],
        journal: Journal,
        on_progress: OnProgress,
        own: Sequence[Sequence[Row]] = (),
    ) -> list[list[Row]]:
        """Live every pack once; all arms draw their words under the same names, and `own` are lives under them."""
        lives: list[list[Row]] = []
        for first in range(0, len(packs), CHUNK):
            part = range(first, min(first + CHUNK, len(packs)))
            if not (chunk := journal.of(arm, part)):
                left = {i: left_to_live(packs[i], given[i], own[i] if own else ()) for i in part}
                chunk = journal.add(self._lived(arm, packs, given, left, on_progress))
            lives += chunk
            on_progress(arm, len(lives), len(packs))
        return lives

    def _lived(
        self,
        arm: str,
        packs: Sequence[Pack],
        given: Sequence[Own | Given],
        left: dict[int, tuple[list[Row], list[Pack]]],
        on_progress: OnProgress,
    ) -> list[list[Row]]:
        jobs = [
            Job(piece, given[i], self.params, ("eval", self.seed, i))
            for i, (_, pieces) in left.items()
            for piece in pieces
        ]
        over = iter(range(1, len(jobs)))

        def heard(_: Life) -> None:
            if done := next(over, None):  # the last is told of once all are written down
                on_progress(arm, min(left) + done * len(left) // len(jobs), len(packs))

        lives = iter(self.player.rollout(jobs, self.timeout, heard) if jobs else ())
        return [whole(packs[i], arm, known, [next(lives) for _ in pieces]) for i, (known, pieces) in left.items()]


def left_to_live(pack: Pack, given: Own | Given, own: Sequence[Row]) -> tuple[list[Row], list[Pack]]:
    """Part a life in what is known of it, from a life that was given the same, and what is still to be lived.

    Where contexts are given and the world keeps nothing in mind, each task is a life of its own: all are lived at once.
    """
    if isinstance(given, Own) or pack.domain.make_memory(pack.world) is not None:
        return [], [pack]
    known = [row for row, context in zip(solves(own), given.contexts, strict=False) if row.context == context]
    there = {row.position for row in known}
    return known, [replace(pack, tasks=(task,)) for task in pack.tasks if task.position not in there]


def whole(pack: Pack, arm: str, known: Sequence[Row], lives: Sequence[Life]) -> list[Row]:
    """Put the pieces of a life together; one that is missing is missed by all of it."""
    if missing := [life for life in lives if not life.episodes]:
        return [missing_row(pack, missing[0], arm=arm)]
    rows = [replace(row, arm=arm) for row in known] + [row for life in lives for row in life_rows(pack, life, arm=arm)]
    return sorted(rows, key=lambda row: row.position)


def live_arms(
    arms: Sequence[str],
    packs: Sequence[Pack],
    reader: _Player,
    writer: _Player | None,
    journal: Journal,
    on_progress: OnProgress,
) -> dict[str, list[list[Row]]]:
    """The rows of each life, by arm and pack."""
    size = len(packs[0].tasks)
    lives: dict[str, list[list[Row]]] = {}
    if needed_own(arms):
        given: list[Own | Given] = [Own(reader.strategy)] * len(packs)
        if writer is not None:
            written = writer.live("writer", packs, [Own(writer.strategy)] * len(packs), journal, on_progress)
            writer.player.close()  # one model in memory is enough
            given = [Given(reader.strategy, fitted(contexts(rows), size)) for rows in written]
        lives["own"] = reader.live("own", packs, given, journal, on_progress)
        if writer is not None:  # what was not written cannot have been read
            lost = [[replace(rows[0], arm="own")] if rows[0].kind == MISSING else [] for rows in written]
            lives["own"] = [none or rows for none, rows in zip(lost, lives["own"], strict=True)]
    own = [contexts(rows) for rows in lives.get("own", [])]
    for arm in arms:
        if arm != "own":
            given = [
                Given(reader.strategy, contexts_of(arm, i, packs, own, reader.params.style)) for i in range(len(packs))
            ]
            lives[arm] = reader.live(arm, packs, given, journal, on_progress, lives.get("own", ()))
    return {arm: lives[arm] for arm in arms}


def baselines(domain: str, *, preset: str, packs: int, size: int, split: str = "dev") -> dict[str, Any]:
    """What scripted policies reach by position on these packs, and whether `bayes` is exact."""
    drawn = [make_pack(domain, preset, split, i, size) for i in range(packs)]
    curves = {name: rounded(scripted_rewards(name, drawn).mean(0)) for name in POLICIES[1:]}
    lives = range(RANDOM_LIVES)  # those of a pack one after another, for what an environment works out and keeps
    chance = np.array([scripted_rewards("random", [reseeded(pack, k) for k in lives]).mean(0) for pack in drawn])
    head = {"domain": domain, "preset": preset, "split": split, "n_packs": packs, "size": size}
    return {**head, "random": rounded(chance.mean(0)), **curves, "exact": drawn[0].domain.exact}


def reseeded(pack: Pack, k: int) -> Pack:
    """The same pack, for a policy that draws other numbers."""
    return replace(pack, world=replace(pack.world, names=(*pack.world.names, k)))


def as_json(report: Report) -> dict[str, Any]:
    """A report as plain data; JSON has no NaN, so what could not be computed is None."""
    plain: dict[str, Any] = without_nan(asdict(report))
    return plain


def without_nan(value: Any) -> Any:
    """Plain data with None for every NaN."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value
