"""The training loop of CoD-Train: roll out lives in packs, assign credit to episodes, update the weights."""

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
from codots.core.processes import check_main_guard
from codots.core.transcript import Sample
from codots.domains.base import Pack
from codots.engine.base import Engine
from codots.learner.batch import normalizer
from codots.rollout.life import Life
from codots.rollout.records import dump, life_rows, why_unreadable
from codots.runs.checkpoint import is_saved
from codots.training.batch import Block, advantage_of, blocks_of, minibatches, step_jobs
from codots.training.collapse import find_collapse
from codots.training.metrics import sampled_tokens, staleness, summary
from codots.training.setup import OpenRun, Run, open_training

log = logging.getLogger("codots")


@dataclass(frozen=True)
class StepReport:
    """Result of one training step."""

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
    """Train a model by a recipe and yield one report per step.

    The run folder holds `config.yaml`, `metrics.jsonl`, `rollouts/`, `checkpoints/`, the files of the loggers and, at
    the end, `model/`. Closing the iterator saves a checkpoint; `resume` continues from the last one, bit for bit.
    `engine` replaces the engine of the recipe and is closed with the run. `on_progress` is called with the name of
    each stage when it starts.

    Raises ValueError for an invalid recipe, and TimeoutError for a stage that takes longer than `stage_timeout`. Raises
    ArithmeticError for non-finite numbers, or if sampler and learner logprobs differ too much, before the weights
    change. Raises RuntimeError if every life of a step failed.
    """
    check_main_guard()
    timeout, learner = config.stage_timeout, config.learner
    with ExitStack() as stack:
        on_progress("starting")
        run = within(timeout, "starting", lambda: open_training(config, stack, resume=resume, engine=engine))
        for step in range(run.steps_done + 1, config.steps + 1):
            start = time.perf_counter()
            on_progress(f"rolling out {run.lives_per_step} lives")
            blocks = blocks_of(run.entries, step, collect_lives(run, step))
            rollout_seconds = time.perf_counter() - start
            advantages = run.credit(blocks)
            on_progress("updating the weights")
            metrics: list[dict[str, float]] = []
            with saving_bad_step(run, step, blocks, advantages):
                for batch in minibatches(blocks, advantages, config.minibatches):
                    samples = with_reference(run, batch)
                    loss_metrics = run.engine.forward_backward(samples, normalizer(samples, learner), timeout)
                    if not metrics:  # after the first mini-batch the weights differ from the samplers'
                        check_logprob_gap(run, samples, loss_metrics)
                    metrics.append(loss_metrics | run.engine.optim_step(timeout))
                values = step_metrics(run, step, blocks, advantages, metrics)
                values |= run.engine.sync(timeout)
            if step % config.rollout_log_every == 0 or step == 1:
                record(run.folder / "rollouts", step, [first_packs(block, 2) for block in blocks], advantages)
            values |= {"time/rollout": rollout_seconds, "time/step": time.perf_counter() - start}
            if config.eval_every and (step % config.eval_every == 0 or step == config.steps):
                on_progress(f"evaluating {config.eval_packs} dev packs")
                values |= run.dev.evaluate(run.engine, timeout)
            lives, packs = [life for b in blocks for life in b.lives], [pack for b in blocks for pack in b.packs]
            yield from report_and_save(run, StepReport(step, run.steps, values, lives, packs), on_progress)
        on_progress("saving the model")
        within(timeout, "saving the model", lambda: write_folder(run.folder / "model", run.engine.save_model))


def collect_lives(run: Run, step: int) -> list[Life]:
    """Submit the jobs of this step and of the steps that may be rolled out ahead, and collect the lives of this step.

    Lives of a later step start at most `max_staleness` versions before that step, which bounds the age of their tokens.
    Jobs that are already pending are not submitted again. Raises RuntimeError if every life failed.
    """
    config, engine = run.config, run.engine
    last = min(step + config.engine.ahead, config.steps)
    for ahead in range(step + engine.pending, last + 1):
        engine.submit(step_jobs(run.entries, config.seed, ahead), config.stage_timeout)
    lives = engine.collect(config.stage_timeout)
    if all(life.failure for life in lives):
        raise RuntimeError(f"every life of step {step} failed; the first error: {lives[0].failure}")
    return lives


def with_reference(run: Run, batch: list[Sample]) -> list[Sample]:
    """Return the batch, with the reference model's logprobs if the loss has a KL penalty."""
    if not run.config.learner.kl_coef:
        return batch
    rows = run.engine.logprobs(batch, run.config.stage_timeout, reference=True)
    return [replace(sample, ref_logprobs=row) for sample, row in zip(batch, rows, strict=True)]


