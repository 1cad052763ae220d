"""Recipes: one YAML file that says a whole experiment, checked before anything starts."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, Self

from pydantic import Field, model_validator

from codots.algorithm.credit import choose
from codots.core.deadline import LONGEST, PATIENCE
from codots.core.section import Section
from codots.core.suggest import check_known
from codots.domains.frozen_lake.teacher import Noise
from codots.domains.registry import get_domain
from codots.learner.config import LearnerConfig
from codots.model.device import check_device
from codots.sampler.base import CACHE_BYTES


class CreditConfig(Section):
    """How rewards become advantages."""

    preset: str = "codots"
    """Estimator: `codots`, `paper`, `leave-one-out`, `sum`, `discounted`, `length-neutral`, `coarse`."""
    choices: dict[str, str | float] = Field(default={})
    """Parts of the estimator that differ from the preset, such as `baseline`."""


class World(Section):
    """Which packs."""

    domain: str = "frozen-lake-v1"
    """Versioned id of the domain."""
    preset: str = "easy"
    """Dials of the domain."""
    size: int = Field(4, ge=1)
    """Tasks in a pack, S."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        _preset_exists(self.domain, self.preset)
        return self


def _preset_exists(domain: str, preset: str) -> None:
    check_known(preset, get_domain(domain).presets, f"preset of {domain}")


class TrainConfig(World):
    """CoD-Train: lives in packs, and RL on every episode of them."""

    model: str = "base"
    """Where to start: a model folder, or `base`, the tiny model of the package."""
    fork: str | None = Field(None, min_length=1)
    """A run or a checkpoint to start from in place of `model`, with its weights and optimiser; steps count from 0."""
    run: str = "runs/train"
    """Folder of the run."""
    seed: int = 0
    """Of everything random."""
    steps: int = Field(60, ge=1)
    """Optimiser rounds; the run ends after them whatever the curves say."""
    packs: int = Field(16, ge=1)
    """Packs of a step."""
    group: int = Field(8, ge=2)
    """Lives of each pack, G."""
    minibatches: int = Field(1, ge=1)
    """Optimiser steps on the lives of a step, cut by pack."""
    contexts: Literal["own", "none"] = "own"
    """`none` trains task by task: contexts stay empty and nothing is rewritten."""
    on_parse_failure: Literal["keep", "wipe"] = "keep"
    """Whether a rewrite that cannot be read leaves the old context or none (the paper's)."""
    credit: CreditConfig = Field(default_factory=CreditConfig)
    """How rewards become advantages."""
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    """How the weights are changed."""
    workers: int = Field(2, ge=1)
    """Processes, one a core; part of what makes two runs equal. On a GPU there is one."""
    device: str = "auto"
    """Where to compute: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes a GPU for 50 million weights or more."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the passes; `auto` is bfloat16 on a GPU that knows it. The optimiser's is always float32."""
    cache_gib: float = Field(CACHE_BYTES / 2**30, gt=0, le=1e6)
    """Greatest size of the keys and values that a worker's sampler holds; lives past it wait."""
    profile: dict[str, str | bool | int | float] = Field(default={})
    """What differs from the model's `codots.json`, such as `solve_tokens`."""
    save_every: int = Field(20, ge=1)
    """Steps between checkpoints; the last step is always saved."""
    keep: int = Field(2, ge=1)
    """Checkpoints kept, the newest ones; the best on `dev` is kept besides."""
    look_every: int = Field(20, ge=0)
    """Steps between looks at `dev`, 0 for none; a look changes nothing."""
    look_packs: int = Field(32, ge=2)
    """Packs of a look."""
    record_every: int = Field(10, ge=1)
    """Steps between recorded rollouts."""
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default=["tensorboard"])
    """Who is told the numbers besides `metrics.jsonl`."""
    gap_limit: float = Field(0.05, gt=0)
    """Greatest mean difference, in nats, of the sampler's and the learner's logprobs of the same ids; past it the run
    stops. One engine in full precision shows about 1e-7."""
    patience: float = Field(PATIENCE, gt=0, le=LONGEST)
    """Seconds that one stage of a step may take; then the run stops and says which."""

    @model_validator(mode="after")
    def _cuts(self) -> Self:
        if self.packs % self.minibatches:
            raise ValueError(f"{self.packs} packs cannot be cut into {self.minibatches} equal mini-batches")
        choose(self.credit.preset, **self.credit.choices)
        check_device(self.device)
        return self


class Stage(Section):
    """One stretch of imitation."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    packs: int = Field(48, ge=1)
    """Scripted lives of a step, one a pack."""
    lr: float = Field(2e-3, gt=0, le=100)
    """Greatest learning rate."""
    decay_to: float = Field(0.05, ge=0, le=1)
    """Fraction of the rate that is left at the end of the stage."""
    noise: Noise = Field(default_factory=Noise)
    """Of the scripted player."""
    given: float = Field(0.0, ge=0, le=1)
    """Share of lives, in quarters, that are given the true context and write none."""
    presets: list[str] = Field(["easy"], min_length=1)
    """Presets that the packs come from, in turn."""


class PretrainConfig(Section):
    """A tiny model from nothing, by imitation of a scripted player."""

    run: str = "runs/tiny-base"
    """Folder of the run; the model is left in its `model`."""
    domain: str = "frozen-lake-v1"
    """Versioned id of the domain."""
    seed: int = 0
    """Of everything random."""
    width: int = Field(64, ge=8)
    """Width of the model."""
    layers: int = Field(4, ge=1)
    """Layers of the model."""
    heads: int = Field(4, ge=1)
    """Attention heads of a layer."""
    size: int = Field(4, ge=2)
    """Tasks in a life."""
    stages: list[Stage] = Field(min_length=1)
    """One after the other."""
    workers: int = Field(2, ge=1)
    """Processes, one a core."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for preset in (preset for stage in self.stages for preset in stage.presets):
            _preset_exists(self.domain, preset)
        if self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} cannot be cut into {self.heads} heads of even width")
        return self


def fingerprint(config: Section, *, without: frozenset[str] = frozenset()) -> str:
    """Hash what a recipe says, so that a run is never taken up with another."""
    said = json.dumps(config.model_dump(mode="json", exclude=set(without), exclude_none=True), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]
