"""What every learner does: the backward pass of the loss over prefix-tree micro-batches, and the learning rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from codots.algorithm.losses import policy_loss
from codots.core.transcript import Sample
from codots.learner.batch import MicroBatch, trained
from codots.learner.config import LearnerConfig
from codots.learner.score import Scorer

BETAS = (0.9, 0.999)
"""Decay rates of AdamW's two moments."""
SUMS = (
    "tokens",
    "weight",
    *(f"train/{name}" for name in ("loss", "entropy", "logprob_gap", "logprob_gap_max", "clip_fraction")),
    *(f"train/{name}" for name in ("gated_fraction", "ratio_mean", "ratio_max")),
)
"""Sums that every share returns, even if no episode contributes, so that all steps have the same metrics."""


class Trainer(Scorer):
    """Base of the learners: accumulates the gradient of a micro-batch in the model's parameters."""

    def __init__(self, model: Any, config: LearnerConfig, total_steps: int = 0, temperature: float = 1.0) -> None:
        """Train this model on samples of this temperature; `total_steps` is for the learning rate decay."""
        super().__init__(model, config, temperature)
        self.total_steps, self.steps = total_steps, 0
        self.parameters = trained_weights(model)
        self.dtype = self.parameters[0].dtype
        """Precision of the trained weights in a forward pass."""
        if config.gradient_checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})  # the older name is removed in transformers 6

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        c = self.config
        warmup = min(1.0, (self.steps + 1) / c.warmup_steps) if c.warmup_steps else 1.0
        remaining = max(0.0, 1 - self.steps / self.total_steps) if self.total_steps else 1.0
        return c.lr * warmup * (c.min_lr_ratio + (1 - c.min_lr_ratio) * remaining)

    def _contributing(self, samples: Sequence[Sample]) -> Iterator[MicroBatch]:
        """Return the micro-batches of the samples that contribute to the gradient."""
        return self.parts([sample for sample in samples if self.config.contributes(sample)])

    def _no_sums(self) -> dict[str, float]:
        return dict.fromkeys(SUMS + ("train/ref_kl",) * bool(self.config.kl_coef), 0.0)

    def _backward(self, part: MicroBatch, normalizer: float) -> dict[str, float]:
        with self._saving_memory():
            logprobs, entropy = self._score(part)
            loss, old, metrics = self._loss(part, logprobs, entropy, normalizer)
            loss.backward()  # type: ignore[no-untyped-call]
        gap = (logprobs.detach() - old).abs()
        tokens = float(len(old))
        sums = {
            "tokens": tokens,
            "weight": float(len(part.samples)) if self.config.by_episode else tokens,
            "train/loss": float(loss.detach()) * normalizer,
            "train/entropy": float(entropy.detach().sum()),
            "train/logprob_gap": float(gap.sum()),
            "train/logprob_gap_max": float(gap.max()),
            "train/clip_fraction": float(metrics["loss/clip_fraction"]) * normalizer,
            "train/gated_fraction": float(metrics["loss/gated_fraction"]) * normalizer,
            "train/ratio_mean": float(metrics["loss/ratio_mean"]) * normalizer,
            "train/ratio_max": float(metrics["loss/ratio_max"]),
        }
        if self.config.kl_coef:
            sums["train/ref_kl"] = float(metrics["loss/ref_kl"]) * normalizer
        return sums

    def _loss(
        self, part: MicroBatch, logprobs: Tensor, entropy: Tensor, normalizer: float
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the loss of a micro-batch, the sampler's logprobs, and the loss's metrics."""
        pairs = [(sample.logprobs[at], sample.advantages[at]) for sample, _, at in trained(part)]
        old, advantages = torch.tensor(pairs, device=self.device).T
        # The loss would silently treat a NaN ratio or advantage as a clipped token.
        if not (torch.isfinite(old).all() and torch.isfinite(advantages).all()):
            raise FloatingPointError("an advantage or a sampler's logprob is not finite; the weights are unchanged")
        more: dict[str, Tensor] = {}
        if self.config.by_episode:
            episodes = [i for i, sample in enumerate(part.samples) for _ in range(sum(sample.mask))]
            more["segments"] = torch.tensor(episodes, device=self.device)
        if self.config.kl_coef:
            more["ref_logprobs"] = self._reference(part)
        if self.config.entropy_coef:
            more["entropy"] = entropy
        mask = torch.ones_like(old, dtype=torch.bool)
        choices: dict[str, Any] = self.config.loss_params | more
        loss, metrics = policy_loss(logprobs, old, advantages, mask, self.config.loss, normalizer=normalizer, **choices)
        return loss, old, metrics

    def _reference(self, part: MicroBatch) -> Tensor:
        if missing := [sample for sample in part.samples if sample.ref_logprobs is None]:
            raise ValueError(f"kl_coef needs ref_logprobs, which {len(missing)} of {len(part.samples)} samples lack")
        return torch.tensor([sample.ref_logprobs[at] for sample, _, at in trained(part)], device=self.device)  # type: ignore[index]


def add(sums: dict[str, float], more: dict[str, float]) -> None:
    """Add the sums of another micro-batch, and keep the larger one of maxima."""
    for name, value in more.items():
        sums[name] = max(sums[name], value) if name.endswith("max") else sums[name] + value


def trained_weights(model: Any) -> list[Any]:
    """Return the weights of a model that are trained, in the order of a flat tensor of them."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
