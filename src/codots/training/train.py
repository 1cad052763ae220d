"""CoD-Train: live lives in packs, credit every episode, learn, again."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from codots.algorithm.credit import Advantages, advantages
from codots.config.schema import TrainConfig
from codots.core.deadline import deadline
from codots.core.files import write_atomically, write_folder
from codots.core.transcript import Sample
from codots.domains.base import Pack
from codots.domains.registry import make_pack
from codots.engine.local import LocalEngine
from codots.rollout.life import Given, Job, Kind, Life, Own
from codots.rollout.profile import Profile
from codots.rollout.records import dump, life_rows
from codots.runs.checkpoint import best_checkpoint, dev_of, is_saved, save_checkpoint
from codots.runs.loggers import Metrics
from codots.training.setup import begin

log = logging.getLogger("codots")


@dataclass(frozen=True)
class StepReport:
    """What one step did."""

    step: int
    steps: int
    metrics: dict[str, float]
    lives: Sequence[Life] = field(repr=False)
    packs: Sequence[Pack] = field(repr=False)


@dataclass(frozen=True)
class Rewards:
    """Rewards and sampled ids of P packs x G lives; a missing life is a row of NaN."""

    solve_PGS: np.ndarray
    update_PGS: np.ndarray
    solve_tokens_PGS: np.ndarray
    update_tokens_PGS: np.ndarray


def train(
    config: TrainConfig, *, resume: bool = False, told: Callable[[str], None] = lambda stage: None
) -> Generator[StepReport, None, None]:
    """Train by a recipe, one report a step.

    The run folder holds `config.yaml`, `metrics.jsonl`, `rollouts/`, `checkpoints/`, what its loggers write and, at the
    end, `model/`. Closing the iterator saves a checkpoint; `resume` goes on from the last one, bit for bit. `told`
    hears what is being waited for. Raises ValueError for what cannot be run, and ArithmeticError for numbers that
    are stopped before they reach the weights, TimeoutError for what took longer than `patience`.
    """

    def waiting(stage: str) -> AbstractContextManager[None]:
        told(stage)
        return deadline(config.patience, stage)

    with ExitStack() as stack:
        with waiting("starting"):
            run, engine, profile, done, tokens = begin(config, resume, stack)
        metrics = stack.enter_context(closing(Metrics(run, done, config.loggers, config.model_dump(mode="json"))))

        def save(step: int, dev: float | None = None) -> None:
            with waiting(f"saving checkpoint {step}"):
                save_checkpoint(run, step, config, {"tokens": tokens, "dev": dev}, engine.save, config.keep)

        for step in range(done + 1, config.steps + 1):
            clock, before = time.perf_counter(), engine.steps
            packs = step_packs(config, step)
            with waiting(f"living {config.packs * config.group} lives"):
                lives = engine.live(step_jobs(config, profile, packs, step))
            lived = time.perf_counter() - clock
            if all(life.failure for life in lives):
                raise RuntimeError(f"every life of step {step} is missing: {lives[0].failure}")
            rewards = collect(lives, config.packs, config.group, config.size)
            credit = credit_of(config, rewards)
            try:
                with waiting("learning from them"):
                    learned = learn(engine, config, lives, credit)
            except ArithmeticError as error:
                folder = keep_for_a_look(run / "stopped", config, step, packs, lives, credit)
                if engine.steps == before and not is_saved(run, step - 1):
                    save(step - 1)
                raise type(error)(f"step {step} was stopped: {error}; what it was to learn is in {folder}") from error
            if step % config.record_every == 0 or step == 1:
                record(run / "rollouts", step, packs[:2], lives, credit, config.group)
            sampled = int(np.nansum(rewards.solve_tokens_PGS) + np.nansum(rewards.update_tokens_PGS))
            tokens += sampled
            values = summary(rewards, lives, packs) | credit.metrics | learned
            if step == 1 and values["malformed/solve"] == 1:
                log.warning(f"no answer of step 1 could be read; does {config.model} know {config.domain}?")
            values |= {"tokens/sampled": sampled, "tokens/total": tokens}
            values |= {"clock/live": lived, "clock/step": time.perf_counter() - clock}
            dev = None
            if config.look_every and (step % config.look_every == 0 or step == config.steps):
                with waiting(f"looking at {config.look_packs} dev packs"):
                    seen = look(engine, config, profile)
                values, dev = values | seen, dev_figure(seen)
            metrics.add(step, values)
            try:
                yield StepReport(step, config.steps, values, lives, packs)
            except GeneratorExit:
                save(step, dev)
                raise
            best = dev is not None and dev > dev_of(best_checkpoint(run))
            if step % config.save_every == 0 or step == config.steps or best:
                save(step, dev)
        with waiting("saving the model"):
            write_folder(run / "model", engine.save_model)


def keep_for_a_look(
    folder: Path, config: TrainConfig, step: int, packs: Sequence[Pack], lives: Sequence[Life], credit: Advantages
) -> Path:
    """Write down what a step was to learn from: its lives as rollouts, and the samples as the learner got them."""
    record(folder, step, packs, lives, credit, config.group)
    batch = [sample for i, life in enumerate(lives) for sample in samples(life, credit, *divmod(i, config.group))]
    write_atomically(folder / f"step-{step:06d}.samples", "".join(json.dumps(asdict(one)) + "\n" for one in batch))
    return folder


def step_packs(config: TrainConfig, step: int) -> list[Pack]:
    """Draw the packs of a step; no pack is met twice."""
    first = (step - 1) * config.packs
    return [make_pack(config.domain, config.preset, "train", first + i, config.size) for i in range(config.packs)]


def step_jobs(config: TrainConfig, profile: Profile, packs: Sequence[Pack], step: int) -> list[Job]:
    """The lives of a step, the group of each pack side by side."""
    strategy = profile.strategy(config.on_parse_failure)
    contexts = Own(strategy) if config.contexts == "own" else Given(strategy, ("",) * config.size)
    return [
        Job(pack, contexts, ("train", config.seed, step, i, g))
        for i, pack in enumerate(packs)
        for g in range(config.group)
    ]


def collect(lives: Sequence[Life], packs: int, group: int, size: int) -> Rewards:
    """Lay lives out as arrays: solves (P, G, S), updates (P, G, S-1)."""
    solve, solve_tokens = np.full((2, packs * group, size), np.nan)
    update, update_tokens = np.full((2, packs * group, size - 1), np.nan)
    for i, life in enumerate(lives):
        if life.failure is None:
            update[i] = update_tokens[i] = 0.0  # a life that was given its contexts rewrites nothing
        for episode in life.episodes:
            values, counts = (solve, solve_tokens) if episode.kind == "solve" else (update, update_tokens)
            values[i, episode.position] = episode.reward
            counts[i, episode.position] = episode.transcript.tokens
    return Rewards(*(array.reshape(packs, group, -1) for array in (solve, update, solve_tokens, update_tokens)))


def credit_of(config: TrainConfig, rewards: Rewards) -> Advantages:
    """Turn rewards into one advantage an episode."""
    r = rewards
    if config.contexts == "none":
        return task_by_task(config, r)
    return advantages(
        r.solve_PGS,
        r.update_PGS,
        r.solve_tokens_PGS,
        r.update_tokens_PGS,
        config.credit.preset,
        **config.credit.choices,
    )


def task_by_task(config: TrainConfig, r: Rewards) -> Advantages:
    """Credit every solve by its own reward alone: each position is a pack of one task."""
    P, G, S = r.solve_PGS.shape
    solve, tokens = (array.transpose(0, 2, 1).reshape(P * S, G, 1) for array in (r.solve_PGS, r.solve_tokens_PGS))
    none = np.zeros((P * S, G, 0))
    credit = advantages(solve, none, tokens, none, config.credit.preset, **config.credit.choices)
    return Advantages(credit.solve_PGS.reshape(P, S, G).transpose(0, 2, 1), np.zeros((P, G, S - 1)), credit.metrics)


def learn(engine: LocalEngine, config: TrainConfig, lives: Sequence[Life], credit: Advantages) -> dict[str, float]:
    """Take the optimiser steps of one batch of lives, mini-batches cut by pack."""
    per_cut = config.packs // config.minibatches * config.group
    reports = []
    for first in range(0, len(lives), per_cut):
        batch = [
            sample
            for i in range(first, first + per_cut)
            for sample in samples(lives[i], credit, *divmod(i, config.group))
        ]
        if batch:
            reports.append(engine.step(batch))
    return {name: float(np.mean([report[name] for report in reports])) for name in (reports[0] if reports else {})}


def samples(life: Life, credit: Advantages, p: int, g: int) -> list[Sample]:
    """Give the episodes of a life their advantages; one without any has nothing to teach."""
    scored = [(e, advantage_of(credit, p, g, e.kind, e.position)) for e in life.episodes]
    return [episode.transcript.sample(advantage) for episode, advantage in scored if episode.transcript.tokens]


def advantage_of(credit: Advantages, p: int, g: int, kind: Kind, position: int) -> float:
    """Look up one episode's advantage."""
    array = credit.solve_PGS if kind == "solve" else credit.update_PGS
    return float(array[p, g, position])


