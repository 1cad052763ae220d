"""Logprobs of sampled tokens under a model, and the entropy of the model's distribution at each of these tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from codots.core.transcript import Sample
from codots.learner.batch import MicroBatch, micro_batches, trained
from codots.learner.config import LearnerConfig
from codots.model.attention import run
from codots.model.path import path_of, read_alone

PIECE = 512
"""Number of sampled tokens per output-layer call under gradient checkpointing, since logits dominate memory."""


class Scorer:
    """Scores samples with one causal LM, under the distribution that they were sampled from.

    Each shared prefix of a micro-batch is computed once, unless the model must read each sample alone.
    """

    def __init__(self, model: Any, config: LearnerConfig, temperature: float = 1.0) -> None:
        """Score with this model; `temperature` is that of the sampling, with 0 scored as 1, as samplers do."""
        self.model, self.config, self.path, self.temperature = model, config, path_of(model), temperature
        self.device = next(model.parameters()).device
        self._head = self._plain_head()

    def logprobs(self, batch: Sequence[Sample]) -> list[list[float]]:
        """Return the logprob of every sampled token under the current weights, and 0 for all other tokens."""
        rows = {id(sample): [0.0] * len(sample.ids) for sample in batch}
        with torch.no_grad():
            for part in self.parts(batch):
                logprobs, _ = self._score(part)
                for (sample, _, at), logprob in zip(trained(part), logprobs.tolist(), strict=True):
                    rows[id(sample)][at] = logprob
        return [rows[id(sample)] for sample in batch]

    def parts(self, batch: Sequence[Sample]) -> Iterator[MicroBatch]:
        """Split a batch into micro-batches, of one sample each if the model must read each alone."""
        return micro_batches(batch, self.config.max_microbatch_tokens if self.path.rows else 0)

    def _plain_head(self) -> Any | None:
        """Return the output layer, or None if the logits are not just its output for the last hidden state."""
        head, probe = self.model.get_output_embeddings(), torch.arange(4, device=self.device)[None]
        if head is None or self.model.base_model is self.model:
            return None
        with torch.no_grad():
            same = torch.equal(head(self.model.base_model(probe)[0]), self.model(probe).logits)
        return head if same else None

    @contextmanager
    def _saving_memory(self) -> Iterator[None]:
        """Apply the gradient checkpointing setting; layers recompute activations only in training mode."""
        layers = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        for layer in layers:
            layer.training = self.config.gradient_checkpointing
            for name in [name for name, value in vars(layer).items() if "drop" in name and isinstance(value, float)]:
                setattr(layer, name, 0.0)  # some layers drop out themselves, by their own training mode
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def _score(self, part: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the logprob and entropy of every sampled token, (M,) each, in the order of the samples."""
        where = [(nodes[at - 1], sample.ids[at]) for sample, nodes, at in trained(part)]
        at_M, ids_M = torch.tensor(where, device=self.device).T
        if self._head is None:
            return self._chosen(self._read(self.model, part, at_M, logits_to_keep=at_M), ids_M)
        hidden = self._read(self.model.base_model, part, at_M)
        if not self.config.gradient_checkpointing:
            return self._chosen(self._head(hidden), ids_M)
        pieces = zip(torch.split(hidden, PIECE), torch.split(ids_M, PIECE), strict=True)
        scored = [
            checkpoint(lambda h, i: self._chosen(self._head(h), i), *piece, use_reentrant=False) for piece in pieces
        ]
        return torch.cat([logprobs for logprobs, _ in scored]), torch.cat([entropy for _, entropy in scored])

    def _read(self, model: Any, part: MicroBatch, at_M: Tensor, **more: Any) -> Tensor:
        """Return the output of the model, or of the part of it below the LM head, at these ids of a micro-batch."""
        ids = torch.tensor(part.ids, device=self.device)
        if not self.path.rows:
            return read_alone(model, ids, self.path).index_select(0, at_M)
        starts = zip(part.shared, part.nodes, strict=True)
        positions = torch.cat([torch.arange(s, len(n)) for s, n in starts]).to(self.device)
        states: Tensor = run(model, ids, positions, part.rows(self.device), **more)[0][0]
        return states if more else states.index_select(0, at_M)

    def _chosen(self, logits_MV: Tensor, ids_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return one id's logprob per row, and the row's entropy, which has a gradient only for an entropy bonus."""
        plain = self.temperature in (0, 1)
        # One expression, so that no copy of the logits outlives it.
        logprobs_MV = (logits_MV.float() if plain else logits_MV.float() / self.temperature).log_softmax(-1)
        with torch.set_grad_enabled(bool(self.config.entropy_coef) and torch.is_grad_enabled()):
            entropy = -(logprobs_MV.exp() * logprobs_MV).sum(-1)
        return logprobs_MV.gather(1, ids_M[:, None])[:, 0], entropy
