"""CoD-Train: roll out lives in packs, credit every episode, learn from all of them, again."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from codots.algorithm.credit import Advantages
from codots.config.schema import TrainConfig
from codots.core.deadline import within
from codots.core.files import write_atomically, write_folder
from codots.core.transcript import Sample
from codots.domains.base import Pack
from codots.engine.base import Engine
from codots.learner.batch import normalizer
from codots.rollout.life import Life
from codots.rollout.records import dump, life_rows
from codots.runs.checkpoint import is_saved
from codots.training.batch import Block, advantage_of, blocks_of, minibatches, step_jobs
from codots.training.metrics import sampled_tokens, staleness, summary
from codots.training.setup import Run, begin

log = logging.getLogger("codots")


@dataclass(frozen=True)
class StepReport:
    """What one step did."""

    step: int
    steps: int
    metrics: dict[str, float]
    lives: Sequence[Life] = field(repr=False)
    packs: Sequence[Pack] = field(repr=False)


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    engine: Engine | None = None,
    on_progress: Callable[[str], None] = lambda stage: None,
) -> Generator[StepReport, None, None]:
    """Train by a recipe, one report a step.

    The run folder holds `config.yaml`, `metrics.jsonl`, `rollouts/`, `checkpoints/`, the files of its loggers and, at
    the end, `model/`. Closing the iterator saves a checkpoint; `resume` continues from the last one, bit for bit.
    `engine` replaces the one that the recipe names, and is closed with the run. `on_progress` is called with the name
    of each stage as it begins. Raises ValueError for what cannot be run, ArithmeticError for numbers that are stopped
    before they reach the weights, and TimeoutError for a stage that takes longer than `stage_timeout`.
    """
    timeout, learner = config.stage_timeout, config.learner
    with ExitStack() as stack:
        on_progress("starting")
        run = within(timeout, "starting", lambda: begin(config, stack, resume=resume, engine=engine))
        for step in range(run.done + 1, config.steps + 1):
            clock = time.perf_counter()
            on_progress(f"rolling out {run.lives_of_a_step} lives")
            blocks = blocks_of(run.entries, step, lives_of(run, step))
            lived = time.perf_counter() - clock
            credit = run.credit(blocks)
            on_progress("learning from them")
            metrics: list[dict[str, float]] = []
            with stopping_bad_numbers(run, step, blocks, credit):
                for batch in minibatches(blocks, credit, config.minibatches):
                    samples = with_reference(run, batch)
                    learned = run.engine.forward_backward(samples, normalizer(samples, learner), timeout)
                    if not metrics:  # the weights of later mini-batches are right to differ from the samplers'
                        check_logprob_gap(run, samples, learned)
                    metrics.append(learned | run.engine.optim_step(timeout))
                values = step_metrics(run, step, blocks, credit, metrics)
                run.engine.sync(timeout)
            if step % config.rollout_log_every == 0 or step == 1:
                record(run.folder / "rollouts", step, [first_packs(block, 2) for block in blocks], credit)
            values |= {"time/rollout": lived, "time/step": time.perf_counter() - clock}
            if config.eval_every and (step % config.eval_every == 0 or step == config.steps):
                on_progress(f"evaluating {config.eval_packs} dev packs")
                values |= run.dev.evaluate(run.engine, timeout)
            yield from report_and_save(run, step, values, blocks, on_progress)
        on_progress("saving the model")
        within(timeout, "saving the model", lambda: write_folder(run.folder / "model", run.engine.save_model))


def lives_of(run: Run, step: int) -> list[Life]:
    """Submit the jobs of all steps up to `delay` ahead, and collect the lives of this one.

    Pending batches are those of this step and the ones after it, in order.
    """
    config, engine = run.config, run.engine
    last = min(step + config.engine.delay, config.steps)
    for ahead in range(step + engine.pending, last + 1):
        engine.submit(step_jobs(run.entries, config.seed, ahead), config.stage_timeout)
    lives = engine.collect(config.stage_timeout)
    if all(life.failure for life in lives):
        raise RuntimeError(f"every life of step {step} is missing: {lives[0].failure}")
    return lives


def with_reference(run: Run, batch: list[Sample]) -> list[Sample]:
    """Add the reference model's logprobs, if the loss asks for them."""
    if not run.config.learner.kl_coef:
        return batch
    rows = run.engine.logprobs(batch, run.config.stage_timeout, reference=True)
    return [replace(sample, ref_logprobs=row) for sample, row in zip(batch, rows, strict=True)]