def summary(rewards: Rewards, lives: Sequence[Life], packs: Sequence[Pack]) -> dict[str, float]:
    """Reward, success and failures of a step, by position where it matters."""
    values: dict[str, float] = {}
    by_position = np.nanmean(rewards.solve_PGS, axis=(0, 1)) if any(life.episodes for life in lives) else []
    for j, reward in enumerate(by_position):
        values[f"reward/{j}"] = float(reward)
    solves = [episode for life in lives for episode in life.of("solve")]
    updates = [episode for life in lives for episode in life.of("update")]
    values["malformed/solve"] = share(e.stop == "malformed" for e in solves)
    values["malformed/update"] = share(e.stop == "malformed" for e in updates)
    values["lives/missing"] = float(sum(life.failure is not None for life in lives))
    return values | last_facts(lives, packs)


def share(hits: Iterable[bool]) -> float:
    """The fraction of hits, 0 of none."""
    found = list(hits)
    return sum(found) / len(found) if found else 0.0


def last_facts(lives: Sequence[Life], packs: Sequence[Pack]) -> dict[str, float]:
    """Claims of the last contexts: right and wrong ones, as fractions of what can be known."""
    group = len(lives) // len(packs)
    counts = []
    for i, life in enumerate(lives):
        pack = packs[i // group]
        if life.contexts and (facts := pack.domain.facts(pack.world, life.contexts[-1])):
            counts.append(facts)
    if not counts:
        return {}
    right, wrong, knowable = np.mean(counts, axis=0)
    return {"facts/right": float(right / knowable), "facts/wrong": float(wrong / knowable)}


def look(engine: LocalEngine, config: TrainConfig, profile: Profile) -> dict[str, float]:
    """Own and null contexts on the same `dev` packs; the last position's difference is the lift.

    An arm whose lives are all missing has no numbers.
    """
    packs = [make_pack(config.domain, config.preset, "dev", i, config.size) for i in range(config.look_packs)]
    strategy = profile.strategy(config.on_parse_failure)
    arms: dict[str, Own | Given] = {"own": Own(strategy), "null": Given(strategy, ("",) * config.size)}
    jobs = [Job(pack, arm, ("look", config.seed, i)) for arm in arms.values() for i, pack in enumerate(packs)]
    lives = engine.live(jobs)
    rewards_APS = collect(lives, len(arms), len(packs), config.size).solve_PGS
    there = {arm: r_PS for arm, r_PS in zip(arms, rewards_APS, strict=True) if not np.isnan(r_PS).all()}
    by_arm = {arm: np.nanmean(r_PS, axis=0) for arm, r_PS in there.items()}
    values = {f"look/{arm}_{j}": float(reward) for arm, curve in by_arm.items() for j, reward in enumerate(curve)}
    lift = {"look/lift": float(by_arm["own"][-1] - by_arm["null"][-1])} if len(by_arm) == len(arms) else {}
    return values | lift


def dev_figure(looked: dict[str, float]) -> float | None:
    """What checkpoints are compared by: the mean reward of lives with their own contexts, None if there were none."""
    own = [value for key, value in looked.items() if key.startswith("look/own_")]
    return float(np.mean(own)) if own else None


def record(
    folder: Path, step: int, packs: Sequence[Pack], lives: Sequence[Life], credit: Advantages, group: int
) -> None:
    """Write down every life of these packs, the first of the step."""
    folder.mkdir(exist_ok=True)
    rows = []
    for i in range(len(packs) * group):
        p, g = divmod(i, group)

        def credited(kind: Kind, position: int, p: int = p, g: int = g) -> float:
            return advantage_of(credit, p, g, kind, position)

        rows += life_rows(packs[p], lives[i], index=g, step=step, credit=credited)
    write_atomically(folder / f"step-{step:06d}.jsonl", dump(rows))
