"""A learner in this process: AdamW over micro-batches, in which no id is run twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from codots.algorithm.losses import policy_loss
from codots.core.transcript import Sample
from codots.learner.batch import MicroBatch, micro_batches, trained, trained_tokens
from codots.learner.config import LearnerConfig
from codots.model.attention import run, teach

BETAS = (0.9, 0.999)
"""Decay rates of AdamW's two moments."""
PIECE = 512
"""Sampled ids scored at once where memory is saved: a large vocabulary's logits are most of what a pass would keep."""
SUMS = (
    "tokens",
    *(f"learner/{name}" for name in ("loss", "entropy", "logprob_gap", "logprob_gap_max", "clip_fraction")),
)
"""What a share reports; all of it even where no episode moved, so that every step has the same metrics."""


class LocalLearner:
    """Train one causal LM.

    Gradients and the optimiser step are apart, so that several processes can each take a share of a batch.
    """

    def __init__(self, model: Any, config: LearnerConfig, total_steps: int = 0) -> None:
        """Train this model; `total_steps`, the length of the run, matters only to the decay of the learning rate."""
        self.model, self.config, self.total_steps = teach(model), config, total_steps
        self.device = next(model.parameters()).device
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.parameters]
        """What the optimiser changes: in half precision most steps would be too small to count."""
        self._gradient = torch.zeros(sum(p.numel() for p in self.masters), device=self.device)
        self.optimiser = torch.optim.AdamW(self.masters, lr=config.lr, betas=BETAS, weight_decay=config.weight_decay)
        self.steps = 0
        self._head = self._plain_head()
        if config.checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})  # the older name goes away with transformers 6

    def step(self, batch: Sequence[Sample]) -> dict[str, float]:
        """Take one optimiser step over the batch."""
        gradient, sums = self.gradient(batch, trained_tokens(batch))
        return finish([sums]) | self.apply(gradient)

    def gradient(self, batch: Sequence[Sample], normaliser: int) -> tuple[Tensor, dict[str, float]]:
        """Give this share's gradient, flat, good until the next call, and the sums that the metrics are made of.

        The normaliser counts every trained token of the whole batch. An episode whose advantage is 0 is not run: it
        adds nothing to the gradient.
        """
        self._gradient.zero_()
        self._aim()
        sums = dict.fromkeys(SUMS, 0.0)
        moving = [sample for sample in batch if any(sample.advantages)]
        for part in micro_batches(moving, self.config.micro_tokens):
            for name, value in self._backward(part, normaliser).items():
                sums[name] = max(sums[name], value) if name.endswith("max") else sums[name] + value
            self._collect()
        return self._gradient, sums

    def apply(self, gradient: Tensor) -> dict[str, float]:
        """Clip, and take one optimiser step with a flat gradient."""
        norm = float(gradient.norm())
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient of step {self.steps + 1} is not finite; the weights are untouched")
        self._aim()
        torch.mul(gradient, min(1.0, self.config.clip / (norm + 1e-12)), out=self._gradient)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.step()
        self._serve()
        self.steps += 1
        return {"learner/grad_norm": norm, "learner/lr": self.optimiser.param_groups[0]["lr"]}

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
        rise = min(1.0, (self.steps + 1) / c.warmup) if c.warmup else 1.0
        left = max(0.0, 1 - self.steps / self.total_steps) if self.total_steps else 1.0
        return c.lr * rise * (c.decay_to + (1 - c.decay_to) * left)

    def logprobs(self, batch: Sequence[Sample]) -> list[list[float]]:
        """Score the sampled ids under the weights as they are."""
        rows = {id(sample): [0.0] * len(sample.ids) for sample in batch}
        with torch.no_grad():
            for part in micro_batches(batch, self.config.micro_tokens):
                logprobs, _ = self._score(part)
                for (sample, _, at), logprob in zip(trained(part), logprobs.tolist(), strict=True):
                    rows[id(sample)][at] = logprob
        return [rows[id(sample)] for sample in batch]

    def weights(self) -> dict[str, Tensor]:
        """The weights themselves, not a copy."""
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

    def _plain_head(self) -> Any | None:
        """The output layer, if the model's logits are just that of its last hidden state."""
        head, probe = self.model.get_output_embeddings(), torch.arange(4, device=self.device)[None]
        with torch.no_grad():
            same = torch.equal(head(self.model.base_model(probe)[0]), self.model(probe).logits)
        return head if same else None

    @contextmanager
    def _saving_memory(self) -> Iterator[None]:
        """Let layers compute again what the way back needs; only those in training hear that they should."""
        layers = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        for layer in layers:
            layer.training = self.config.checkpointing
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def _score(self, part: MicroBatch) -> tuple[Tensor, Tensor]:
        """Logprob and entropy of every sampled id, (M,) each, sample after sample."""
        where = [(nodes[at - 1], sample.ids[at]) for sample, nodes, at in trained(part)]
        at_M, ids_M = torch.tensor(where, device=self.device).T
        ids, rows = torch.tensor(part.ids, device=self.device), part.rows(self.device)
        starts = zip(part.shared, part.nodes, strict=True)
        positions = torch.cat([torch.arange(s, len(n)) for s, n in starts]).to(self.device)
        if self._head is None:
            return _chosen(run(self.model, ids, positions, rows, logits_to_keep=at_M).logits[0], ids_M)
        hidden = run(self.model.base_model, ids, positions, rows)[0][0].index_select(0, at_M)
        if not self.config.checkpointing:
            return _chosen(self._head(hidden), ids_M)
        pieces = zip(hidden.split(PIECE), ids_M.split(PIECE), strict=True)
        scored = [checkpoint(lambda h, i: _chosen(self._head(h), i), *piece, use_reentrant=False) for piece in pieces]
        return torch.cat([logprobs for logprobs, _ in scored]), torch.cat([entropy for _, entropy in scored])

    def _backward(self, part: MicroBatch, normaliser: int) -> dict[str, float]:
        with self._saving_memory():
            return self._learned(part, normaliser)

    def _learned(self, part: MicroBatch, normaliser: int) -> dict[str, float]:
        logprobs, entropy = self._score(part)
        told = [(sample.logprobs[at], sample.advantages[at]) for sample, _, at in trained(part)]
        old, advantages = torch.tensor(told, device=self.device).T
        # The loss takes a ratio or an advantage that is not a number for a clipped token, and would say nothing.
        if not (torch.isfinite(old).all() and torch.isfinite(advantages).all()):
            raise FloatingPointError("an advantage or a sampler's logprob is not finite; the weights are untouched")
        mask = torch.ones_like(old, dtype=torch.bool)
        choices: dict[str, Any] = dict(self.config.loss_choices)
        loss, metrics = policy_loss(logprobs, old, advantages, mask, self.config.loss, normaliser=normaliser, **choices)
        loss.backward()  # type: ignore[no-untyped-call]
        gap = (logprobs.detach() - old).abs()
        return {
            "tokens": float(len(told)),
            "learner/loss": float(loss.detach()) * normaliser,
            "learner/entropy": float(entropy.sum()),
            "learner/logprob_gap": float(gap.sum()),
            "learner/logprob_gap_max": float(gap.max()),
            "learner/clip_fraction": float(metrics["loss/clip_fraction"]) * normaliser,
        }


