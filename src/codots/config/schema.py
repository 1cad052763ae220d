"""Recipes: one YAML file that says a whole experiment, checked before anything starts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from codots.algorithm.credit import choose
from codots.core.deadline import MAX_TIMEOUT, STAGE_TIMEOUT
from codots.core.section import Config, Section
from codots.core.suggest import check_known
from codots.domains.frozen_lake.teacher import Noise
from codots.domains.registry import check_split, get_domain
from codots.learner.config import LearnerConfig
from codots.model.device import check_device
from codots.rollout.arms import ARMS
from codots.rollout.profile import Profile
from codots.sampler.base import CACHE_BYTES


class CreditConfig(Section):
    """How rewards become advantages; what is left out is the preset's."""

    preset: str = "codots"
    """Estimator: `codots`, `paper`, `leave-one-out`, `sum`, `discounted`, `length-neutral`, `coarse`."""
    returns: str | None = None
    """Return of an episode: `mean`, `sum`, `window`, `discounted`, `coarse`."""
    baseline: str | None = None
    """Baseline that is subtracted from the return, such as `group` or `leave-one-out`."""
    scale: str | None = None
    """Scale that the difference is divided by, such as `none`, `std`, `rms`."""
    balance: str | None = None
    """Balance of positive and negative advantages, such as `none`, `red`, `length-neutral`."""
    scope: str | None = None
    """Episodes that the balance acts on: `step`, `world`, `pack`."""
    window: int | None = None
    """Number of rewards that `returns: window` averages."""
    gamma: float | None = None
    """Discount factor of `returns: discounted`."""

    @property
    def overrides(self) -> dict[str, str | float]:
        """Parts of the estimator that differ from the preset."""
        return self.model_dump(exclude={"preset"}, exclude_none=True)

    @model_validator(mode="after")
    def _exists(self) -> Self:
        choose(self.preset, **self.overrides)
        return self


def _checked_profile(profile: dict[str, Any]) -> dict[str, Any]:
    for key in profile:
        check_known(key, OF_AN_ENTRY, "key of an entry's profile")
    Profile(**profile)
    return profile


OF_AN_ENTRY = ("style", "solve_tokens", "update_tokens", "max_context_chars")
"""Keys of a profile that an entry of a mixture may have of its own; all others hold for the whole model."""
EntryProfile = Annotated[dict[str, Any], AfterValidator(_checked_profile)]
MANY = 10**6
"""More of anything than a step can hold."""


class WorldConfig(Section):
    """Which packs: an entry of the mixture that a run trains on."""

    domain: str = "frozen-lake-v1"
    """Versioned id of the domain."""
    preset: str = "easy"
    """Dials of the domain."""
    pack_size: int = Field(default=4, ge=1, le=MANY)
    """Tasks in a pack, S."""
    packs_per_step: int = Field(default=16, ge=1, le=MANY)
    """Number of packs in a training step."""
    profile: EntryProfile = Field(default={})
    """Keys that differ from the run's profile: `style`, `solve_tokens`, `update_tokens`, `max_context_chars`."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        _preset_exists(self.domain, self.preset)
        return self


def _preset_exists(domain: str, preset: str) -> None:
    check_known(preset, get_domain(domain).presets, f"preset of {domain}")


class EngineConfig(Section):
    """Where lives are rolled out and gradients computed."""

    kind: Literal["local"] = "local"
    """`local`: the processes of this machine."""
    delay: int = Field(default=0, ge=0, le=1000)
    """Steps by which rollouts run ahead of training; 0 trains on what the newest weights did."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if not isinstance(given, str | dict | cls):
            raise ValueError(f"expected local, or a section such as {{kind: local, delay: 0}}, got {given!r}")
        return {"kind": given} if isinstance(given, str) else given


