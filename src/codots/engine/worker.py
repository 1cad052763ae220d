"""A worker of the local engine, which rolls out and trains in one process."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from codots.core.deadline import run_loop
from codots.core.transcript import Sample
from codots.learner.config import LearnerConfig, LoraConfig
from codots.learner.local import LocalLearner
from codots.learner.lora import adapt
from codots.learner.score import Scorer
from codots.model.adapter import Model
from codots.model.device import Place
from codots.model.load import load_model
from codots.rollout.life import Job, Life, OnLife, rollouts
from codots.rollout.profile import Profile
from codots.sampler.base import CACHE_BYTES, Sampler
from codots.sampler.continuous import ContinuousSampler
from codots.sampler.local import LocalSampler

MakeSampler = Callable[[Any], Sampler]
"""Function that makes the sampler of a `Worker`. It must be picklable, because it is sent to the other processes."""


def lockstep(worker: Worker) -> Sampler:
    """Return a sampler of the worker's model whose sessions advance in lockstep."""
    return LocalSampler(worker.model, worker.render.stop_ids, **limits(worker.plan))


def continuous(worker: Worker) -> Sampler:
    """Return a sampler of the worker's model that does not wait for slow sessions."""
    return ContinuousSampler(worker.model, worker.render.stop_ids, **limits(worker.plan))


def limits(plan: Plan) -> dict[str, Any]:
    """Return the maximum session length and KV cache size as sampler arguments."""
    return {"max_length": plan.profile.max_model_len, "cache_bytes": plan.cache_bytes}


SAMPLERS: dict[str, MakeSampler] = {"lockstep": lockstep, "continuous": continuous}
"""Sampler makers by the recipe's `sampler` value."""


@dataclass(frozen=True)
class Plan:
    """Everything that a worker needs to start."""

    model: Model
    profile: Profile
    learner: LearnerConfig | None = field(default_factory=LearnerConfig)
    """Settings of the learner, or None for a model that is not trained."""
    reference: Model | None = None
    """Frozen reference model of the KL penalty, or None if there is no penalty."""
    total_steps: int = 0
    """Number of optimizer steps of the whole run, for the learning rate decay."""
    make_sampler: MakeSampler = lockstep
    place: Place = field(default_factory=Place)
    cache_bytes: int = CACHE_BYTES
    """Maximum size of a worker's KV cache, in bytes."""

    @property
    def lora(self) -> LoraConfig | None:
        """LoRA settings, or None if all weights are trained."""
        return self.learner.lora if self.learner else None


@dataclass(frozen=True)
class Shared:
    """Memory that a worker process shares with the first worker, because a pipe would copy it several times.

    Both are ctypes arrays of float32, one element per trained weight.
    """

    gradient: Any
    """Gradient of this worker, which the first worker adds to its own."""
    weights: Any
    """Weights of the first worker, which all others load."""

    @classmethod
    def of(cls, context: Any, size: int, workers: int) -> list[Shared]:
        """Allocate memory for processes of a multiprocessing context."""
        weights = context.RawArray("f", size)
        return [cls(context.RawArray("f", size), weights) for _ in range(workers)]


def as_tensor(array: Any) -> Tensor:
    """Return a tensor that shares the memory of a ctypes array of float32."""
    return torch.frombuffer(array, dtype=torch.float32)


class Worker:
    """One copy of the model, with its sampler and learner, in one process."""

    def __init__(self, plan: Plan, shared: Shared | None = None) -> None:
        torch.set_num_threads(1)
        self.plan, self.shared = plan, shared
        self.model, self.render = load_model(plan.model, plan.place, plan.profile.thinking)
        if plan.lora:
            adapt(self.model, plan.lora)
        if plan.learner:
            temperature = plan.profile.temperature
            gradient = as_tensor(shared.gradient) if shared else None
            self.learner = LocalLearner(self.model, plan.learner, plan.total_steps, temperature, gradient)
            if plan.reference:
                frozen, render = load_model(plan.reference, plan.place, plan.profile.thinking)
                if render.tokenizer.get_vocab() != self.render.tokenizer.get_vocab():
                    raise ValueError(f"the reference {plan.reference} has a different vocabulary than {plan.model}")
                self.reference = Scorer(frozen.requires_grad_(False), plan.learner, temperature)
        self.sampler = plan.make_sampler(self)

    def rollout(self, jobs: Sequence[Job], on_life: OnLife | None = None) -> list[Life]:
        """Roll out jobs concurrently.

        With `on_life`, at most as many lives run at once as the sampler has places, so that the first ones end early.
        """
        if on_life is None:
            return run_loop(rollouts(jobs, self.sampler, self.render))
        return run_loop(rollouts(jobs, self.sampler, self.render, on_life, getattr(self.sampler, "places", None)))

    def logprobs(self, samples: Sequence[Sample], reference: bool) -> list[list[float]]:
        """Return one row of logprobs per sample, under the current weights or the reference model."""
        return (self.reference if reference else self.learner).logprobs(samples)

    def forward_backward(self, share: Sequence[Sample], normalizer: float) -> dict[str, float]:
        """Accumulate the gradient of a share of the batch."""
        return self.learner.forward_backward(share, normalizer)

    def take_gradient(self) -> None:
        """Leave the accumulated gradient in the shared memory."""
        self.learner.take_gradient()

    def zero_grad(self) -> None:
        """Drop the accumulated gradient."""
        self.learner.zero_grad()

    def take_weights(self) -> None:
        """Replace the weights with those of the first worker, from the shared memory."""
        assert self.shared is not None
        self.learner.set_weights(as_tensor(self.shared.weights))

    def serve(self, version: int) -> None:
        """Load the current weights into the sampler as this version."""
        run_loop(self.sampler.load(None, version))


def serve_calls(connection: Connection, plan: Plan, shared: Shared | None) -> None:
    """Run the calls of another process until that process closes the connection.

    The answers to a call are `("event", arguments)` for each event, if the caller wants them, then `("result", value)`
    or `("error", (type, message, traceback))`.
    """

    def emit(*event: Any) -> None:
        connection.send(("event", event))

    try:
        worker = Worker(plan, shared)
        while True:
            try:
                method, arguments, wants_events = connection.recv()
                connection.send(("result", getattr(worker, method)(*arguments, *([emit] if wants_events else []))))
            except (EOFError, BrokenPipeError):
                raise
            except Exception as error:
                message = " ".join(f"a worker process failed: {type(error).__name__}: {error}".split())
                kind = ArithmeticError if isinstance(error, ArithmeticError) else RuntimeError
                connection.send(("error", (kind, message, traceback.format_exc())))
    except (EOFError, BrokenPipeError):
        return
