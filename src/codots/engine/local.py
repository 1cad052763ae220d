"""The engine of one machine: a process for each core, each with the whole model."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codots.core.processes import deaf_to_ctrl_c
from codots.core.transcript import Sample
from codots.engine.forkserver import model_processes
from codots.learner.batch import fair_shares, trained_tokens
from codots.learner.config import LearnerConfig, LoraConfig
from codots.learner.local import LocalLearner, agree, finish
from codots.learner.lora import ADAPTER, adapt, load_adapter, merged, save_adapter
from codots.model.device import Place
from codots.model.load import identity, load_model
from codots.rollout.life import Job, Life, rollouts
from codots.rollout.profile import Profile
from codots.sampler.base import CACHE_BYTES, Sampler
from codots.sampler.local import LocalSampler

MakeSampler = Callable[[Any], Sampler]
"""Makes a worker's sampler from its `Worker`; it travels to the other processes, so it is a plain function or class."""


def local_sampler(worker: Worker) -> Sampler:
    """Sample from the worker's own model."""
    most = worker.plan.profile.length
    return LocalSampler(worker.model, worker.render.stop_ids, max_length=most, cache_bytes=worker.plan.cache_bytes)


@dataclass(frozen=True)
class Plan:
    """All that a worker needs to start."""

    model: Path
    profile: Profile
    learner: LearnerConfig | None = field(default_factory=LearnerConfig)
    """None for a model that only plays."""
    total_steps: int = 0
    """Optimiser steps of the whole run, which only the decay of the learning rate needs."""
    gap_limit: float = math.inf
    """Greatest mean difference of sampler's and learner's logprobs, in nats, while their weights are the same."""
    make_sampler: MakeSampler = local_sampler
    place: Place = field(default_factory=Place)
    cache_bytes: int = CACHE_BYTES
    """Greatest size of a worker's keys and values."""

    @property
    def lora(self) -> LoraConfig | None:
        """What LoRA adds; None trains every weight."""
        return self.learner.lora if self.learner else None


