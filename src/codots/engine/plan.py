"""What a worker of an engine needs to start, and the samplers that it can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from codots.learner.config import LearnerConfig, LoraConfig
from codots.learner.lora import merged
from codots.model.adapter import Model
from codots.model.device import Place
from codots.rollout.profile import Profile
from codots.sampler.base import CACHE_BYTES, Sampler
from codots.sampler.continuous import ContinuousSampler
from codots.sampler.local import LocalSampler
from codots.sampler.vllm import VllmSampler

PROBE = "Which weights are these?"
"""Text that a sampler replies to after it has loaded weights."""
MakeSampler = Callable[[Any], Sampler]
"""Function that makes the sampler of a `Worker`. It must be picklable, because it is sent to the other processes."""


def lockstep(worker: Any) -> Sampler:
    """Return a sampler of the worker's model whose sessions advance in lockstep."""
    return LocalSampler(worker.model, worker.render.stop_ids, **limits(worker.plan))


def continuous(worker: Any) -> Sampler:
    """Return a sampler of the worker's model that does not wait for slow sessions."""
    return ContinuousSampler(worker.model, worker.render.stop_ids, **limits(worker.plan))


def vllm(worker: Any) -> Sampler:
    """Return a sampler whose processes of vLLM have a copy of the worker's model, with any adapter merged into it."""
    probe, plan = worker.render.opening("", PROBE), worker.plan
    state = partial(merged, worker.model) if plan.lora else None
    options = limits(plan) | {"state": state, "tensor_parallel": plan.tensor_parallel}
    return VllmSampler(worker.model, worker.render.stop_ids, probe, plan.place.device, **options)


def no_sampler(worker: Any) -> Any:
    """Return no sampler, for a worker that only trains."""
    return None


def limits(plan: Plan) -> dict[str, Any]:
    """Return the maximum session length and KV cache size as sampler arguments."""
    return {"max_length": plan.profile.max_model_len, "cache_bytes": plan.cache_bytes}


SAMPLERS: dict[str, MakeSampler] = {"lockstep": lockstep, "continuous": continuous, "vllm": vllm}
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
    """Maximum size of a worker's KV cache, in bytes; with `tensor_parallel`, on each of its devices."""
    tensor_parallel: int = 1
    """Number of devices that each sampler splits the model over."""

    @property
    def samples_outside(self) -> bool:
        """Whether samplers have their own copy of the weights, in other processes."""
        return self.make_sampler is vllm

    @property
    def lora(self) -> LoraConfig | None:
        """LoRA settings, or None if all weights are trained."""
        return self.learner.lora if self.learner else None
