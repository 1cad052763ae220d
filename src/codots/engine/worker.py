"""A worker of an engine, which rolls out or trains, or both, in one process."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
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
from codots.engine.plan import PROBE, Plan
from codots.engine.usage import Usage, Used
from codots.learner.config import LearnerConfig
from codots.learner.local import LocalLearner, copy_weights
from codots.learner.lora import ADAPTER, adapt, adapters, merged, read_adapter, save_adapter
from codots.learner.moments import FILE
from codots.learner.score import Scorer
from codots.learner.trainer import trained_weights
from codots.model.adapter import CONFIG, Adapted, Model
from codots.model.device import Place
from codots.model.load import identity, load_model
from codots.model.path import path_of
from codots.model.renderer import Render
from codots.rollout.environments import EnvProcesses
from codots.rollout.life import Job, Life, OnLife, rollouts
from codots.sampler.base import SamplingParams
from codots.sampler.local import LocalSampler
from codots.sampler.vllm import VllmSampler

T = TypeVar("T")
PROBE_TOKENS = 8
"""Maximum length of the reply to PROBE, in tokens."""


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
        # Weights that are only sent on need no room on the device.
        self.place = plan.place if learns or not plan.samples_outside else replace(plan.place, device="cpu")
        self.model, self.render = self._load(plan.model)
        if plan.lora:
            adapt(self.model, plan.lora)
        if plan.learner and learns:
            self._add_learner(plan, plan.learner)
        self.sampler = plan.make_sampler(self)
        self.usage, self.processes = Usage(), EnvProcesses()
        self._loop = LoopThread() if plan.in_flight else None
        places = getattr(self.sampler, "places", None)
        # Lives of earlier batches come first, and no life waits for another's place in the middle.
        self._room = asyncio.Semaphore(places) if places and plan.in_flight else None

    first = True
    """Whether this worker writes checkpoints, or one that holds another part of the same model does."""

    def _load(self, model: Model) -> tuple[Any, Render]:
        return load_model(model, self.place, self.plan.profile.thinking)

    def _add_learner(self, plan: Plan, config: LearnerConfig) -> None:
        self.learner = self._learner(config)
        if plan.reference:
            frozen, render = self._load(plan.reference)
            if render.tokenizer.get_vocab() != self.render.tokenizer.get_vocab():
                raise ValueError(f"the reference {plan.reference} has a different vocabulary than {plan.model}")
            self.reference = self._scorer(frozen.requires_grad_(False), config)

    def _learner(self, config: LearnerConfig) -> LocalLearner:
        gradient = as_tensor(self.shared.gradient) if self.shared else None
        return LocalLearner(self.model, config, self.plan.total_steps, self.plan.profile.temperature, gradient)

    def _scorer(self, model: Any, config: LearnerConfig) -> Scorer:
        return Scorer(model, config, self.plan.profile.temperature)

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

    def close(self) -> None:
        """Stop the processes of environments, and of a sampler that has some."""
        self.processes.close()
        if isinstance(self.sampler, VllmSampler):
            self.sampler.close()

    def vocabulary(self) -> str:
        """Return a hash of the tokens and the stop ids."""
        tokens = sorted(self.render.tokenizer.get_vocab().items())
        return hashlib.sha256(json.dumps([tokens, sorted(self.render.stop_ids)]).encode()).hexdigest()

    def rollout(self, jobs: Sequence[Job], on_life: OnLife | None = None) -> list[Life]:
        """Roll out jobs concurrently.

        With `on_life`, at most as many lives run at once as the sampler has places, so that the first ones end early.
        """
        room, places = self._room, getattr(self.sampler, "places", None)
        if on_life is None:
            lives = rollouts(jobs, self.sampler, self.render, room=room, processes=self.processes)
        else:
            room = room or (asyncio.Semaphore(places) if places else None)
            lives = rollouts(jobs, self.sampler, self.render, on_life, room, self.processes)
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
        """Return the trained weights, or those of the LoRA adapter alone, as a flat array in the model's precision.

        NumPy has no bfloat16, so the bits of half precision are an array of int16.
        """
        flat = self.learner.flat_weights().to("cpu", self.learner.dtype)
        return (flat if flat.dtype == torch.float32 else flat.view(torch.int16)).numpy()

    def receive(self, weights: Answer, version: int) -> Sample:
        """Load the `flat_weights` of another worker, serve them as this version, and return a probe of them."""
        flat, half = torch.tensor(value_of(weights), device=self.model.device), trained_weights(self.model)[0].dtype
        return self._run(self._receive(flat.view(half) if flat.dtype == torch.int16 else flat, version))

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
        with writing(folder / FILE):
            self.learner.save(folder)
        if self.plan.lora and (weights := self._whole(adapters(self.model))):
            with writing(folder / ADAPTER):
                save_adapter(weights, folder, self.base_identity)

    def save_model(self, folder: Path) -> None:
        """Save the weights as a Hugging Face model folder with its `codots.json`."""
        self.model.generation_config.do_sample = True  # otherwise servers sample greedily at any temperature
        weights = self._whole(merged(self.model)) if self.plan.lora else self.learner.state()
        if not self.first:
            return
        with writing(folder / "model.safetensors"):
            self.model.save_pretrained(folder, state_dict=weights)
        self.render.tokenizer.save_pretrained(folder)
        self.plan.profile.save(folder)

    def _whole(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of the model as a whole on the first worker, and nothing on others."""
        return weights

    def load(self, folder: Path, restart: bool = False) -> int:
        """Load a checkpoint written by `save`, at step 0 if `restart`, and return the number of optimizer steps."""
        if self.plan.lora:
            self.learner.set_state(read_adapter(self.model, folder, self.base_identity))
        elif (folder / ADAPTER).is_file():
            raise ValueError(
                f"{folder} is a LoRA checkpoint: set learner.lora, or use model={folder} instead of --init-from"
            )
        else:
            saved, _ = load_model(folder / "model", Place(dtype=self.plan.place.dtype))
            self.learner.set_state(saved.state_dict())
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
