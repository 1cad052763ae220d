"""Evaluate a model: reward by position for every arm on the same packs, with references and 95% intervals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from codots.config.evaluate import EvalConfig
from codots.context.record import RECORDS
from codots.core.files import writable
from codots.core.processes import check_main_guard
from codots.core.progress import OnProgress, no_progress
from codots.domains.base import POLICIES, Pack
from codots.domains.registry import make_pack
from codots.engine.open import OpenModel
from codots.evaluation.curves import ArmReport, compare, rounded, scripted_rewards, warn_of_unanswered
from codots.evaluation.forecast import budget_of
from codots.rollout.arms import ARMS, contexts_of, fitted, needed_own
from codots.rollout.life import Job, Life
from codots.rollout.records import MISSING, Row, contexts, life_rows, missing_row, solves, why_unreadable
from codots.rollout.steps import Given, Own
from codots.runs.resume import Journal
from codots.sampler.budget import Budget, SpentError

log = logging.getLogger("codots")

__all__ = ["ARMS", "POLICIES", "ArmReport", "Report", "as_json", "baselines", "evaluate"]

RANDOM_LIVES = 8
"""Number of lives of the random policy per pack. There are several, because the rewards of this policy vary most."""
CHUNK = 100
"""Number of packs that are rolled out together."""


@dataclass(frozen=True)
class Report:
    """The result of an evaluation. Lists are indexed by position, and differences between arms are paired by pack."""

    model: str
    writer: str | None
    domain: str
    preset: str
    split: str
    n_packs: int
    size: int
    seed: int
    temperature: float
    """Sampling temperature of the arms."""
    writer_temperature: float | None
    """Sampling temperature of the writer; None without one."""
    arms: dict[str, ArmReport]
    floor: list[float]
    bayes: list[float]
    ceiling: list[float]
    lift: list[float] | None
    """own - null, the gain from the model's own contexts. None if either arm was not evaluated."""
    lift_ci95: list[list[float]] | None
    share: list[float] | None
    """(own_j - bayes_0) / (ceiling_j - bayes_0): how much of the gain that is possible only with a context was reached.
    None if `own` was not evaluated or `bayes` is not exact."""
    share_ci95: list[list[float]] | None
    shuffled_lift: list[float] | None
    """shuffled - null. None if either arm was not evaluated."""
    shuffled_lift_ci95: list[list[float]] | None
    hurt: list[float] | None
    """Fraction of tasks whose reward is lower with the own context than with none. None if either arm was not
    evaluated."""
    tokens: int
    """Number of sampled tokens of all arms. An episode that two arms share is counted for both."""
    context_tokens: int | None = None
    """Maximum length of the contexts of `transcript` and `notes`, in tokens. None without these arms."""


def evaluate(config: EvalConfig, *, on_progress: OnProgress = no_progress) -> Report:
    """Evaluate a model on held-out packs, with the same packs for every arm.

    With `writer`, another model writes the contexts of `own` and of the arms derived from it: that model's own lives
    are rolled out first (the rows of arm `writer`), and the evaluated model only reads their contexts. Each model
    samples at the temperature of its profile, or both at the `temperature` of the settings.

    If `rows` is set, every episode is written to this JSONL file, one line per episode. Each life is written when it
    ends, including the lives of arms that are not requested but needed by another arm. Lives of this evaluation that
    the file already contains are not rolled out again. Every life has its own random numbers, so the others are the
    same as without an interruption, as far as the model gives the same probabilities in a smaller batch: in float32
    they differ by about 1e-7. Missing lives are written when their chunk of packs is finished.

    `on_progress` is called with the arm, the number of its packs that are finished, and the number of packs.

    Missing lives (lost to infrastructure failures) are logged as warnings. Raises ValueError for an unknown model, if
    the first prompt does not fit into it, and if `rows` belongs to another evaluation. Raises TimeoutError if a chunk
    takes longer than `stage_timeout` seconds, and SpentError if `max_tokens_total` or `max_cost` is reached.
    """
    check_main_guard()
    arms, rows = config.arms, None if config.rows is None else Path(config.rows)
    if rows is not None:
        writable(rows)
    packs = [make_pack(config.domain, config.preset, config.split, i, config.pack_size) for i in range(config.packs)]
    budget = budget_of(config)
    reader = _Evaluator(config.model, config, budget)
    writer = None if config.writer is None else _Evaluator(config.writer, config, budget)
    for model in (reader, writer):
        if model is not None:
            model.model.check_fits(packs[0])
    settings = config.model_dump(include={"domain", "preset", "split", "seed"})
    settings["temperature"] = reader.temperature
    settings["writer_temperature"] = None if writer is None else writer.temperature
    settings["context_tokens"] = None if RECORDS.keys().isdisjoint(arms) else reader.context_tokens
    head: dict[str, Any] = {}
    if rows is not None:
        head = {"model": reader.model.identity, "writer": None if writer is None else writer.model.identity}
        head |= settings | config.model_dump(include={"pack_size"}) | {"packs": config.packs, "arms": arms}
        head |= {"workers": config.workers, "profile": config.profile}
        head |= {"extra_body": config.extra_body or None}
    try:
        with Journal(rows, head) as journal:
            for row in chain.from_iterable(journal.lives.values()):
                budget.spend(row.prompt_tokens or 0, row.completion_tokens or 0)
            lives = roll_out_arms(arms, packs, reader, writer, journal, on_progress)
            journal.sort()
    except SpentError as error:
        kept = f"{len(journal.lives)} finished lives are in {rows}; raise the limit and run the same command to go on"
        raise SpentError(f"{error}; {kept}") from None
    finally:
        reader.model.close()
        if writer is not None:
            writer.model.close()
    warn_of_missing(lives)
    solved = [row for arm in arms for life in lives[arm] for row in solves(life)]
    if {row.stop for row in solved} == {"malformed"}:
        asked = reader.params.solve.max_tokens
        hint = why_unreadable((row.ended for row in solved), asked, f"was it trained on {config.domain}?")
        log.warning(f"no reply of {config.model} could be parsed; {hint}")
    curves = compare(packs, lives)
    warn_of_unanswered(config.model, curves["arms"])
    return Report(
        model=config.model,
        writer=config.writer,
        n_packs=config.packs,
        size=config.pack_size,
        **settings,
        **curves,
        tokens=sum(row.tokens for arm_lives in lives.values() for life in arm_lives for row in life),
    )