def _chosen(logits_MV: Tensor, ids_M: Tensor) -> tuple[Tensor, Tensor]:
    """Logprob of an id a row, and the row's entropy, which nothing is learned from."""
    logprobs_MV = logits_MV.float().log_softmax(-1)
    entropy = -(logprobs_MV.exp() * logprobs_MV).sum(-1).detach()
    return logprobs_MV.gather(1, ids_M[:, None])[:, 0], entropy


def agree(metrics: dict[str, float], limit: float) -> None:
    """Raise ArithmeticError where sampler and learner do not give the same ids the same logprobs."""
    gap = metrics["learner/logprob_gap"]
    if not gap <= limit:
        raise ArithmeticError(
            f"sampler and learner disagree: logprobs of the same ids are {gap:.3g} apart on average, and gap_limit is "
            f"{limit:g}; the weights are untouched"
        )


def finish(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    """Turn the sums of all shares into means over the tokens that were run; maxima stay."""
    tokens = sum(share.get("tokens", 0.0) for share in shares)
    metrics = {}
    for name in dict.fromkeys(name for share in shares for name in share if name != "tokens"):
        values = [share.get(name, 0.0) for share in shares]
        metrics[name] = max(values) if name.endswith("max") else sum(values) / max(tokens, 1.0)
    return metrics
