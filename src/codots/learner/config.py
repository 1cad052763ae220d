"""The learner's part of a recipe."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from codots.core.section import Section
from codots.core.transcript import Sample

LOSS = "rec-oneside-nois"
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Layers of most models that LoRA may add to."""


CLIPS = ("eps_low", "eps_high", "eps_low_ring", "eps_high_ring", "tis_floor", "tis_cap")
LOSS_PARAMS = (*CLIPS, "kl_coef", "entropy_coef")
"""Keys that are passed to the loss."""


class LoraConfig(Section):
    """New weights beside the model's own, which stay as they are."""

    rank: int = Field(default=16, ge=1)
    """Of what is added to a layer."""
    alpha: int = Field(default=32, ge=1)
    """What is added is scaled by alpha / rank."""
    targets: tuple[str, ...] = Field(default=LINEAR, min_length=1)
    """Names that the layers end with."""


class LearnerConfig(Section):
    """How the weights are changed."""

    lr: float = Field(default=3e-4, gt=0, le=100)
    """Learning rate of AdamW."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps over which the rate rises from nothing."""
    min_lr_ratio: float = Field(default=1.0, ge=0, le=1)
    """Fraction of the rate that is left at the last step; 1 keeps it constant."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Greatest norm of the gradient."""
    max_microbatch_tokens: int = Field(default=2048, ge=1)
    """Greatest number of ids in one forward pass."""
    gradient_checkpointing: bool = False
    """Compute again on the way back what a layer computed, in place of keeping it: less memory, more time."""
    lora: LoraConfig | None = None
    """Train these in place of the model's own weights; `lora: {}` takes the defaults."""
    loss: str = LOSS
    """Policy loss: `rec-oneside-nois`, `grpo`, `ppo`, `gspo`, `reinforce`, ..."""
    eps_low: float | None = Field(default=None, ge=0)
    """Lower clip range of the probability ratio, 1 - eps_low; the loss's own if left out."""
    eps_high: float | None = Field(default=None, ge=0)
    """Upper clip range of the probability ratio, 1 + eps_high; the loss's own if left out."""
    eps_low_ring: float | None = Field(default=None, ge=0)
    """Lower end of the outer ring of `rec-ring-nois`."""
    eps_high_ring: float | None = Field(default=None, ge=0)
    """Upper end of the outer ring of `rec-ring-nois`."""
    tis_floor: float | None = Field(default=None, ge=0)
    """Smallest importance weight of `rec-oneside-tis`."""
    tis_cap: float | None = Field(default=None, ge=0)
    """Largest importance weight of `rec-oneside-tis`."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL penalty to the reference model."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus."""
    reference: str | None = None
    """Model folder that `kl_coef` holds the policy close to; left out, the model that the recipe names."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.loss != LOSS:
            from codots.algorithm.losses import choose  # torch, which a recipe with the default loss does not wait for

            choose(self.loss)
        if self.reference and not self.kl_coef:
            raise ValueError("reference is given without kl_coef, the only key that uses it")
        return self

    @property
    def loss_params(self) -> dict[str, float]:
        """Parameters of the loss that differ from its own defaults."""
        return self.model_dump(include=set(LOSS_PARAMS), exclude_none=True)

    @property
    def by_episode(self) -> bool:
        """Whether the loss is a mean over episodes; otherwise it is a mean over tokens."""
        if self.loss == LOSS:
            return False
        from codots.algorithm.losses import choose

        return choose(self.loss)[1].aggregation == "episode-mean"

    def contributes(self, sample: Sample) -> bool:
        """Return whether a sample contributes to the gradient."""
        return any(sample.advantages) or bool(self.kl_coef or self.entropy_coef)
