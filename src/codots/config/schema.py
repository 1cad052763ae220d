"""Schemas of recipes. A recipe is one YAML file that defines an experiment, validated before anything runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from codots.algorithm.credit import choose
from codots.core.deadline import MAX_TIMEOUT, STAGE_TIMEOUT
from codots.core.section import Config, FilePath, Section
from codots.core.suggest import check_known
from codots.domains.registry import check_split, get_domain
from codots.learner.config import LearnerConfig
from codots.model.device import check_device
from codots.model.load import ENDPOINT
from codots.rollout.arms import ARMS
from codots.rollout.profile import Profile
from codots.sampler.base import CACHE_BYTES


class CreditConfig(Section):
    """Advantage estimator: a preset, and the parts that differ from the preset."""

    preset: str = "codots"
    """Preset estimator: `codots`, `paper`, `leave-one-out`, `sum`, `discounted`, `length-neutral`, `coarse`. The other
    keys of `credit` override parts of the preset."""
    returns: str | None = None
    """Return of an episode: `mean`, `sum`, `window`, `discounted`, `coarse`."""
    baseline: str | None = None
    """Baseline that is subtracted from the return, such as `group` or `leave-one-out`."""
    scale: str | None = None
    """Scale that divides the difference of return and baseline, such as `none`, `std`, `rms`."""
    balance: str | None = None
    """Balance of positive and negative advantages, such as `none`, `red`, `length-neutral`."""
    scope: str | None = None
    """Episodes that are balanced together: `step`, `world`, `pack`."""
    window: int | None = None
    """Number of rewards that `returns: window` averages."""
    gamma: float | None = None
    """Discount factor of `returns: discounted`."""

    @property
    def overrides(self) -> dict[str, str | float]:
        """The parts that differ from the preset."""
        return self.model_dump(exclude={"preset"}, exclude_none=True)

    @model_validator(mode="after")
    def _exists(self) -> Self:
        choose(self.preset, **self.overrides)
        return self


def _checked_profile(profile: dict[str, Any]) -> dict[str, Any]:
    for key in profile:
        check_known(key, ENTRY_PROFILE_KEYS, "key of an entry's profile")
    Profile(**profile)
    return profile


ENTRY_PROFILE_KEYS = ("style", "solve_tokens", "update_tokens", "max_context_chars")
"""Profile keys that an entry of `worlds` or an evaluation may override. All other keys apply to the whole model."""
EntryProfile = Annotated[dict[str, Any], AfterValidator(_checked_profile)]
MAX_COUNT = 10**6
"""Upper bound of counts, far more than a training step can hold in memory."""


class WorldConfig(Section):
    """One entry of the mixture of worlds that a run trains on."""

    domain: str = "frozen-lake-v1"
    """Versioned id of the domain."""
    preset: str = "easy"
    """Preset of the domain, such as `easy` or `hard`."""
    pack_size: int = Field(default=4, ge=1, le=MAX_COUNT)
    """Number of tasks in a pack, S."""
    packs_per_step: int = Field(default=16, ge=1, le=MAX_COUNT)
    """Number of packs in a training step."""
    profile: EntryProfile = Field(default={})
    """Keys that override the run's profile: `style`, `solve_tokens`, `update_tokens`, `max_context_chars`."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        _preset_exists(self.domain, self.preset)
        return self


def _preset_exists(domain: str, preset: str) -> None:
    check_known(preset, get_domain(domain).presets, f"preset of {domain}")


