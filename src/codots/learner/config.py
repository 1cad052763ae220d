"""The learner section of a recipe."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from codots.core.section import FilePath, Section
from codots.core.transcript import Sample

DEFAULT_LOSS = "rec-oneside-nois"
ALL_LINEAR = "all-linear"
"""Targets of LoRA: every linear layer but the output layer."""
CLIPS = ("eps_low", "eps_high", "eps_low_ring", "eps_high_ring", "tis_floor", "tis_cap", "max_ratio")
LOSS_PARAMS = (*CLIPS, "kl_coef", "entropy_coef")
"""Keys that are passed to the loss."""


class LoraConfig(Section):
    """Settings of LoRA adapters. The weights of the model stay frozen."""

    rank: int = Field(default=16, ge=1)
    """Rank of the LoRA matrices."""
    alpha: int = Field(default=32, ge=1)
    """LoRA scaling: the update is multiplied by alpha / rank."""
    targets: tuple[str, ...] = Field(default=(ALL_LINEAR,), min_length=1)
    """Layers to adapt: `all-linear`, every linear layer but the output layer, or a list of last parts of names."""

    @field_validator("targets", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given


class LearnerConfig(Section):
    """Settings of the loss and the optimizer."""

    lr: float = Field(default=3e-4, gt=0, le=100)
    """Learning rate of AdamW."""
    warmup_steps: int = Field(default=5, ge=0)
    """Number of optimizer steps over which the learning rate rises linearly from 0."""
    min_lr_ratio: float = Field(default=1.0, ge=0, le=1)
    """Learning rate at the last step, as a fraction of `lr`; 1 keeps it constant."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Maximum gradient norm."""
    max_microbatch_tokens: int = Field(default=2048, ge=1)
    """Maximum number of tokens in one forward pass."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them: less memory, more time."""
    lora: LoraConfig | None = None
    """Train LoRA adapters instead of the weights of the model; `lora: {}` uses the defaults."""
    loss: str = DEFAULT_LOSS
    """Policy loss: `rec-oneside-nois`, `grpo`, `ppo`, `gspo`, `cispo`, `tis`, `reinforce`, ..."""
    eps_low: float | None = Field(default=None, ge=0)
    """Lower clip bound of the probability ratio, as 1 - eps_low; the default depends on the loss."""
    eps_high: float | None = Field(default=None, ge=0)
    """Upper clip bound of the probability ratio, as 1 + eps_high; the default depends on the loss."""
    eps_low_ring: float | None = Field(default=None, ge=0)
    """Outer lower bound of the ratio in `rec-ring-nois`, as 1 - eps_low_ring."""
    eps_high_ring: float | None = Field(default=None, ge=0)
    """Outer upper bound of the ratio in `rec-ring-nois`, as 1 + eps_high_ring."""
    tis_floor: float | None = Field(default=None, ge=0)
    """Smallest importance weight of `tis` and `rec-oneside-tis`."""
    tis_cap: float | None = Field(default=None, ge=0)
    """Largest importance weight of `tis` and `rec-oneside-tis`."""
    max_ratio: float | None = Field(default=None, gt=1)
    """Gate of the importance ratio: tokens with a probability in the learner of more than `max_ratio` times that in the
    sampler, or less than its inverse, are dropped. None drops no token. For mode `async` of the engine."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL penalty to the reference model."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus."""
    reference: FilePath | None = None
    """Reference model of `kl_coef`; the default is the `model` of the recipe."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.loss != DEFAULT_LOSS:
            from codots.algorithm.losses import choose  # imports torch, so only for other losses

            choose(self.loss)
        if self.reference and not self.kl_coef:
            raise ValueError("reference is given without kl_coef, the only key that uses it")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `max_ratio` if it is None, as in earlier versions, whose runs have fingerprints without it."""
        values: dict[str, Any] = dump(self)
        return {key: value for key, value in values.items() if key != "max_ratio" or value is not None}

    @property
    def loss_params(self) -> dict[str, float]:
        """Parameters of the loss that differ from its defaults."""
        return self.model_dump(include=set(LOSS_PARAMS), exclude_none=True)

    @property
    def by_episode(self) -> bool:
        """Whether the loss is a mean over episodes; otherwise it is a mean over tokens."""
        if self.loss == DEFAULT_LOSS:
            return False
        from codots.algorithm.losses import choose

        return choose(self.loss)[1].aggregation == "episode-mean"

    def contributes(self, sample: Sample) -> bool:
        """Return whether a sample contributes to the gradient."""
        return any(sample.advantages) or bool(self.kl_coef or self.entropy_coef)