def check_logprob_gap(run: Run, batch: Sequence[Sample], metrics: dict[str, float]) -> None:
    """Raise ArithmeticError if sampler and learner logprobs differ by more than `max_logprob_gap` on average.

    Batches with tokens of older weights are not checked.
    """
    limit, gap, version = run.config.max_logprob_gap, metrics["train/logprob_gap"], run.engine.version
    fresh = all(v == version for s in batch for v, sampled in zip(s.versions, s.mask, strict=True) if sampled)
    if fresh and not gap <= limit:
        raise ArithmeticError(
            f"sampler and learner disagree: logprobs of the same tokens are {gap:.3g} apart on average, and "
            f"max_logprob_gap is {limit:g}; the weights are unchanged"
        )


@contextmanager
def saving_bad_step(run: Run, step: int, blocks: Sequence[Block], credit: Sequence[Advantages]) -> Iterator[None]:
    """On ArithmeticError, save the lives and samples of this step in `stopped/`, and re-raise the error.

    Also save a checkpoint of the previous step, if it has none and the engine still holds that state.
    """
    steps_before = run.engine.steps
    try:
        yield
    except ArithmeticError as error:
        folder = run.folder / "stopped"
        record(folder, step, blocks, credit)
        samples = [sample for batch in minibatches(blocks, credit, 1) for sample in batch]
        write_atomically(folder / f"step-{step:06d}.samples", "".join(json.dumps(asdict(s)) + "\n" for s in samples))
        # In mode async the engine no longer holds the lives of this step, so only an earlier checkpoint has them.
        if run.engine.steps == steps_before and not run.config.engine.ahead and not is_saved(run.folder, step - 1):
            run.save(step - 1)
        raise type(error)(f"step {step} was stopped: {error}; its lives and samples are in {folder}") from error


def step_metrics(
    run: Run, step: int, blocks: Sequence[Block], credit: Sequence[Advantages], updates: Sequence[dict[str, float]]
) -> dict[str, float]:
    """Return the metrics of a step. Call before `engine.sync`, which changes the version.

    `updates` are the metrics of the mini-batches. Also add the sampled tokens to `run.tokens`.
    """
    config = run.config
    values = summary(blocks) | credit[0].metrics
    values |= {name: float(np.mean([update[name] for update in updates])) for name in (updates[0] if updates else {})}
    values |= staleness([life for block in blocks for life in block.lives], run.engine.version)
    sampled = sampled_tokens(blocks)
    run.tokens += sampled
    if step == 1 and values["malformed/solve"] == 1:
        domains = ", ".join(dict.fromkeys(world.domain for world in config.worlds))
        ends = [episode.ended for block in blocks for life in block.lives for episode in life.of("solve")]
        hint = why_unreadable(ends, run.entries[0].params.solve.max_tokens, f"does {config.model} support {domains}?")
        log.warning(f"no reply of step 1 could be parsed; {hint}")
    return values | {"tokens/sampled": sampled, "tokens/total": run.tokens}


def report_and_save(run: OpenRun, report: StepReport, on_progress: Callable[[str], None]) -> Iterator[StepReport]:
    """Log the metrics of a step, yield its report, and save a checkpoint when one is due or the run is closed."""
    step, dev = report.step, report.metrics.get("eval/score")

    def save() -> None:
        on_progress(f"saving checkpoint {step}")
        within(run.config.stage_timeout, f"saving checkpoint {step}", lambda: run.save(step, dev))

    report.metrics["train/collapse"] = float(warn_of_collapse(step, [*run.metrics.history, report.metrics]))
    run.metrics.add(step, report.metrics)
    try:
        yield report
    except GeneratorExit:
        save()
        raise
    if step % run.config.save_every == 0 or step in run.ends or run.is_best(dev):
        save()


def warn_of_collapse(step: int, steps: Sequence[dict[str, float]]) -> bool:
    """Return whether training has collapsed by the last of these steps, and log a warning if that is new."""
    collapse = find_collapse(steps)
    if collapse and not steps[-2].get("train/collapse"):
        log.warning(f"step {step}: {collapse}")
    return collapse is not None


def first_packs(block: Block, count: int) -> Block:
    """Return a block of the first `count` packs and their lives."""
    return replace(block, packs=block.packs[:count], lives=block.lives[: count * block.entry.group_size])


def record(folder: Path, step: int, blocks: Sequence[Block], credit: Sequence[Advantages]) -> None:
    """Write all episodes of these blocks to `step-NNNNNN.jsonl`."""
    folder.mkdir(exist_ok=True)
    rows = []
    for block, advantages in zip(blocks, credit, strict=True):
        for i, life in enumerate(block.lives):
            p, g = divmod(i, block.entry.group_size)

            credited = partial(advantage_of, advantages, p, g)
            rows += life_rows(block.packs[p], life, index=g, step=step, credit=credited)
    write_atomically(folder / f"step-{step:06d}.jsonl", dump(rows))
