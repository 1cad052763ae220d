"""A worker of an engine, which rolls out or trains, or both, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from codots.core.deadline import LoopThread, run_loop
from codots.core.files import writing
from codots.core.transcript import Sample, Transcript
from codots.engine.answers import Answer, answer, value_of
from codots.engine.usage import Usage, Used
from codots.learner.config import LearnerConfig, LoraConfig
from codots.learner.local import LocalLearner, copy_weights, trained_weights
from codots.learner.lora import ADAPTER, adapt, load_adapter, merged, save_adapter
from codots.learner.score import Scorer
from codots.model.adapter import CONFIG, Adapted, Model
from codots.model.device import Place
from codots.model.load import identity, load_model
from codots.model.path import path_of
from codots.rollout.life import Job, Life, OnLife, rollouts
from codots.rollout.profile import Profile
from codots.sampler.base import CACHE_BYTES, Sampler, SamplingParams
from codots.sampler.continuous import ContinuousSampler
from codots.sampler.local import LocalSampler

T = TypeVar("T")
PROBE, PROBE_TOKENS = "Which weights are these?", 8
"""Text that a sampler replies to after it has loaded weights, and the maximum length of the reply in tokens."""
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
    in_flight: int = 0
    """Maximum number of batches of lives that run on while a worker loads other weights, if its sampler can do this.
    With 0, batches run one after another, and weights are loaded in between."""
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

    def __init__(self, plan: Plan, shared: Shared | None = None, *, learns: bool = True) -> None:
        """Load the model. Without a learner, `receive` loads the weights of another worker."""
        torch.set_num_threads(1)
        self.plan, self.shared = plan, shared
        self.model, self.render = load_model(plan.model, plan.place, plan.profile.thinking)
        if plan.lora:
            adapt(self.model, plan.lora)
        if plan.learner and learns:
            self._add_learner(plan, plan.learner)
        self.sampler = plan.make_sampler(self)
        self.usage = Usage()
        self._loop = LoopThread() if plan.in_flight else None
        places = getattr(self.sampler, "places", None)
        # Lives of earlier batches come first, and no life waits for another's place in the middle.
        self._room = asyncio.Semaphore(places) if places and plan.in_flight else None

    def _add_learner(self, plan: Plan, config: LearnerConfig) -> None:
        temperature = plan.profile.temperature
        gradient = as_tensor(self.shared.gradient) if self.shared else None
        self.learner = LocalLearner(self.model, config, plan.total_steps, temperature, gradient)
        if plan.reference:
            frozen, render = load_model(plan.reference, plan.place, plan.profile.thinking)
            if render.tokenizer.get_vocab() != self.render.tokenizer.get_vocab():
                raise ValueError(f"the reference {plan.reference} has a different vocabulary than {plan.model}")
            self.reference = Scorer(frozen.requires_grad_(False), config, temperature)

    @cached_property
    def base_identity(self) -> str:
        """Hash of the base model of the LoRA adapter, or an empty string if there is no adapter."""
        return identity(self.plan.model) if self.plan.lora else ""

    def warnings(self) -> list[str]:
        """Return what the user should know about the model."""
        model, path, found = self.plan.model, path_of(self.model), []
        if isinstance(model, Adapted) and model.adapter == model.base:
            found.append(
                f"{model.base} has all weights and a LoRA adapter; the adapter is merged into them, and without "
                f"its {CONFIG} it is not"
            )
        return [*found, *([] if path.rows else [f"{model}: {path}"])]

    def rollout(self, jobs: Sequence[Job], on_life: OnLife | None = None) -> list[Life]:
        """Roll out jobs concurrently.

        With `on_life`, at most as many lives run at once as the sampler has places, so that the first ones end early.
        """
        room, places = self._room, getattr(self.sampler, "places", None)
        if on_life is None:
            lives = rollouts(jobs, self.sampler, self.render, room=room)
        else:
            room = room or (asyncio.Semaphore(places) if places else None)
            lives = rollouts(jobs, self.sampler, self.render, on_life, room)
        return self._run(self.usage.measure(lives))

    def take_usage(self) -> Used:
        """Return the usage of this worker since the last call."""

        async def take() -> Used:
            longest, sampler = 0.0, self.sampler
            if isinstance(sampler, LocalSampler):
                longest, sampler.longest_pass = sampler.longest_pass, 0.0
            return self.usage.take(longest)

        return self._run(take())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work) if self._loop else run_loop(work)

    def logprobs(self, samples: Sequence[Sample], reference: bool) -> list[list[float]]:
        """Return one row of logprobs per sample, under the current weights or the reference model."""
        return (self.reference if reference else self.learner).logprobs(samples)

    def forward_backward(self, share: Sequence[Sample], normalizer: float) -> dict[str, float]:
        """Accumulate the gradient of a share of the batch."""
        return self.learner.forward_backward(share, normalizer)

    def optim_step(self) -> dict[str, float]:
        """Take one optimizer step with the accumulated gradient."""
        return self.learner.optim_step()

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
        self._run(self.sampler.load(None, version))

    def flat_weights(self) -> Any:
        """Return the trained weights as a flat array of float32: of all weights, or of the LoRA adapter alone."""
        return self.learner.flat_weights().cpu().numpy()

    def receive(self, weights: Answer, version: int) -> Sample:
        """Load the `flat_weights` of another worker, serve them as this version, and return a probe of them."""
        return self._run(self._receive(torch.tensor(value_of(weights), device=self.model.device), version))

    async def _receive(self, flat: Tensor, version: int) -> Sample:
        # There is no await between the two, so that no forward pass of a life in flight sees half of the weights.
        copy_weights(flat, trained_weights(self.model))
        await self.sampler.load(None, version)
        return await self._probe(version)

    async def _probe(self, version: int) -> Sample:
        """Sample a few tokens, whose logprobs show which weights the sampler has."""
        probe, ids = Transcript(), self.render.opening("", PROBE)
        async with self.sampler.session(("probe", version)) as session:
            sampled = await session.sample(ids, SamplingParams(PROBE_TOKENS, self.plan.profile.temperature))
        probe.read(ids)
        probe.wrote(sampled)
        return probe.sample(0.0)

    def save(self, folder: Path) -> None:
        """Save a Hugging Face model folder, the optimizer and any LoRA adapter."""
        self.save_model(folder / "model")
        with writing(folder / "optimiser.pt"):
            self.learner.save(folder)
        if self.plan.lora:
            with writing(folder / ADAPTER):
                save_adapter(self.model, folder, self.base_identity)

    def save_model(self, folder: Path) -> None:
        """Save the weights as a Hugging Face model folder with its `codots.json`."""
        self.model.generation_config.do_sample = True  # otherwise servers sample greedily at any temperature
        weights = merged(self.model) if self.plan.lora else None
        with writing(folder / "model.safetensors"):
            self.model.save_pretrained(folder, state_dict=weights)
        self.render.tokenizer.save_pretrained(folder)
        self.plan.profile.save(folder)

    def load(self, folder: Path, restart: bool = False) -> int:
        """Load a checkpoint written by `save`, at step 0 if `restart`, and return the number of optimizer steps."""
        if self.plan.lora:
            load_adapter(self.model, folder, self.base_identity)
        elif (folder / ADAPTER).is_file():
            raise ValueError(
                f"{folder} is a LoRA checkpoint: set learner.lora, or use model={folder} instead of --init-from"
            )
        else:
            saved, _ = load_model(folder / "model", Place(dtype=self.plan.place.dtype))
            self.model.load_state_dict(saved.state_dict())
        self.learner.load(folder)
        self.learner.steps = 0 if restart else self.learner.steps
        return self.learner.steps


def serve_calls(connection: Connection, plan: Plan, shared: Shared | None) -> None:
    """Answer the calls of another process until that process closes the connection.

    If the caller wants them, events are sent before an answer.
    """

    def emit(*event: Any) -> None:
        connection.send(("event", event))

    def call() -> Any:
        method, arguments, wants_events = connection.recv()
        return getattr(worker, method)(*arguments, *([emit] if wants_events else []))

    try:
        worker = Worker(plan, shared)
        while True:
            connection.send(answer(call))
    except (EOFError, BrokenPipeError):
        return
