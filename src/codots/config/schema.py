"""Schemas of recipes. A recipe is one YAML file that defines an experiment, validated before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from codots.algorithm.credit import choose
from codots.core.deadline import MAX_TIMEOUT, STAGE_TIMEOUT
from codots.core.renamed import with_old_engine
from codots.core.section import Config, FilePath, Section
from codots.core.suggest import check_known
from codots.domains.registry import get_domain
from codots.learner.config import LearnerConfig
from codots.model.device import Dtype, check_device
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


ENTRY_PROFILE_KEYS = ("style", "solve_tokens", "update_tokens", "max_context_chars", "update")
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
    """Keys that override the run's profile: `style`, `solve_tokens`, `update_tokens`, `max_context_chars`, `update`."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        preset_exists(self.domain, self.preset)
        return self


def preset_exists(domain: str, preset: str) -> None:
    """Raise ValueError, with the nearest known preset, if a domain has no such preset."""
    check_known(preset, get_domain(domain).presets, f"preset of {domain}")


class EngineConfig(Section):
    """Engine that rolls out lives and computes gradients."""

    kind: Literal["local", "ray"] = "local"
    """Kind of the engine: `local` uses processes on this machine, `ray` uses actors on a Ray cluster."""
    mode: Literal["sync", "async"] = "sync"
    """Order of rollouts and training: `sync` rolls out the lives of a step with the newest weights, `async` rolls out
    the lives of up to `max_staleness` later steps ahead."""
    max_staleness: int = Field(default=1, ge=0, le=100)
    """Maximum age of a token that is trained on, in versions of the weights, in mode `async`. 0 is the same as mode
    `sync`."""
    samplers: int = Field(default=1, ge=1, le=MAX_COUNT)
    """Number of actors that roll out, of kind `ray`. Results are equal only for equal `samplers`."""
    learners: int = Field(default=1, ge=1, le=MAX_COUNT)
    """Number of actors that train, of kind `ray`. Several ones each hold a part of the model (FSDP2)."""
    tensor_parallel: int = Field(default=1, ge=1, le=MAX_COUNT)
    """Number of GPUs, or processes on a CPU, over which each sampler splits the layers of the model, with
    `sampler: vllm`."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if not isinstance(given, str | dict | cls):
            raise ValueError(f"expected local, or a section such as {{kind: local, mode: async}}, got {given!r}")
        return {"kind": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _has_these_actors(self) -> Self:
        if self.mode == "sync" and "max_staleness" in self.model_fields_set and self.max_staleness:
            raise ValueError(f"max_staleness={self.max_staleness} needs mode=async")
        for name in ("samplers", "learners"):
            if self.kind == "local" and (count := getattr(self, name)) > 1:
                raise ValueError(f"{name}={count} needs kind=ray; the processes of kind=local are set by workers")
        return self

    @model_serializer(mode="wrap")
    def _own_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        unused = {
            *(() if self.mode == "async" else ("max_staleness",)),
            *(() if self.kind == "ray" else ("samplers", "learners")),
            *(() if self.tensor_parallel > 1 else ("tensor_parallel",)),
        }
        return {key: value for key, value in values.items() if key not in unused}

    @property
    def ahead(self) -> int:
        """Number of later steps whose lives are rolled out ahead."""
        return self.max_staleness if self.mode == "async" else 0


class RunKeys(Config):
    """Keys of every recipe that trains a model."""

    base: FilePath | None = None
    """Base of a LoRA adapter that is given as `model`, instead of the base that the adapter names."""
    run: FilePath = "runs/train"
    """Folder of the run."""
    seed: int = 0
    """Seed of all random streams."""
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    """Loss and optimizer."""
    workers: int = Field(default=2, ge=1)
    """Number of worker processes of the engine `local`, one per core; a GPU, and
    `sampler: vllm`, always use one. Results are equal only for
    equal `workers`."""
    device: str = "auto"
    """Device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` uses a GPU for models of 50 million weights or more."""
    dtype: Dtype = "auto"
    """Precision of forward and backward. `auto` is bfloat16 on GPUs that support it, and for large models on CPUs that
    compute with it; a run stores the choice. The optimizer uses float32."""
    kv_cache_gib: float = Field(CACHE_BYTES / 2**30, gt=0, le=1e6)
    """Maximum size of the KV cache of each worker, in GiB. Lives that do not fit into the cache wait."""
    profile: dict[str, str | bool | int | float] = Field(default={})
    """Keys that override keys of the model's `codots.json`, such as `solve_tokens`."""
    save_every: int = Field(default=20, ge=1)
    """Number of steps between checkpoints. The last step is always saved."""
    keep_checkpoints: Annotated[int, Field(ge=1)] | Literal["all"] = 2
    """Number of newest checkpoints to keep, or `all`. The best checkpoint on `dev` is kept as well."""
    eval_every: int = Field(default=20, ge=0)
    """Number of steps between evaluations on `dev`, which do not affect training. 0 disables the evaluations."""
    eval_packs: int = Field(default=32, ge=2)
    """Number of packs in an evaluation on `dev`."""
    rollout_log_every: int = Field(default=10, ge=1)
    """Number of steps between the training steps whose rollouts are recorded."""
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default=["tensorboard"])
    """Loggers that receive the metrics in addition to `metrics.jsonl`: `tensorboard`, `wandb`, `mlflow`."""
    stage_timeout: float = Field(default=STAGE_TIMEOUT, gt=0, le=MAX_TIMEOUT)
    """Timeout of one stage, in seconds, such as the rollouts of a step or the passes of a mini-batch. After a timeout
    the run stops, and the error names the stage."""

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain data for YAML and JSON."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _device_exists(self) -> Self:
        check_device(self.device)
        return self


class TrainKeys(Config):
    """Keys of RL: worlds, group size, credit and engine."""

    SHORT: ClassVar = ("domain", "preset", "pack_size", "packs_per_step")
    """Keys of an entry of `worlds` that a recipe with only one entry may set at the top level instead."""

    worlds: list[WorldConfig] = Field(default_factory=lambda: [WorldConfig()], min_length=1)
    """Worlds to train on: a list of `{domain, preset, pack_size, packs_per_step, profile}`. A recipe with one entry may
    set `domain`, `preset`, `pack_size` and `packs_per_step` at the top level instead."""
    model: FilePath = "base"
    """Model to start from: a model folder, a LoRA adapter, an id on the Hugging Face hub such as `Qwen/Qwen3-0.6B`, or
    `base`, the tiny model included in the package."""
    init_from: FilePath | None = None
    """Run or checkpoint to start from instead of `model`, with its weights and optimizer state. Steps count from 0."""
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
    engine: EngineConfig = Field(default_factory=lambda: EngineConfig())
    """Engine that rolls out lives and computes gradients; `engine: local` is short for `engine: {kind: local}`."""
    sampler: Literal["lockstep", "continuous", "vllm"] = "lockstep"
    """Sampler of a worker. `lockstep` decodes when every session is waiting, so equal recipes give equal results.
    `continuous` does not wait for slow environments, so results depend on timing. `vllm` does not wait either, and has
    the model in processes of vLLM. On Ray in mode `async`, lives in flight end before new weights are served with
    `lockstep`, and run on under the new weights with the others."""
    max_logprob_gap: float = Field(default=0.05, gt=0)
    """Maximum mean absolute difference between the sampler's and the learner's logprobs of the same tokens, in nats.
    The run stops if the difference is larger. With one engine in full precision, the difference is about 1e-7."""

    @property
    def keeps_lives(self) -> bool:
        """Whether lives in flight run on when new weights are served."""
        return self.engine.kind == "ray" and self.engine.ahead > 0 and self.sampler != "lockstep"

    @model_validator(mode="before")
    @classmethod
    def _one_entry(cls, given: Any) -> Any:
        return one_item("worlds", cls.SHORT, given)


class TrainConfig(RunKeys, TrainKeys):  # in this order, so that the keys of RL are listed first
    """Recipe of `codots train`, which runs CoD-Train: roll out lives on packs, then train on every episode with RL."""

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
        if (parts := self.engine.tensor_parallel) > 1 and self.sampler != "vllm":
            raise ValueError(f"engine.tensor_parallel={parts} needs sampler=vllm, and sampler is {self.sampler}")
        for world in self.worlds:
            if world.packs_per_step % self.minibatches:
                raise ValueError(
                    f"{world.packs_per_step} packs cannot be split into {self.minibatches} equal mini-batches"
                )
        if repeated := [world for i, world in enumerate(self.worlds) if world in self.worlds[:i]]:
            raise ValueError(
                f"{repeated[0].domain} {repeated[0].preset} is listed twice in worlds; use one entry with more packs"
            )
        return self


def one_item(name: str, short: Sequence[str], given: Any) -> Any:
    """Return a recipe in which the keys of a list's only item, given at the top level, are moved into the list.

    `short` are the keys that may be given so. Raises ValueError if the list is given as well.
    """
    if not isinstance(given, dict) or not (found := [key for key in short if key in given]):
        return given
    if name in given:
        raise ValueError(f"both {name} and {found[0]} are given; expected {found[0]} in each entry of {name}")
    item = {key: given[key] for key in found}
    return {name: [item]} | {key: value for key, value in given.items() if key not in found}


def fingerprint(recipe: dict[str, Any], *, without: frozenset[str] = frozenset()) -> str:
    """Return a hash of a recipe without the keys in `without`. The hash prevents resuming a run with another recipe."""
    hashed = {key: value for key, value in with_old_engine(recipe).items() if key not in without}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]