def warn_of_missing(lives: dict[str, list[list[Row]]]) -> None:
    """Log a warning for each arm that has missing lives, with their number and the first error."""
    for arm, arm_lives in lives.items():
        if missing := [rows[0] for rows in arm_lives if rows[0].kind == MISSING]:
            log.warning(f"{len(missing)} of {len(arm_lives)} lives of {arm} are missing: {missing[0].outcome}")


@dataclass(frozen=True)
class _Asked:
    """A life that is asked for."""

    pack: Pack
    given: Own | Given
    known: list[Row]
    """Rows that are reused."""
    pieces: list[Pack]
    """What is rolled out."""


class _Evaluator:
    """One model, with the settings for rolling out packs."""

    def __init__(self, model: str, config: EvalConfig, budget: Budget) -> None:
        options: dict[str, Any] = config.model_dump(
            include={"temperature", "profile", "workers", "device", "extra_body"}
        )
        base = config.base if model == config.model else None
        self.model = OpenModel(model, config.domain, **options, budget=budget, base=base)
        self.seed, self.timeout = config.seed, config.stage_timeout
        profile = self.model.profile
        self.context_tokens = config.context_tokens or profile.update_tokens
        self.style, self.strategy, self.params = profile.style, profile.strategy(), profile.episode_params()
        self.temperature = float(profile.temperature)

    def roll_out(
        self,
        arm: str,
        packs: Sequence[Pack],
        given: Sequence[Own | Given],
        journal: Journal,
        on_progress: OnProgress,
        own: Sequence[Sequence[Row]] = (),
    ) -> list[list[Row]]:
        """Roll out every pack once and return the rows of each life. All arms use the same random streams.

        `own` is the lives of arm `own`, whose rows are reused for tasks with the same context.
        """
        done = sum(bool(journal.of(arm, i)) for i in range(len(packs)))
        if done:
            on_progress(arm, done, len(packs))

        def add(rows: list[Row]) -> None:
            nonlocal done
            done += 1
            journal.add(rows)
            on_progress(arm, done, len(packs))

        for first in range(0, len(packs), CHUNK):
            part = range(first, min(first + CHUNK, len(packs)))
            asked = [
                _Asked(packs[i], given[i], *split_known(packs[i], given[i], own[i] if own else ()))
                for i in part
                if not journal.of(arm, i)
            ]
            self._roll_out_chunk(arm, asked, add)
            journal.sync()
        return [journal.of(arm, i) for i in range(len(packs))]

    def _roll_out_chunk(self, arm: str, asked: Sequence[_Asked], add: Callable[[list[Row]], None]) -> None:
        """Call `add` with the rows of each life: when it ends, or after all others if a part of it is missing."""
        owners = [life for life in asked for _ in life.pieces]
        jobs = [
            Job(piece, life.given, self.params, ("eval", self.seed, life.pack.index))
            for life in asked
            for piece in life.pieces
        ]
        ended: dict[int, dict[int, Life]] = {life.pack.index: {} for life in asked}

        def on_life(k: int, piece: Life) -> None:
            life = owners[k]
            pieces = ended[life.pack.index]
            pieces[k] = piece
            if len(pieces) == len(life.pieces) and not any(piece.failure for piece in pieces.values()):
                add(joined(life.pack, arm, life.known, pieces))

        if jobs:
            self.model.rollout(jobs, self.timeout, on_life)
        for life in asked:
            pieces = ended[life.pack.index]
            if not pieces or any(piece.failure for piece in pieces.values()):
                add(joined(life.pack, arm, life.known, pieces))


