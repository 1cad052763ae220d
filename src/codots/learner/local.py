"""Learner in this process: AdamW with gradients accumulated over prefix-tree micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codots.core.transcript import Sample
from codots.learner.config import LearnerConfig
from codots.learner.moments import FILE, SHARDS, read_shards, set_state, state_of
from codots.learner.trainer import BETAS, Trainer, add

FUSED = 10_000_000
"""Smallest number of trained weights for the fused AdamW. For fewer, the optimizer takes no time that matters."""


class LocalLearner(Trainer):
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
        super().__init__(model, config, total_steps, temperature)
        self.masters = masters_of(self.parameters)
        """Master weights of the optimizer, in float32 because most updates are too small for half precision."""
        self._gradient = torch.zeros(self.size, device=self.device) if gradient is None else gradient
        self.optimizer = torch.optim.AdamW(self.masters, lr=config.lr, **self._settings())
        self._accumulating = False

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
        sums = self._no_sums()
        for part in self._contributing(samples):
            add(sums, self._backward(part, normalizer))
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

    def state(self) -> dict[str, Tensor]:
        """Return the state dict of the model, not a copy."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Replace the weights of the model that a state dict names."""
        self.model.load_state_dict(state, strict=False)

    def save(self, folder: Path) -> None:
        """Save the optimizer state, and the master weights if the model is in half precision."""
        torch.save(self._state(), folder / FILE)

    def load(self, folder: Path) -> None:
        """Load the optimizer state, of one learner or of several. Load the weights first."""
        if (folder / SHARDS).is_dir():
            read_shards(state := self._state(), folder)
        else:
            state = torch.load(folder / FILE, weights_only=True, map_location=self.device)
        set_state(self.optimizer, state)
        self.steps = state["steps"]
        for master, parameter, saved in zip(
            self.masters, self.parameters, state.get("masters", self.parameters), strict=True
        ):
            if master is not parameter:
                master.copy_(saved.detach())

    def _state(self) -> dict[str, Any]:
        return state_of(self.optimizer, self.masters, self.steps, self._has_master_copies)

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


def views(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Split a flat tensor into views with the shapes of these tensors."""
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def copy_weights(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy a flat tensor into these tensors."""
    with torch.no_grad():
        for tensor, view in zip(tensors, views(flat, tensors), strict=True):
            tensor.copy_(view)


def masters_of(parameters: Sequence[Tensor], seeds: Sequence[int] | None = None) -> list[Tensor]:
    """Return float32 master weights, drawn at random among the values that round to the half-precision weights.

    Weights that start exactly on the grid of half precision would not move before their updates add up to half of its
    spacing, which at a learning rate of 2e-5 takes most of them more than six steps. Of masters that are spread over
    the spacing, an update of any size moves the right fraction. The same weights always have the same masters; the
    seeds of the draws are by default the places of the weights.
    """
    pairs = zip(parameters, range(len(parameters)) if seeds is None else seeds, strict=True)
    return [p if p.dtype == torch.float32 else _spread(p.detach(), seed) for p, seed in pairs]


def _spread(weight: Tensor, seed: int) -> Tensor:
    infinity, exact = torch.full_like(weight, torch.inf), weight.float()
    up, down = torch.nextafter(weight, infinity).float() - exact, exact - torch.nextafter(weight, -infinity).float()
    share = 2 * torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight.device) - 1
    master = exact + torch.where(share > 0, up, down) * share / 2
    return torch.where(master.to(weight.dtype) == weight, master, exact)  # a tie may round to a neighbor