class Worker:
    """One process's share of the work."""

    def __init__(self, plan: Plan) -> None:
        torch.set_num_threads(1)
        self.plan = plan
        self.play = plan.profile.play()
        self.model, self.render = load_model(plan.model, plan.place, plan.profile.thinking)
        if plan.lora:
            adapt(self.model, plan.lora)
        if plan.learner:
            self.learner = LocalLearner(self.model, plan.learner, plan.total_steps)
        self.sampler = plan.make_sampler(self)

    def live(self, jobs: Sequence[Job], told: Callable[[Life], None] = lambda _: None) -> list[Life]:
        """Live all these lives at once."""
        return asyncio.run(rollouts(jobs, self.sampler, self.render, self.play, told))

    def gradient(self, share: Sequence[Sample], normaliser: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Give the share's gradient, flat."""
        return self.learner.gradient(share, normaliser)

    def serve(self, version: int) -> None:
        """Sample from the weights as they are now."""
        asyncio.run(self.sampler.load(None, version))


class _Other(Worker):
    """A worker in a process of its own, which hears and gives arrays: tensors would travel by file descriptors."""

    def gradient(self, share: Sequence[Sample], normaliser: int) -> Any:
        gradient, sums = super().gradient(share, normaliser)
        return gradient.numpy(), sums

    def take(self, weights: np.ndarray, version: int) -> None:
        """Hold and serve the first worker's weights."""
        self.learner.take(torch.from_numpy(weights))
        self.serve(version)


def _serve(connection: Connection, plan: Plan) -> None:
    """Answer calls until the other end closes."""
    try:
        worker = _Other(plan)
        while True:
            try:
                method, arguments = connection.recv()
                connection.send((getattr(worker, method)(*arguments), None))
            except (EOFError, BrokenPipeError):
                raise
            except Exception as error:
                said = " ".join(f"a worker process failed: {type(error).__name__}: {error}".split())
                kind = ArithmeticError if isinstance(error, ArithmeticError) else RuntimeError
                connection.send((None, (kind, said, traceback.format_exc())))
    except (EOFError, BrokenPipeError):
        return


class LocalEngine:
    """Live lives and train on them, shared out over worker processes.

    Lives are dealt by index and gradients added in the order of the workers, so that a run is a function of its recipe,
    of which the number of workers is a part. The first worker is this process; on a GPU it is the only one.
    """

    def __init__(self, plan: Plan, workers: int = 1) -> None:
        self.plan = plan
        more = workers - 1 if plan.place.device == "cpu" else 0
        context: Any = model_processes() if more else None  # it imports while this process does
        self.first = Worker(plan)
        self.beside = identity(plan.model) if plan.lora else ""
        """Of what LoRA trains, the model that it stands beside."""
        self.version = 0
        self._owing = False
        self._others: list[tuple[Any, Connection]] = []
        for _ in range(more):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, plan), daemon=True)
            with deaf_to_ctrl_c():
                process.start()
            there.close()
            self._others.append((process, here))

    def live(self, jobs: Sequence[Job], told: Callable[[Life], None] = lambda _: None) -> list[Life]:
        """Live lives; `told` hears of those of this process as they end."""
        n = 1 + len(self._others)
        ends = [len(jobs) * i // n for i in range(n + 1)]  # neighbours, as a group is, begin alike
        shares = self._all("live", [(list(jobs[a:b]),) for a, b in pairwise(ends)], told)
        return [life for share in shares for life in share]

    def step(self, batch: Sequence[Sample]) -> dict[str, float]:
        """Take exactly one optimiser step over the batch, then serve the new weights."""
        normaliser = trained_tokens(batch)
        moving = [sample for sample in batch if any(sample.advantages)]
        parts = self._all("gradient", [(share, normaliser) for share in fair_shares(moving, 1 + len(self._others))])
        gradient = parts[0][0]
        for part, _ in parts[1:]:
            gradient += torch.from_numpy(part)
        metrics = finish([sums for _, sums in parts])
        if all(sample.version == self.version for sample in batch):  # else they are right to differ
            agree(metrics, self.plan.gap_limit)
        metrics |= self.first.learner.apply(gradient)
        self._publish(self.version + 1)
        return metrics

    def save(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder, and the optimiser."""
        self.save_model(folder / "model")
        self.first.learner.save(folder)
        if self.plan.lora:
            save_adapter(self.first.model, folder, self.beside)

    def save_model(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder that `codots.json` stands beside."""
        self.first.model.generation_config.do_sample = True  # else who serves it stays greedy at any temperature
        weights = merged(self.first.model) if self.plan.lora else None
        self.first.model.save_pretrained(folder, state_dict=weights)
        self.first.render.tokenizer.save_pretrained(folder)
        self.plan.profile.save(folder)

    def load(self, folder: Path, version: int) -> None:
        """Take up the weights and the optimiser of a checkpoint."""
        if self.plan.lora:
            load_adapter(self.first.model, folder, self.beside)
        elif (folder / ADAPTER).is_file():
            raise ValueError(f"{folder} was trained with LoRA; expected learner.lora, or model={folder} and no --from")
        else:
            saved, _ = load_model(folder / "model", Place(dtype=self.plan.place.dtype))
            self.first.model.load_state_dict(saved.state_dict())
        self.first.learner.load(folder)
        self._publish(version)

    @property
    def steps(self) -> int:
        """Optimiser steps that the weights have taken."""
        return self.first.learner.steps

    def fork(self, folder: Path) -> None:
        """Take up the weights and the optimiser of another run, whose steps do not count here."""
        self.load(folder, 0)
        self.first.learner.steps = 0

    def close(self) -> None:
        """End the other processes, by force if they do not hear or work on what nobody waits for any more."""
        for process, connection in self._others:
            connection.close()
            process.join(timeout=0 if self._owing else 30)
            if process.is_alive():
                process.kill()
                process.join(timeout=30)
        self._others = []

    def _publish(self, version: int) -> None:
        weights = self.first.learner.flat().numpy() if self._others else None
        for process, connection in self._others:
            self._send(process, connection, "take", (weights, version))
        self.first.serve(version)
        self._answers()
        self.version = version

    def _send(self, process: Any, connection: Connection, method: str, share: tuple[Any, ...]) -> None:
        self._owing = True
        try:
            connection.send((method, share))
        except OSError as gone:
            raise RuntimeError(_ended(process)) from gone

    def _all(self, method: str, shares: Sequence[tuple[Any, ...]], *own: Any) -> list[Any]:
        """Let every worker do its share at once; the one in this process is given `own` besides."""
        for (process, connection), share in zip(self._others, shares[1:], strict=True):
            self._send(process, connection, method, share)
        try:
            first = getattr(self.first, method)(*shares[0], *own)
        except Exception:
            self._answers()  # the next call would take them for its own
            raise
        return [first, *self._answers()]

    def _answers(self) -> list[Any]:
        answers, errors = [], []
        for process, connection in self._others:
            try:
                answer, error = connection.recv()
            except (EOFError, OSError):
                answer, error = None, (RuntimeError, _ended(process), "")
            answers.append(answer)
            errors += [error] if error else []
        self._owing = False
        if errors:
            kind, said, trace = errors[0]
            failure: Exception = kind(said)
            failure.add_note(trace)  # for whoever looks further than the message
            raise failure
        return answers


def _ended(process: Any) -> str:
    process.join(timeout=30)
    return f"a worker process ended with exit code {process.exitcode}"
