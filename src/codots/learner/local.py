"""A learner in this process: AdamW over micro-batches, in which no id is run twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codots.algorithm.losses import policy_loss
from codots.core.transcript import Sample
from codots.learner.batch import MicroBatch, micro_batches, trained
from codots.learner.config import LearnerConfig
from codots.learner.score import Scorer

BETAS = (0.9, 0.999)
"""Decay rates of AdamW's two moments."""
SUMS = (
    "tokens",
    "weight",
    *(f"train/{name}" for name in ("loss", "entropy", "logprob_gap", "logprob_gap_max", "clip_fraction")),
)
"""What a share reports; all of it even where no episode moved, so that every step has the same metrics."""


class LocalLearner(Scorer):
    """Train one causal LM."""

    def __init__(self, model: Any, config: LearnerConfig, total_steps: int = 0) -> None:
        """Train this model; `total_steps`, the length of the run, matters only to the decay of the learning rate."""
        super().__init__(model, config)
        self.total_steps = total_steps
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.parameters]
        """What the optimiser changes: in half precision most steps would be too small to count."""
        self._gradient = torch.zeros(sum(p.numel() for p in self.masters), device=self.device)
        self.optimiser = torch.optim.AdamW(self.masters, lr=config.lr, betas=BETAS, weight_decay=config.weight_decay)
        self._accumulating = False
        self.steps = 0
        if config.gradient_checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})  # the older name goes away with transformers 6

    def forward_backward(self, samples: Sequence[Sample], normalizer: float) -> dict[str, float]:
        """Add the gradient of the samples' loss to what has accumulated since the last step; return sums.

        An episode that adds nothing to the gradient is not run.
        """
        if not self._accumulating:
            self._gradient.zero_()
        self._accumulating = True
        self._aim()
        sums = dict.fromkeys(SUMS + ("train/ref_kl",) * bool(self.config.kl_coef), 0.0)
        moving = [sample for sample in samples if self.config.contributes(sample)]
        for part in micro_batches(moving, self.config.max_microbatch_tokens):
            for name, value in self._backward(part, normalizer).items():
                sums[name] = max(sums[name], value) if name.endswith("max") else sums[name] + value
            self._collect()
        return sums

    def optim_step(self) -> dict[str, float]:
        """Clip what has accumulated and take one optimizer step with it; RuntimeError if there is nothing."""
        gradient = self.take_gradient()
        norm = float(gradient.norm())
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient of step {self.steps + 1} is not finite; the weights are untouched")
        self._aim()
        gradient.mul_(min(1.0, self.config.max_grad_norm / (norm + 1e-12)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.step()
        self._serve()
        self.steps += 1
        return {"train/grad_norm": norm, "train/lr": self.optimiser.param_groups[0]["lr"]}

    def take_gradient(self) -> Tensor:
        """Return the accumulated gradient, flat, valid until the next `forward_backward`, which starts from zero."""
        if not self._accumulating:
            raise RuntimeError("there is no gradient: forward_backward comes before optim_step")
        self._accumulating = False
        return self._gradient

    def add_gradient(self, gradient: Tensor) -> None:
        """Add the flat gradient of another learner's share."""
        self._gradient += gradient

    def zero_grad(self) -> None:
        """Drop what has accumulated."""
        self._accumulating = False

    def flat(self) -> Tensor:
        """All that is trained, flat."""
        return torch.nn.utils.parameters_to_vector(self.masters).detach()

    def take(self, weights: Tensor) -> None:
        """Hold what another learner gave flat."""
        with torch.no_grad():
            for master, piece in zip(self.masters, self._pieces(weights), strict=True):
                master.copy_(piece)
        self._serve()

    def rate(self) -> float:
        """The learning rate of the next step."""
        c = self.config
        rise = min(1.0, (self.steps + 1) / c.warmup_steps) if c.warmup_steps else 1.0
        left = max(0.0, 1 - self.steps / self.total_steps) if self.total_steps else 1.0
        return c.lr * rise * (c.min_lr_ratio + (1 - c.min_lr_ratio) * left)

    def state(self) -> dict[str, Tensor]:
        """Return the weights themselves, not a copy."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state

    def save(self, folder: Path) -> None:
        """Write the optimiser's state, and what it changes where the weights beside it are rounded."""
        state = {"optimiser": self.optimiser.state_dict(), "steps": self.steps}
        torch.save(state | ({"masters": self.masters} if self._rounded else {}), folder / "optimiser.pt")

    def load(self, folder: Path) -> None:
        """Read the state of a learner of the same model, whose weights are there already."""
        state = torch.load(folder / "optimiser.pt", weights_only=True, map_location=self.device)
        self.optimiser.load_state_dict(state["optimiser"])
        for group in self.optimiser.param_groups:  # moments are taken up, and how to use them is this recipe's
            group |= {"betas": BETAS, "weight_decay": self.config.weight_decay}
        self.steps = state["steps"]
        for master, parameter, saved in zip(
            self.masters, self.parameters, state.get("masters", self.parameters), strict=True
        ):
            if master is not parameter:
                master.copy_(saved.detach())

    @property
    def _rounded(self) -> bool:
        return any(master is not parameter for master, parameter in zip(self.masters, self.parameters, strict=True))

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """Cut what is flat into the shapes of what is trained."""
        cut = torch.split(flat, [p.numel() for p in self.parameters])
        return [piece.view_as(p) for piece, p in zip(cut, self.parameters, strict=True)]

    def _aim(self) -> None:
        """Let gradients be added up in the flat one, where they need not be gathered."""
        for master, piece in zip(self.masters, self._pieces(self._gradient), strict=True):
            master.grad = piece

    def _collect(self) -> None:
        """Add up in full precision what a pass left; of weights in full precision it was added where it belongs."""
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            if master is not parameter and parameter.grad is not None:
                master.grad += parameter.grad
                parameter.grad = None

    def _serve(self) -> None:
        """Round what was changed to what is run."""
        with torch.no_grad():
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)

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
        }
        if self.config.kl_coef:
            sums["train/ref_kl"] = float(metrics["loss/ref_kl"]) * normalizer
        return sums

    def _loss(
        self, part: MicroBatch, logprobs: Tensor, entropy: Tensor, normalizer: float
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the loss of a micro-batch, the sampler's logprobs, and the loss's metrics."""
        taken = [(sample.logprobs[at], sample.advantages[at]) for sample, _, at in trained(part)]
        old, advantages = torch.tensor(taken, device=self.device).T
        # The loss takes a ratio or an advantage that is not a number for a clipped token, and would say nothing.
        if not (torch.isfinite(old).all() and torch.isfinite(advantages).all()):
            raise FloatingPointError("an advantage or a sampler's logprob is not finite; the weights are untouched")
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
        loss, metrics = policy_loss(logprobs, old, advantages, mask, self.config.loss, normaliser=normalizer, **choices)
        return loss, old, metrics

    def _reference(self, part: MicroBatch) -> Tensor:
        if missing := [sample for sample in part.samples if sample.ref_logprobs is None]:
            raise ValueError(f"kl_coef needs ref_logprobs, which {len(missing)} of {len(part.samples)} samples lack")
        return torch.tensor([sample.ref_logprobs[at] for sample, _, at in trained(part)], device=self.device)  # type: ignore[index]
