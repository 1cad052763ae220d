"""A worker of the local engine: one process's share of the rollouts and of the learning."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codots.core.deadline import run_loop
from codots.core.transcript import Sample
from codots.learner.config import LearnerConfig, LoraConfig
from codots.learner.local import LocalLearner
from codots.learner.lora import adapt
from codots.learner.score import Scorer
from codots.model.device import Place
from codots.model.load import load_model
from codots.rollout.life import Job, Life, rollouts
from codots.rollout.profile import Profile
from codots.sampler.base import CACHE_BYTES, Sampler
from codots.sampler.continuous import ContinuousSampler
from codots.sampler.local import LocalSampler

MakeSampler = Callable[[Any], Sampler]
"""Makes a worker's sampler from its `Worker`; it travels to the other processes, so it is a plain function or class."""


def lockstep(worker: Worker) -> Sampler:
    """Sample from the worker's own model, in lockstep."""
    return LocalSampler(worker.model, worker.render.stop_ids, **limits(worker.plan))


def continuous(worker: Worker) -> Sampler:
    """Sample from the worker's own model, without waiting for slow sessions."""
    return ContinuousSampler(worker.model, worker.render.stop_ids, **limits(worker.plan))


def limits(plan: Plan) -> dict[str, Any]:
    """How long a session and how large the KV cache may be."""
    return {"max_length": plan.profile.max_model_len, "cache_bytes": plan.cache_bytes}


SAMPLERS: dict[str, MakeSampler] = {"lockstep": lockstep, "continuous": continuous}
"""Makers by the mode that a recipe names."""


@dataclass(frozen=True)
class Plan:
    """All that a worker needs to start."""

    model: Path
    profile: Profile
    learner: LearnerConfig | None = field(default_factory=LearnerConfig)
    """None for a model that only plays."""
    reference: Path | None = None
    """Frozen model that `kl_coef` compares with, None if nothing does."""
    total_steps: int = 0
    """Optimizer steps of the whole run, which only the decay of the learning rate needs."""
    make_sampler: MakeSampler = lockstep
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
        self.model, self.render = load_model(plan.model, plan.place, plan.profile.thinking)
        if plan.lora:
            adapt(self.model, plan.lora)
        if plan.learner:
            self.learner = LocalLearner(self.model, plan.learner, plan.total_steps)
            if plan.reference:
                frozen, render = load_model(plan.reference, plan.place, plan.profile.thinking)
                if render.tokenizer.get_vocab() != self.render.tokenizer.get_vocab():
                    raise ValueError(f"the reference {plan.reference} has another vocabulary than {plan.model}")
                self.reference = Scorer(frozen.requires_grad_(False), plan.learner)
        self.sampler = plan.make_sampler(self)

    def rollout(self, jobs: Sequence[Job], on_life: Callable[[Life], None] = lambda _: None) -> list[Life]:
        """Roll out all these jobs at once."""
        return run_loop(rollouts(jobs, self.sampler, self.render, on_life))

    def logprobs(self, samples: Sequence[Sample], reference: bool) -> list[list[float]]:
        """Score sampled ids."""
        return (self.reference if reference else self.learner).logprobs(samples)

    def forward_backward(self, share: Sequence[Sample], normalizer: float) -> dict[str, float]:
        """Accumulate the share's gradient."""
        return self.learner.forward_backward(share, normalizer)

    def take_gradient(self) -> Any:
        """Return what has accumulated, as an array: tensors would travel by file descriptors."""
        return self.learner.take_gradient().numpy()

    def zero_grad(self) -> None:
        """Drop what has accumulated."""
        self.learner.zero_grad()

    def take_weights(self, weights: np.ndarray) -> None:
        """Train on from the first worker's weights."""
        self.learner.take(torch.from_numpy(weights))

    def serve(self, version: int) -> None:
        """Sample from the weights as they are now."""
        run_loop(self.sampler.load(None, version))


def serve_calls(connection: Connection, plan: Plan) -> None:
    """Answer the calls of another process until it closes the connection."""
    try:
        worker = Worker(plan)
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