class TrainConfig(Config):
    """CoD-Train: lives in packs, and RL on every episode of them."""

    SHORT: ClassVar = ("domain", "preset", "pack_size", "packs_per_step")
    """Keys of an entry of `worlds` that a recipe with one entry may have at the top."""

    worlds: list[WorldConfig] = Field(default_factory=lambda: [WorldConfig()], min_length=1)
    """Worlds to train on, a list of `{domain, preset, pack_size, packs_per_step, profile}`; a recipe with one entry may
    have `domain`, `preset`, `pack_size` and `packs_per_step` at the top instead."""
    model: str = "base"
    """Where to start: a model folder, or `base`, the tiny model of the package."""
    init_from: str | None = Field(None, min_length=1)
    """A run or a checkpoint to start from in place of `model`, with its weights and optimiser; steps count from 0."""
    run: str = "runs/train"
    """Folder of the run."""
    seed: int = 0
    """Of everything random."""
    steps: int = Field(default=60, ge=1)
    """Optimiser rounds; the run ends after them whatever the curves say."""
    group_size: int = Field(default=8, ge=2, le=MANY)
    """Number of lives rolled out per pack, G."""
    minibatches: int = Field(default=1, ge=1)
    """Optimiser steps on the lives of a step, cut by pack."""
    contexts: Literal["own", "none"] = "own"
    """`none` trains task by task: contexts stay empty and nothing is rewritten."""
    on_parse_failure: Literal["keep", "wipe"] = "keep"
    """Whether a rewrite that cannot be read leaves the old context or none (the paper's)."""
    credit: CreditConfig = Field(default_factory=CreditConfig)
    """How rewards become advantages."""
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    """How the weights are changed."""
    engine: EngineConfig = Field(default_factory=lambda: EngineConfig())
    """Where lives are rolled out and gradients computed; `engine: local` is short for `engine: {kind: local}`."""
    sampler: Literal["lockstep", "continuous"] = "lockstep"
    """`lockstep` decodes when every session waits, so that equal recipes give equal numbers; in `continuous` nobody
    waits for a slow environment, and numbers hang on the clock."""
    workers: int = Field(default=2, ge=1)
    """Processes, one a core; part of what makes two runs equal. On a GPU there is one."""
    device: str = "auto"
    """Where to compute: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes a GPU for 50 million weights or more."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the passes; `auto` is bfloat16 on a GPU that knows it. The optimiser's is always float32."""
    kv_cache_gib: float = Field(CACHE_BYTES / 2**30, gt=0, le=1e6)
    """Greatest size of the keys and values that a worker's sampler holds; lives past it wait."""
    profile: dict[str, str | bool | int | float] = Field(default={})
    """What differs from the model's `codots.json`, such as `solve_tokens`."""
    save_every: int = Field(default=20, ge=1)
    """Steps between checkpoints; the last step is always saved."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept, the newest ones; the best on `dev` is kept besides."""
    eval_every: int = Field(default=20, ge=0)
    """Steps between looks at `dev`, 0 for none; a look changes nothing."""
    eval_packs: int = Field(default=32, ge=2)
    """Packs of a look."""
    rollout_log_every: int = Field(default=10, ge=1)
    """Steps between recorded rollouts."""
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default=["tensorboard"])
    """Who is told the numbers besides `metrics.jsonl`."""
    max_logprob_gap: float = Field(default=0.05, gt=0)
    """Greatest mean difference, in nats, of the sampler's and the learner's logprobs of the same ids; past it the run
    stops. One engine in full precision shows about 1e-7."""
    stage_timeout: float = Field(default=STAGE_TIMEOUT, gt=0, le=MAX_TIMEOUT)
    """Seconds that one stage may take, such as the rollouts of a step or the passes of a mini-batch; then the run stops
    and says which."""

    @model_validator(mode="before")
    @classmethod
    def _one_entry(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not (short := [key for key in cls.SHORT if key in given]):
            return given
        if "worlds" in given:
            raise ValueError(f"both worlds and {short[0]} are given; expected {short[0]} in each entry of worlds")
        entry = {key: given[key] for key in short}
        return {"worlds": [entry]} | {key: value for key, value in given.items() if key not in short}

    @property
    def packs_per_step(self) -> int:
        """Packs of a step, of all entries."""
        return sum(world.packs_per_step for world in self.worlds)

    def said(self) -> dict[str, Any]:
        """Return the recipe in full, as YAML and JSON hold it; one entry of `worlds` in the short form."""
        values = self.model_dump(mode="json")
        if len(self.worlds) > 1 or self.worlds[0].profile:
            return values
        (entry,) = values.pop("worlds")
        return {key: entry[key] for key in self.SHORT} | values

    @model_validator(mode="after")
    def _cuts(self) -> Self:
        for world in self.worlds:
            if world.packs_per_step % self.minibatches:
                raise ValueError(
                    f"{world.packs_per_step} packs cannot be cut into {self.minibatches} equal mini-batches"
                )
        if twice := [world for i, world in enumerate(self.worlds) if world in self.worlds[:i]]:
            raise ValueError(f"{twice[0].domain} {twice[0].preset} stands in worlds twice; give it more packs")
        check_device(self.device)
        return self


class EvalConfig(Config):
    """A measurement: one model on held-out packs, every arm on the same ones."""

    model: str
    """What to measure: a model folder, a run, `base`, or `openai:NAME`."""
    domain: str = "frozen-lake-v1"
    """Versioned id of the domain."""
    preset: str = "easy"
    """Dials of the domain."""
    split: str = "dev"
    """Which packs: `train`, `dev`, `test`, or any other held-out name."""
    packs: int = Field(default=100, ge=2)
    """Number of packs; 500 for a claim."""
    pack_size: int = Field(default=4, ge=1)
    """Tasks in a pack, S."""
    arms: list[str] = Field(default=["own", "null"], min_length=1)
    """Whose contexts: `own`, `null`, `shuffled`, `frozen`, `oracle`; on the command line `arms=own,null`."""
    writer: str | None = None
    """A model whose contexts this one reads, in place of its own."""
    seed: int = 0
    """Seed of the sampling."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    profile: EntryProfile = Field(default={})
    """What differs from the model's `codots.json`: `style`, `solve_tokens`, `update_tokens`, `max_context_chars`."""
    workers: int = Field(default=2, ge=1)
    """Processes, one a core."""
    rows: str | None = None
    """File of one JSON line per episode, from which a stopped evaluation goes on."""
    device: str = "auto"
    """Where to compute: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes a GPU for 50 million weights or more."""
    stage_timeout: float = Field(default=STAGE_TIMEOUT, gt=0, le=MAX_TIMEOUT)
    """Seconds that 100 packs of an arm may take."""

    @field_validator("arms", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        words = [word for word in given.split(",") if word] if isinstance(given, str) else given
        if isinstance(words, list | tuple):
            return [_null(word) for word in words]
        return [_null(words)] if words is None else words

    @field_validator("split")
    @classmethod
    def _split(cls, given: str) -> str:
        return check_split(given)

    @field_validator("model", "writer", "rows", mode="before")
    @classmethod
    def _path(cls, given: Any) -> Any:
        return str(given) if isinstance(given, Path) else given

    @model_validator(mode="after")
    def _exists(self) -> Self:
        for arm in self.arms:
            check_known(arm, ARMS, "arm")
        _preset_exists(self.domain, self.preset)
        check_device(self.device)
        return self


def _null(word: Any) -> Any:
    """Name the arm that YAML takes for nothing."""
    return "null" if word is None else word


class Stage(Section):
    """One stretch of imitation."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    packs_per_step: int = Field(default=48, ge=1)
    """Scripted lives of a step, one a pack."""
    lr: float = Field(2e-3, gt=0, le=100)
    """Greatest learning rate."""
    min_lr_ratio: float = Field(default=0.05, ge=0, le=1)
    """Fraction of the rate that is left at the end of the stage."""
    noise: Noise = Field(default_factory=Noise)
    """Of the scripted player."""
    given: float = Field(default=0.0, ge=0, le=1)
    """Share of lives, in quarters, that are given the true context and write none."""
    presets: list[str] = Field(["easy"], min_length=1)
    """Presets that the packs come from, in turn."""


class PretrainConfig(Config):
    """A tiny model from nothing, by imitation of a scripted player."""

    run: str = "runs/tiny-base"
    """Folder of the run; the model is left in its `model`."""
    domain: str = "frozen-lake-v1"
    """Versioned id of the domain."""
    seed: int = 0
    """Of everything random."""
    width: int = Field(default=64, ge=8)
    """Width of the model."""
    layers: int = Field(default=4, ge=1)
    """Layers of the model."""
    heads: int = Field(default=4, ge=1)
    """Attention heads of a layer."""
    pack_size: int = Field(default=4, ge=2)
    """Tasks in a life."""
    stages: list[Stage] = Field(min_length=1)
    """One after the other."""
    workers: int = Field(default=2, ge=1)
    """Processes, one a core."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for preset in (preset for stage in self.stages for preset in stage.presets):
            _preset_exists(self.domain, preset)
        if self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} cannot be cut into {self.heads} heads of even width")
        return self


def fingerprint(recipe: dict[str, Any], *, without: frozenset[str] = frozenset()) -> str:
    """Hash what a recipe says, so that a run is never taken up with another."""
    said = {key: value for key, value in recipe.items() if key not in without}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