class EngineConfig(Section):
    """Engine that rolls out lives and computes gradients."""

    kind: Literal["local"] = "local"
    """Kind of the engine: `local` uses processes on this machine."""
    delay: int = Field(default=0, ge=0, le=1000)
    """Number of steps by which rollouts run ahead of training. With 0, all rollouts use the newest weights."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if not isinstance(given, str | dict | cls):
            raise ValueError(f"expected local, or a section such as {{kind: local, delay: 0}}, got {given!r}")
        return {"kind": given} if isinstance(given, str) else given


class TrainConfig(Config):
    """Recipe of `codots train`, which runs CoD-Train: roll out lives on packs, then train on every episode with RL."""

    SHORT: ClassVar = ("domain", "preset", "pack_size", "packs_per_step")
    """Keys of an entry of `worlds` that a recipe with only one entry may set at the top level instead."""

    worlds: list[WorldConfig] = Field(default_factory=lambda: [WorldConfig()], min_length=1)
    """Worlds to train on: a list of `{domain, preset, pack_size, packs_per_step, profile}`. A recipe with one entry may
    set `domain`, `preset`, `pack_size` and `packs_per_step` at the top level instead."""
    model: FilePath = "base"
    """Model to start from: a model folder, a LoRA adapter, an id on the Hugging Face hub such as `Qwen/Qwen3-0.6B`, or
    `base`, the tiny model included in the package."""
    base: FilePath | None = None
    """Base of a LoRA adapter that is given as `model`, instead of the base that the adapter names."""
    init_from: FilePath | None = None
    """Run or checkpoint to start from instead of `model`, with its weights and optimizer state. Steps count from 0."""
    run: FilePath = "runs/train"
    """Folder of the run."""
    seed: int = 0
    """Seed of all random streams."""
    steps: int = Field(default=60, ge=1)
    """Number of training steps; there is no early stopping."""
    group_size: int = Field(default=8, ge=2, le=MAX_COUNT)
    """Number of lives per pack, G."""
    minibatches: int = Field(default=1, ge=1)
    """Number of mini-batches per training step. They are split by pack, and each has its own optimizer step."""
    contexts: Literal["own", "none"] = "own"
    """Contexts of the tasks: `own` uses the contexts that the model writes; `none` trains task by task, with empty
    contexts and no rewrites."""
    on_parse_failure: Literal["keep", "wipe"] = "keep"
    """What happens if a rewrite cannot be parsed: `keep` keeps the old context, `wipe` clears it as the paper does."""
    credit: CreditConfig = Field(default_factory=CreditConfig)
    """Advantage estimator."""
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    """Loss and optimizer."""
    engine: EngineConfig = Field(default_factory=lambda: EngineConfig())
    """Engine that rolls out lives and computes gradients; `engine: local` is short for `engine: {kind: local}`."""
    sampler: Literal["lockstep", "continuous"] = "lockstep"
    """Batching of the sampler. `lockstep` decodes when every session is waiting, so equal recipes give equal results.
    `continuous` does not wait for slow environments, so results depend on timing."""
    workers: int = Field(default=2, ge=1)
    """Number of worker processes, one per core; a GPU always uses one. Results are equal only for equal `workers`."""
    device: str = "auto"
    """Device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` uses a GPU for models of 50 million weights or more."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of forward and backward; `auto` is bfloat16 on GPUs that support it. The optimizer uses float32."""
    kv_cache_gib: float = Field(CACHE_BYTES / 2**30, gt=0, le=1e6)
    """Maximum size of the KV cache of each worker, in GiB. Lives that do not fit into the cache wait."""
    profile: dict[str, str | bool | int | float] = Field(default={})
    """Keys that override keys of the model's `codots.json`, such as `solve_tokens`."""
    save_every: int = Field(default=20, ge=1)
    """Number of steps between checkpoints. The last step is always saved."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of newest checkpoints to keep. The best checkpoint on `dev` is kept as well."""
    eval_every: int = Field(default=20, ge=0)
    """Number of steps between evaluations on `dev`, which do not affect training. 0 disables the evaluations."""
    eval_packs: int = Field(default=32, ge=2)
    """Number of packs in an evaluation on `dev`."""
    rollout_log_every: int = Field(default=10, ge=1)
    """Number of steps between the training steps whose rollouts are recorded."""
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default=["tensorboard"])
    """Loggers that receive the metrics in addition to `metrics.jsonl`: `tensorboard`, `wandb`, `mlflow`."""
    max_logprob_gap: float = Field(default=0.05, gt=0)
    """Maximum mean absolute difference between the sampler's and the learner's logprobs of the same tokens, in nats.
    The run stops if the difference is larger. With one engine in full precision, the difference is about 1e-7."""
    stage_timeout: float = Field(default=STAGE_TIMEOUT, gt=0, le=MAX_TIMEOUT)
    """Timeout of one stage, in seconds, such as the rollouts of a step or the passes of a mini-batch. After a timeout
    the run stops, and the error names the stage."""

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
        """Total number of packs in a training step, over all entries of `worlds`."""
        return sum(world.packs_per_step for world in self.worlds)

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain data for YAML and JSON.

        If `worlds` has one entry without a profile, its keys are at the top level. `base` is left out if it is None.
        """
        values = self.model_dump(mode="json")
        if self.base is None:  # as in earlier versions, whose runs have fingerprints without it
            del values["base"]
        if len(self.worlds) > 1 or self.worlds[0].profile:
            return values
        (entry,) = values.pop("worlds")
        return {key: entry[key] for key in self.SHORT} | values

    @model_validator(mode="after")
    def _cuts(self) -> Self:
        for world in self.worlds:
            if world.packs_per_step % self.minibatches:
                raise ValueError(
                    f"{world.packs_per_step} packs cannot be split into {self.minibatches} equal mini-batches"
                )
        if repeated := [world for i, world in enumerate(self.worlds) if world in self.worlds[:i]]:
            raise ValueError(
                f"{repeated[0].domain} {repeated[0].preset} is listed twice in worlds; use one entry with more packs"
            )
        check_device(self.device)
        return self


class EvalConfig(Config):
    """Settings of `codots eval`, which evaluates one model on held-out packs, with the same packs for every arm."""

    model: FilePath
    """Model to evaluate: a model folder, a run folder, a LoRA adapter, an id on the Hugging Face hub, `base`, or
    `openai:NAME`."""
    base: FilePath | None = None
    """Base of a LoRA adapter that is given as `model`, instead of the base that the adapter names."""
    domain: str = "frozen-lake-v1"
    """Versioned id of the domain."""
    preset: str = "easy"
    """Preset of the domain, such as `easy` or `hard`."""
    split: str = "dev"
    """Split of the packs: `train`, `dev`, `test`, or any other held-out name."""
    packs: int = Field(default=100, ge=2)
    """Number of packs; use 500 for reported results."""
    pack_size: int = Field(default=4, ge=1)
    """Number of tasks in a pack, S."""
    arms: list[str] = Field(default=["own", "null"], min_length=1)
    """Arms to compare: `own`, `null`, `shuffled`, `frozen`, `oracle`. On the command line, write `arms=own,null`."""
    writer: FilePath | None = None
    """Model that writes the contexts, instead of the evaluated model."""
    seed: int = 0
    """Seed of the sampling."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature; 0 is greedy. The default is that of the model's `codots.json`."""
    profile: EntryProfile = Field(default={})
    """Keys that override keys of the model's `codots.json`: `style`, `solve_tokens`, `update_tokens`,
    `max_context_chars`."""
    extra_body: dict[str, Any] = Field(default={})
    """Options that every request to an `openai:NAME` model adds or replaces, such as `extra_body.top_k=20`. An option
    that is null is not sent, such as `extra_body.seed=null`."""
    max_tokens_total: int | None = Field(default=None, ge=1)
    """Maximum number of tokens that `openai:NAME` models may read and write, in all runs with the same `rows`."""
    max_cost: float | None = Field(default=None, gt=0)
    """Maximum cost of `openai:NAME` models, in the currency of the prices, in all runs with the same `rows`."""
    price_in: float | None = Field(default=None, ge=0)
    """Price of a million prompt tokens."""
    price_out: float | None = Field(default=None, ge=0)
    """Price of a million tokens of replies."""
    workers: int = Field(default=2, ge=1)
    """Number of processes, one per core."""
    rows: FilePath | None = None
    """File to write with one JSON line per episode. A stopped evaluation resumes from this file."""
    device: str = "auto"
    """Device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` uses a GPU for models of 50 million weights or more."""
    stage_timeout: float = Field(default=STAGE_TIMEOUT, gt=0, le=MAX_TIMEOUT)
    """Timeout of the rollouts of 100 packs of one arm, in seconds."""

    @field_validator("arms", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        words = [word for word in given.split(",") if word] if isinstance(given, str) else given
        if isinstance(words, list | tuple):
            return [_null(word) for word in words]
        return [_null(words)] if words is None else words

    @property
    def asks_endpoint(self) -> bool:
        """Whether a model behind an API is evaluated, or writes the contexts."""
        return any(model.startswith(ENDPOINT) for model in (self.model, self.writer or ""))

    @field_validator("split")
    @classmethod
    def _split(cls, given: str) -> str:
        return check_split(given)

    @field_validator("model", "base", "writer", "rows", mode="before")
    @classmethod
    def _path(cls, given: Any) -> Any:
        return str(given) if isinstance(given, Path) else given

    @model_validator(mode="after")
    def _exists(self) -> Self:
        for arm in self.arms:
            check_known(arm, ARMS, "arm")
        if self.extra_body and not self.asks_endpoint:
            raise ValueError("extra_body is for a model behind an API; expected openai:NAME as model or writer")
        if self.max_tokens_total is not None or self.max_cost is not None:
            if not self.asks_endpoint:
                raise ValueError("max_tokens_total and max_cost are for openai:NAME as model or writer")
            if self.rows is None:
                raise ValueError("max_tokens_total and max_cost need rows=FILE, which keeps what was paid for")
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("max_cost needs price_in and price_out, the prices of a million tokens")
        _preset_exists(self.domain, self.preset)
        check_device(self.device)
        return self


def _null(word: Any) -> Any:
    """Return the arm name `null` if the word is None, because YAML reads an unquoted `null` as None."""
    return "null" if word is None else word


class Stage(Section):
    """One stage of imitation training."""

    steps: int = Field(ge=1)
    """Number of optimizer steps."""
    packs_per_step: int = Field(default=48, ge=1)
    """Number of packs in a step. Each pack has one life of the scripted teacher."""
    lr: float = Field(2e-3, gt=0, le=100)
    """Peak learning rate."""
    min_lr_ratio: float = Field(default=0.05, ge=0, le=1)
    """Final learning rate of the stage, as a fraction of the peak."""
    noise: dict[str, Any] = Field(default={})
    """Noise of the scripted teacher."""
    given: float = Field(default=0.0, ge=0, le=1)
    """Fraction of lives that are given the true context and do not write contexts, rounded up to quarters."""
    presets: list[str] = Field(["easy"], min_length=1)
    """Presets of the packs. Successive packs of a step use the presets in turn."""


class PretrainConfig(Config):
    """Recipe of `codots pretrain`, which trains a tiny model from scratch by imitation of a scripted teacher."""

    run: FilePath = "runs/tiny-base"
    """Folder of the run. The model is saved in the subfolder `model`."""
    domain: str = "frozen-lake-v1"
    """Versioned id of the domain."""
    seed: int = 0
    """Seed of all random streams."""
    width: int = Field(default=64, ge=8)
    """Hidden size of the model."""
    layers: int = Field(default=4, ge=1)
    """Number of layers of the model."""
    heads: int = Field(default=4, ge=1)
    """Number of attention heads per layer."""
    pack_size: int = Field(default=4, ge=2)
    """Number of tasks in a life."""
    stages: list[Stage] = Field(min_length=1)
    """Stages of training, in order."""
    workers: int = Field(default=2, ge=1)
    """Number of processes, one per core."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for preset in (preset for stage in self.stages for preset in stage.presets):
            _preset_exists(self.domain, preset)
        if self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} cannot be split into {self.heads} heads of even width")
        return self


def fingerprint(recipe: dict[str, Any], *, without: frozenset[str] = frozenset()) -> str:
    """Return a hash of a recipe without the keys in `without`. The hash prevents resuming a run with another recipe."""
    hashed = {key: value for key, value in recipe.items() if key not in without}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]
