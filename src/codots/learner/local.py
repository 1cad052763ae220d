"""Learner in this process: AdamW with gradients accumulated over prefix-tree micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
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
FUSED = 10_000_000
"""Smallest number of trained weights for the fused AdamW. For fewer, the optimizer takes no time that matters."""
SUMS = (
    "tokens",
    "weight",
    *(f"train/{name}" for name in ("loss", "entropy", "logprob_gap", "logprob_gap_max", "clip_fraction")),
    *(f"train/{name}" for name in ("gated_fraction", "ratio_mean", "ratio_max")),
)
"""Sums that every share returns, even if no episode contributes, so that all steps have the same metrics."""


class LocalLearner(Scorer):
    """Learner of one causal LM with AdamW."""

    def __init__(
        self,
        model: Any,
        config: LearnerConfig,
        total_steps: int = 0,
        temperature: float = 1.0,
        gradient: Tensor | None = None,
    ) -> None:
        """Train this model on samples of this temperature; `total_steps` is for the learning rate decay.

        `gradient` is the flat float32 tensor to accumulate into, such as one that another process reads.
        """
        super().__init__(model, config, temperature)
        self.total_steps = total_steps
        self.parameters = trained_weights(model)
        self.masters = masters_of(self.parameters)
        """Master weights of the optimizer, in float32 because most updates are too small for half precision."""
        self._gradient = torch.zeros(self.size, device=self.device) if gradient is None else gradient
        self.optimizer = torch.optim.AdamW(self.masters, lr=config.lr, **self._settings())
        self._accumulating = False
        self.steps = 0
        if config.gradient_checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})  # the older name is removed in transformers 6

    @property
    def size(self) -> int:
        """Number of trained weights."""
        return sum(p.numel() for p in self.masters)

    def forward_backward(self, samples: Sequence[Sample], normalizer: float) -> dict[str, float]:
        """Accumulate the gradient of the samples' loss and return sums. Samples that do not contribute are skipped."""
        if not self._accumulating:
            self._gradient.zero_()
        self._accumulating = True
        self._bind_gradients()
        sums = dict.fromkeys(SUMS + ("train/ref_kl",) * bool(self.config.kl_coef), 0.0)
        contributing = [sample for sample in samples if self.config.contributes(sample)]
        for part in self.parts(contributing):
            for name, value in self._backward(part, normalizer).items():
                sums[name] = max(sums[name], value) if name.endswith("max") else sums[name] + value
            self._add_half_gradients()
        return sums

    def optim_step(self) -> dict[str, float]:
        """Clip the accumulated gradient and take one optimizer step.

        Raises RuntimeError if there is no gradient. Raises FloatingPointError if the gradient is not finite, before the
        weights change.
        """
        gradient = self.take_gradient()
        norm = float(gradient.norm())
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient of step {self.steps + 1} is not finite; the weights are unchanged")
        self._bind_gradients()
        gradient.mul_(min(1.0, self.config.max_grad_norm / (norm + 1e-12)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        torch.autograd.graph.increment_version(self.masters)  # a fused step does not, and layers cache by version
        self._copy_masters()
        self.steps += 1
        return {"train/grad_norm": norm, "train/lr": self.optimizer.param_groups[0]["lr"]}

    def take_gradient(self) -> Tensor:
        """Return the accumulated gradient as a flat tensor, which the next `forward_backward` overwrites.

        Raises RuntimeError if there is no gradient.
        """
        if not self._accumulating:
            raise RuntimeError("there is no gradient: call forward_backward before optim_step")
        self._accumulating = False
        return self._gradient

    def add_gradient(self, gradient: Tensor) -> None:
        """Add the flat gradient of another learner."""
        self._gradient += gradient

    def zero_grad(self) -> None:
        """Drop the accumulated gradient."""
        self._accumulating = False

    def flat_weights(self, out: Tensor | None = None) -> Tensor:
        """Return the trained weights as a flat tensor, which is `out` if given."""
        return torch.cat([master.detach().reshape(-1) for master in self.masters], out=out)

    def set_weights(self, weights: Tensor) -> None:
        """Replace the trained weights with the flat weights of another learner."""
        copy_weights(weights, self.masters)
        self._copy_masters()

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        c = self.config
        warmup = min(1.0, (self.steps + 1) / c.warmup_steps) if c.warmup_steps else 1.0
        remaining = max(0.0, 1 - self.steps / self.total_steps) if self.total_steps else 1.0
        return c.lr * warmup * (c.min_lr_ratio + (1 - c.min_lr_ratio) * remaining)

    def state(self) -> dict[str, Tensor]:
        """Return the state dict of the model, not a copy."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state

    def save(self, folder: Path) -> None:
        """Save the optimizer state, and the master weights if the model is in half precision."""
        state = {"optimiser": self.optimizer.state_dict(), "steps": self.steps}
        torch.save(state | ({"masters": self.masters} if self._has_master_copies else {}), folder / "optimiser.pt")

    def load(self, folder: Path) -> None:
        """Load the optimizer state. Load the weights first."""
        state = torch.load(folder / "optimiser.pt", weights_only=True, map_location=self.device)
        for group in state["optimiser"]["param_groups"]:  # keep the moments, but use this recipe's settings
            group |= self._settings()
        self.optimizer.load_state_dict(state["optimiser"])
        self.steps = state["steps"]
        for master, parameter, saved in zip(
            self.masters, self.parameters, state.get("masters", self.parameters), strict=True
        ):
            if master is not parameter:
                master.copy_(saved.detach())

    def _settings(self) -> dict[str, Any]:
        """Return the settings of AdamW. Its fused form is five times faster and rounds differently."""
        fused = self.size >= FUSED and self.device.type in ("cpu", "cuda")
        return {"betas": BETAS, "weight_decay": self.config.weight_decay, "fused": fused}

    @property
    def _has_master_copies(self) -> bool:
        return any(master is not parameter for master, parameter in zip(self.masters, self.parameters, strict=True))

    def _bind_gradients(self) -> None:
        """Make the gradients of the master weights views of the flat gradient."""
        for master, view in zip(self.masters, views(self._gradient, self.masters), strict=True):
            master.grad = view

    def _add_half_gradients(self) -> None:
        """Add half-precision gradients of a pass to the flat gradient, which already has the full-precision ones."""
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            if master is not parameter and parameter.grad is not None:
                master.grad += parameter.grad
                parameter.grad = None

    def _copy_masters(self) -> None:
        """Copy the master weights to the model's half-precision parameters."""
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


def trained_weights(model: Any) -> list[Any]:
    """Return the weights of a model that are trained, in the order of a flat tensor of them."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def views(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Split a flat tensor into views with the shapes of these tensors."""
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def copy_weights(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy a flat tensor into these tensors."""
    with torch.no_grad():
        for tensor, view in zip(tensors, views(flat, tensors), strict=True):
            tensor.copy_(view)


def masters_of(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return float32 master weights, drawn at random among the values that round to the half-precision weights.

    Weights that start exactly on the grid of half precision would not move before their updates add up to half of its
    spacing, which at a learning rate of 2e-5 takes most of them more than six steps. Of masters that are spread over
    the spacing, an update of any size moves the right fraction. The same weights always have the same masters.
    """
    return [p if p.dtype == torch.float32 else _spread(p.detach(), seed) for seed, p in enumerate(parameters)]


def _spread(weight: Tensor, seed: int) -> Tensor:
    infinity, exact = torch.full_like(weight, torch.inf), weight.float()
    up, down = torch.nextafter(weight, infinity).float() - exact, exact - torch.nextafter(weight, -infinity).float()
    share = 2 * torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight.device) - 1
    master = exact + torch.where(share > 0, up, down) * share / 2
    return torch.where(master.to(weight.dtype) == weight, master, exact)  # a tie may round to a neighbor
