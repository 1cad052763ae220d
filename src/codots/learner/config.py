"""The learner's part of a recipe."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from codots.core.section import Section
from codots.core.transcript import Sample

LOSS = "rec-oneside-nois"
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Layers of most models that LoRA may add to."""


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
    warmup: int = Field(default=5, ge=0)
    """Steps over which the rate rises from nothing."""
    decay_to: float = Field(default=1.0, ge=0, le=1)
    """Fraction of the rate that is left at the last step; 1 keeps it constant."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW."""
    clip: float = Field(default=1.0, gt=0)
    """Greatest norm of the gradient."""
    micro_tokens: int = Field(default=2048, ge=1)
    """Greatest number of ids in one forward pass."""
    checkpointing: bool = False
    """Compute again on the way back what a layer computed, in place of keeping it: less memory, more time."""
    lora: LoraConfig | None = None
    """Train these in place of the model's own weights; `lora: {}` takes the defaults."""
    loss: str = LOSS
    """Kind of policy loss."""
    loss_choices: dict[str, float] = Field(default={})
    """Numbers of the loss by name: `eps_low`, `kl_coef` (penalty on leaving the reference), `entropy_coef`, ..."""
    reference: str | None = None
    """Model folder that `kl_coef` holds the policy close to; left out, the model that the recipe names."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.model_fields_set & {"loss", "loss_choices"}:
            from codots.algorithm.losses import choose  # torch, which a recipe without these keys does not wait for

            choose(self.loss, **self.loss_choices)
        if negative := [name for name, value in self.loss_choices.items() if value < 0]:
            raise ValueError(f"{negative[0]} is {self.loss_choices[negative[0]]:g}; expected 0 or more")
        if self.reference and not self.kl_coef:
            raise ValueError("reference is given without loss_choices.kl_coef, which alone would use it")
        return self

    @property
    def by_episode(self) -> bool:
        """Whether the loss is a mean over episodes; else it is one over tokens."""
        if self.loss == LOSS:
            return False
        from codots.algorithm.losses import choose

        return choose(self.loss, **self.loss_choices)[1].aggregation == "episode-mean"

    @property
    def kl_coef(self) -> float:
        """Weight of the penalty on leaving the reference model."""
        return self.loss_choices.get("kl_coef", 0.0)

    @property
    def entropy_coef(self) -> float:
        """Weight of the entropy bonus."""
        return self.loss_choices.get("entropy_coef", 0.0)

    def moves(self, sample: Sample) -> bool:
        """Tell whether a sample adds anything to the gradient."""
        return any(sample.advantages) or bool(self.kl_coef or self.entropy_coef)
