"""The learner's part of a recipe."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from codots.core.section import Section

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
    loss: str = "rec-oneside-nois"
    """Kind of policy loss."""
    loss_choices: dict[str, float] = Field(default={})
    """Numbers of the loss by name, such as `eps_low`."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.model_fields_set & {"loss", "loss_choices"}:
            # torch, which a recipe without these keys does not wait for
            from codots.algorithm.losses import KINDS, choose

            kind, chosen = choose(self.loss, **self.loss_choices)
            if kind.by_episode:
                known = ", ".join(name for name, kind in KINDS.items() if not kind.by_episode)
                raise ValueError(
                    f"loss {self.loss!r} needs whole episodes, which the learner cuts; expected one of {known}"
                )
            if chosen.kl_coef:
                raise ValueError(f"kl_coef {chosen.kl_coef} needs a reference model, which no run has: leave it out")
        return self
