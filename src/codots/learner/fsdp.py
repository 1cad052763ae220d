"""Learner over several processes: FSDP2 shards weights, gradients and optimizer state of one model over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from codots.core.transcript import Sample
from codots.learner.batch import MicroBatch
from codots.learner.config import LearnerConfig
from codots.learner.local import masters_of
from codots.learner.moments import FILE, read_shards, set_state, state_of, write_shards
from codots.learner.score import Scorer
from codots.learner.trainer import BETAS, Trainer, add, trained_weights
from codots.model.fast_layers import keep_apart

EMPTY = Sample([0, 0], [False, True], [0.0, 0.0], [0.0, 0.0], [0, 0])
"""Sample of the passes of a rank that has no samples left."""


class ShardedScorer(Scorer):
    """The part of a scorer on one rank of the default process group.

    All ranks call the same methods at the same time, each with samples of its own. They run equally many passes,
    because each pass gathers the weights from all ranks.
    """

    def __init__(self, model: Any, config: LearnerConfig, temperature: float = 1.0, device: str = "cpu") -> None:
        """Shard a model on a CPU, equal on all ranks, over their devices. Raises ValueError if it has no layers."""
        super().__init__(model, config, temperature)
        self.root, self.device = shard(self, device), torch.device(device)

    def logprobs(self, batch: Sequence[Sample]) -> list[list[float]]:
        """Return the logprob of every sampled token of this rank's samples, and 0 for all other tokens."""
        empty = self._missing(list(self.parts(batch)))
        rows = super().logprobs(batch)
        with torch.no_grad():
            for part in empty:
                self._score(part)
        return rows

    def _missing(self, parts: Sequence[MicroBatch]) -> list[MicroBatch]:
        """Return as many micro-batches of nothing as this rank has fewer than the rank with the most."""
        return list(self.parts([EMPTY])) * (self._largest(len(parts)) - len(parts))

    def _largest(self, value: int) -> int:
        """Return the maximum of a number over all ranks."""
        found = torch.tensor(value, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def _score(self, part: MicroBatch) -> tuple[Tensor, Tensor]:
        scored: tuple[Tensor, Tensor] = self.root(part)
        return scored


class ShardedLearner(ShardedScorer, Trainer):
    """The part of a learner on one rank of the default process group.

    The gradient is that of one learner with the samples of all ranks. A model in half precision computes in it, and
    has float32 weights and gradients.
    """

    def __init__(
        self,
        model: Any,
        config: LearnerConfig,
        total_steps: int = 0,
        temperature: float = 1.0,
        device: str = "cpu",
    ) -> None:
        """Shard a model on a CPU, equal on all ranks, over their devices. Raises ValueError if it has no layers."""
        Trainer.__init__(self, model, config, total_steps, temperature)
        self.half = self.dtype != torch.float32
        self.dtypes = {name: weight.dtype for name, weight in model.state_dict().items()}
        """Precision of each weight before the trained ones became float32."""
        self.root, self.device = shard(self, device), torch.device(device)
        self.parameters = trained_weights(model)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.lr, betas=BETAS, weight_decay=config.weight_decay)
        self._accumulating = False

    def forward_backward(self, samples: Sequence[Sample], normalizer: float) -> dict[str, float]:
        """Accumulate the gradient of the loss of this rank's samples, and return their sums.

        Raises FloatingPointError on every rank if an advantage or a logprob of any rank is not finite.
        """
        if not self._accumulating:
            self.optimizer.zero_grad()
        self._accumulating = True
        parts, sums = list(self._contributing(samples)), self._no_sums()
        if self._largest(not all(map(is_finite, parts))):
            raise FloatingPointError("an advantage or a sampler's logprob is not finite; the weights are unchanged")
        empty = self._missing(parts)
        for part in parts:
            add(sums, self._backward(part, normalizer))
        for part in empty:
            with self._saving_memory():
                (0 * self._score(part)[0].sum()).backward()  # type: ignore[no-untyped-call]
        return sums

    def optim_step(self) -> dict[str, float]:
        """Clip the gradient of all ranks and take one optimizer step.

        Raises RuntimeError if there is no gradient. Raises FloatingPointError if the gradient is not finite, before the
        weights change.
        """
        if not self._accumulating:
            raise RuntimeError("there is no gradient: call forward_backward before optim_step")
        self._accumulating = False
        for weight in self.parameters:
            if weight.grad is None:  # no pass used it, such as in a step without any advantage
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad.to_local() for weight in self.parameters]
        square = torch.stack([gradient.double().square().sum() for gradient in gradients]).sum()
        dist.all_reduce(square)
        norm = float(square.sqrt())
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient of step {self.steps + 1} is not finite; the weights are unchanged")
        for gradient in gradients:
            gradient.mul_(min(1.0, self.config.max_grad_norm / (norm + 1e-12)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.steps += 1
        return {"train/grad_norm": norm, "train/lr": self.optimizer.param_groups[0]["lr"]}

    def zero_grad(self) -> None:
        """Drop the accumulated gradient."""
        self._accumulating = False

    def flat_weights(self) -> Tensor:
        """Return the trained weights as a flat tensor, gathered from all ranks; on other ranks than 0 it is empty."""
        pieces = gathered({str(i): weight for i, weight in enumerate(self.parameters)}, {})
        return torch.cat([torch.empty(0), *(piece.reshape(-1) for piece in pieces.values())])

    def state(self) -> dict[str, Tensor]:
        """Return the state dict of the model, gathered from all ranks; on other ranks than 0 it is empty."""
        return self.whole(self.model.state_dict(keep_vars=True))

    def whole(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of the model, gathered from all ranks, in its precision; on other ranks than 0 it is empty."""
        return gathered(weights, self.dtypes)

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Replace the weights of the model that a state dict names, which every rank has as a whole."""
        own = self.model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, whole in state.items():
                own[name].copy_(part_of(whole, own[name]))

    def save(self, folder: Path) -> None:
        """Save the optimizer state as shards, with the float32 weights of a model in half precision."""
        write_shards(self._state(), folder)

    def load(self, folder: Path) -> None:
        """Load the optimizer state of any number of learners. Load the weights first."""
        state = self._state()
        if (folder / FILE).is_file():
            saved = torch.load(folder / FILE, weights_only=True, map_location="cpu", mmap=True)
            state = fill(state, saved) | {"steps": saved["steps"]}
        else:
            read_shards(state, folder)
        set_state(self.optimizer, state)
        self.steps = state["steps"]
        with torch.no_grad():
            for weight, master in zip(self.parameters, state.get("masters", ()), strict=False):
                weight.copy_(master)

    def _state(self) -> dict[str, Any]:
        return state_of(self.optimizer, self.parameters, self.steps, self.half)


class Root(torch.nn.Module):
    """From a micro-batch to logprobs and entropies: one module, so that a pass runs the hooks of all its parts."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.model = scorer.model
        self._scorer = [scorer]  # in a list, because it is not a part of the module

    def forward(self, part: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return what the scorer returns, but no view, which FSDP warns of."""
        logprobs, entropy = Scorer._score(self._scorer[0], part)
        return logprobs.clone(), entropy


def check_layers(model: Any) -> list[Any]:
    """Return the layers of a model, without those inside of others.

    Raises ValueError if it has none that can be sharded one by one, or if this torch cannot sum gradients.
    """
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise ValueError(f"several learners need a newer torch than {torch.__version__}; expected engine.learners=1")
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    inner = {id(part) for layer in layers for part in layer.modules() if part is not layer}
    if layers := [layer for layer in layers if id(layer) not in inner]:
        return layers
    raise ValueError(f"{type(model).__name__} has no layers that FSDP could shard; expected engine.learners=1")


def shard(scorer: Scorer, device: str) -> Root:
    """Shard the model of a scorer over all ranks, layer by layer, and return the module that runs a pass."""
    layers = check_layers(scorer.model)
    if scorer.path.switches:
        raise ValueError(
            f"{type(scorer.model).__name__} reads long sequences in two passes; expected engine.learners=1"
        )
    keep_apart(scorer.model)
    root, weights = Root(scorer), list(scorer.model.parameters())
    mesh = init_device_mesh(device.partition(":")[0], (dist.get_world_size(),))
    precision = MixedPrecisionPolicy(param_dtype=weights[0].dtype, reduce_dtype=torch.float32)
    # Only one layer at a time is whole in float32.
    seeds = {id(weight): seed for seed, weight in enumerate(trained_weights(scorer.model))}
    for module in (*layers, root):
        for weight in module.parameters():
            if id(weight) in seeds:
                weight.data = masters_of([weight.data], [seeds.pop(id(weight))])[0]
        fully_shard(module, mesh=mesh, mp_policy=precision)
    for module in (*layers, root):
        module.set_gradient_divide_factor(1.0)  # gradients are summed: the normalizer is that of all samples
        module.set_force_sum_reduction_for_comms(True)  # gloo cannot divide
    return root


def gathered(weights: dict[str, Tensor], dtypes: dict[str, torch.dtype]) -> dict[str, Tensor]:
    """Return weights as a whole, in the precision of their names, on the CPU of rank 0, and nothing on other ranks."""
    wholes: dict[int, Tensor | None] = {}  # weights that are tied stay one tensor
    for name, weight in weights.items():
        if id(weight) not in wholes:
            whole = weight.full_tensor().detach() if isinstance(weight, DTensor) else weight.detach()
            keep = dist.get_rank() == 0
            wholes[id(weight)] = whole.to("cpu", dtypes.get(name)) if keep else None
    found = {name: wholes[id(weight)] for name, weight in weights.items()}
    return {name: whole for name, whole in found.items() if whole is not None}


def part_of(whole: Tensor, weight: Tensor) -> Tensor:
    """Return this rank's part of a tensor that every rank has as a whole, as a weight is split."""
    if not isinstance(weight, DTensor):
        return whole
    moved = whole.to(weight.device, weight.dtype)
    return distribute_tensor(moved, weight.device_mesh, weight.placements, src_data_rank=None)


def fill(state: Any, saved: Any) -> Any:
    """Return a nested state with this rank's parts of the tensors that are saved; others stay."""
    if isinstance(state, Tensor):
        return part_of(saved, state)
    if isinstance(state, list):
        return [fill(*pair) for pair in zip(state, saved, strict=True)]
    if isinstance(state, dict):
        return {key: fill(one, saved[key]) if key in saved else one for key, one in state.items()}
    return state


def is_finite(part: MicroBatch) -> bool:
    """Return whether all advantages and logprobs of a micro-batch are finite."""
    return all(map(math.isfinite, (x for s in part.samples for x in (*s.advantages, *s.logprobs))))