def split_known(pack: Pack, given: Own | Given, own: Sequence[Row]) -> tuple[list[Row], list[Pack]]:
    """Split a life into rows that are reused from `own` and pieces that must be rolled out.

    If contexts are given, the world keeps no memory and no success ends the life, each task is a piece of its own, so
    that tasks are rolled out in parallel, and the row of a task is reused if `own` had the same context. Otherwise the
    whole life is one piece.
    """
    domain = pack.domain
    if isinstance(given, Own) or domain.stops or domain.make_memory(pack.world) is not None:
        return [], [pack]
    known = [row for row, context in zip(solves(own), given.contexts, strict=False) if row.context == context]
    reused = {row.position for row in known}
    return known, [replace(pack, tasks=(task,)) for task in pack.tasks if task.position not in reused]


def joined(pack: Pack, arm: str, known: Sequence[Row], pieces: Mapping[int, Life]) -> list[Row]:
    """Join reused rows and rolled-out pieces into one life. The life is missing if any piece is missing.

    `pieces` maps the indices of jobs to lives.
    """
    lives = [pieces[k] for k in sorted(pieces)]
    if missing := [life for life in lives if not life.episodes]:
        return [missing_row(pack, missing[0], arm=arm)]
    reused = [replace(row, arm=arm, prompt_tokens=None, completion_tokens=None) for row in known]
    rows = reused + [row for life in lives for row in life_rows(pack, life, arm=arm)]
    return sorted(rows, key=lambda row: row.position)


def roll_out_arms(
    arms: Sequence[str],
    packs: Sequence[Pack],
    reader: _Evaluator,
    writer: _Evaluator | None,
    journal: Journal,
    on_progress: OnProgress,
) -> dict[str, list[list[Row]]]:
    """Roll out every arm. Return, for each arm, the rows of each life in the order of the packs."""
    size = len(packs[0].tasks)
    lives: dict[str, list[list[Row]]] = {}
    if needed_own(arms):
        given: list[Own | Given] = [Own(reader.strategy)] * len(packs)
        if writer is not None:
            written = writer.roll_out("writer", packs, [Own(writer.strategy)] * len(packs), journal, on_progress)
            writer.model.close()  # keep one model in memory
            given = [Given(reader.strategy, fitted(contexts(rows), size)) for rows in written]
        lives["own"] = reader.roll_out("own", packs, given, journal, on_progress)
        if writer is not None:
            lives["own"] = without_writer(lives["own"], written)
    own = [contexts(rows) for rows in lives.get("own", [])]
    for arm in arms:
        if arm in RECORDS:
            given = [Own(RECORDS[arm](reader.context_tokens))] * len(packs)
            lives[arm] = reader.roll_out(arm, packs, given, journal, on_progress)
        elif arm != "own":
            given = [
                Given(reader.strategy, contexts_of(arm, i, packs, own, reader.params.style)) for i in range(len(packs))
            ]
            lives[arm] = reader.roll_out(arm, packs, given, journal, on_progress, lives.get("own", ()))
    return {arm: lives[arm] for arm in arms}


def without_writer(own: Sequence[list[Row]], written: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """Return the lives of `own`, of which those are missing whose writer's life is missing."""
    missing = [[replace(rows[0], arm="own")] if rows[0].kind == MISSING else [] for rows in written]
    return [lost or rows for lost, rows in zip(missing, own, strict=True)]


def baselines(
    domain: str, *, preset: str, packs: int, size: int, split: str = "dev", on_progress: OnProgress = no_progress
) -> dict[str, Any]:
    """Return the mean reward by position of each scripted policy, and whether `bayes` is exact.

    `on_progress` is called with the policy, the number of its packs that are finished, and the number of packs.
    """
    drawn = [make_pack(domain, preset, split, i, size) for i in range(packs)]

    def mean(policy: str, lives: Callable[[Pack], list[Pack]]) -> list[float]:
        rewards = []
        for i, pack in enumerate(drawn):
            rewards.append(scripted_rewards(policy, lives(pack)).mean(0))
            on_progress(policy, i + 1, packs)
        return rounded(np.array(rewards).mean(0))

    curves = {name: mean(name, lambda pack: [pack]) for name in POLICIES[1:]}
    # Lives of a pack are consecutive, so that environments can use their caches.
    chance = mean("random", lambda pack: [reseeded(pack, k) for k in range(RANDOM_LIVES)])
    head = {"domain": domain, "preset": preset, "split": split, "n_packs": packs, "size": size}
    return {**head, "random": chance, **curves, "exact": drawn[0].domain.is_exact(preset)}


def reseeded(pack: Pack, k: int) -> Pack:
    """Return the same pack with different random streams for the policy. Each k has its own streams."""
    return replace(pack, world=replace(pack.world, names=(*pack.world.names, k)))


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as plain data for JSON. NaN is replaced by None, because JSON has no NaN."""
    plain: dict[str, Any] = without_nan(asdict(report))
    return plain


def without_nan(value: Any) -> Any:
    """Return plain data with every NaN replaced by None."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value