def check_logprob_gap(run: Run, batch: Sequence[Sample], metrics: dict[str, float]) -> None:
    """Raise ArithmeticError where sampler and learner give the same ids other logprobs with the same weights."""
    limit, gap, version = run.config.max_logprob_gap, metrics["train/logprob_gap"], run.engine.version
    fresh = all(v == version for s in batch for v, sampled in zip(s.versions, s.mask, strict=True) if sampled)
    if fresh and not gap <= limit:
        raise ArithmeticError(
            f"sampler and learner disagree: logprobs of the same ids are {gap:.3g} apart on average, and "
            f"max_logprob_gap is {limit:g}; the weights are untouched"
        )


@contextmanager
def stopping_bad_numbers(run: Run, step: int, blocks: Sequence[Block], credit: Sequence[Advantages]) -> Iterator[None]:
    """Where numbers are stopped before they reach the weights, save what they came from, and say where it is."""
    before = run.engine.steps
    try:
        yield
    except ArithmeticError as error:
        folder = run.folder / "stopped"
        record(folder, step, blocks, credit)
        batch = [sample for whole in minibatches(blocks, credit, 1) for sample in whole]
        write_atomically(folder / f"step-{step:06d}.samples", "".join(json.dumps(asdict(s)) + "\n" for s in batch))
        # With a delay the lives of this step are gone from the engine: an earlier checkpoint has them.
        if run.engine.steps == before and not run.config.engine.delay and not is_saved(run.folder, step - 1):
            run.save(step - 1)
        raise type(error)(f"step {step} was stopped: {error}; what it was to learn is in {folder}") from error


def step_metrics(
    run: Run, step: int, blocks: Sequence[Block], credit: Sequence[Advantages], learned: Sequence[dict[str, float]]
) -> dict[str, float]:
    """Gather the numbers of a step, before its weights are served."""
    config = run.config
    values = summary(blocks) | credit[0].metrics
    values |= {name: float(np.mean([report[name] for report in learned])) for name in (learned[0] if learned else {})}
    values |= staleness([life for block in blocks for life in block.lives], run.engine.version)
    sampled = sampled_tokens(blocks)
    run.tokens += sampled
    if step == 1 and values["malformed/solve"] == 1:
        domains = ", ".join(dict.fromkeys(world.domain for world in config.worlds))
        log.warning(f"no answer of step 1 could be read; does {config.model} know {domains}?")
    return values | {"tokens/sampled": sampled, "tokens/total": run.tokens}


def report_and_save(
    run: Run, step: int, values: dict[str, float], blocks: Sequence[Block], on_progress: Callable[[str], None]
) -> Iterator[StepReport]:
    """Log the numbers of a step, yield its report, and write a checkpoint when it is time or the run is closed."""
    config, dev = run.config, values.get("eval/score")

    def save() -> None:
        on_progress(f"saving checkpoint {step}")
        within(config.stage_timeout, f"saving checkpoint {step}", lambda: run.save(step, dev))

    run.metrics.add(step, values)
    lives, packs = [life for b in blocks for life in b.lives], [pack for b in blocks for pack in b.packs]
    try:
        yield StepReport(step, config.steps, values, lives, packs)
    except GeneratorExit:
        save()
        raise
    if step % config.save_every == 0 or step == config.steps or run.is_best(dev):
        save()


def first_packs(block: Block, count: int) -> Block:
    """The first packs of a block, with their lives."""
    return replace(block, packs=block.packs[:count], lives=block.lives[: count * block.entry.group_size])


def record(folder: Path, step: int, blocks: Sequence[Block], credit: Sequence[Advantages]) -> None:
    """Write down every life of these blocks."""
    folder.mkdir(exist_ok=True)
    rows = []
    for block, advantages in zip(blocks, credit, strict=True):
        for i, life in enumerate(block.lives):
            p, g = divmod(i, block.entry.group_size)

            credited = partial(advantage_of, advantages, p, g)
            rows += life_rows(block.packs[p], life, index=g, step=step, credit=credited)
    write_atomically(folder / f"step-{step:06d}.jsonl", dump(rows))
