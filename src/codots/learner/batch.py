"""Micro-batches as prefix trees: a prefix shared by several episodes is computed once, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codots.core.transcript import Sample
from codots.learner.config import LearnerConfig
from codots.model.attention import Rows, shared_prefix

WEIGHTED = ("train/loss", "train/clip_fraction", "train/gated_fraction", "train/ratio_mean", "train/ref_kl")
"""Names of the sums that are weighted by the aggregation of the loss. All other sums are over tokens."""


@dataclass(frozen=True)
class MicroBatch:
    """Episodes as one prefix tree, computed in one forward pass."""

    samples: list[Sample] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    """Token ids of the tree: for each sample, all but the last id after the prefix shared with the previous sample."""
    nodes: list[list[int]] = field(default_factory=list)
    """Indices into `ids` of the tokens of each sample, except the last token, which predicts nothing."""
    shared: list[int] = field(default_factory=list)
    """Length of the prefix that each sample shares with the previous sample."""

    def add(self, sample: Sample, shared: int) -> None:
        """Add a sample whose first `shared` ids equal those of the previous sample."""
        fresh = sample.ids[shared:-1]
        before = self.nodes[-1][:shared] if shared else []
        self.nodes.append([*before, *range(len(self.ids), len(self.ids) + len(fresh))])
        self.ids.extend(fresh)
        self.samples.append(sample)
        self.shared.append(shared)

    def rows(self, device: Any) -> Rows:
        """Return the attention rows: each token attends to the tokens of its own sample."""
        shared_B, lengths_B = np.array(self.shared), np.array([len(nodes) for nodes in self.nodes])

        def places(b: np.ndarray, width: int) -> tuple[Tensor, np.ndarray]:
            padded = [self.nodes[i] + [0] * (width - len(self.nodes[i])) for i in b]
            return torch.tensor(padded, device=device), np.arange(len(b))

        return Rows.of(lengths_B - shared_B, shared_B, places, lambda layer, keys, values: (keys, values), device)


def in_tree_order(batch: Sequence[Sample]) -> list[tuple[Sample, int]]:
    """Sort samples so that shared prefixes are adjacent.

    Returns each sample with the length of the prefix that it shares with the previous sample.
    """
    ordered = sorted(batch, key=lambda sample: sample.ids)
    shared = [0, *(shared_prefix(one.ids[:-1], other.ids[:-1]) for one, other in pairwise(ordered))]
    return list(zip(ordered, shared, strict=False))


def micro_batches(batch: Sequence[Sample], budget: int) -> Iterator[MicroBatch]:
    """Split a batch into micro-batches of at most `budget` token ids. A longer sample has its own micro-batch."""
    part = MicroBatch()
    for sample, shared in in_tree_order(batch):
        if part.samples and len(part.ids) + len(sample.ids) - 1 - shared > budget:
            yield part
            part, shared = MicroBatch(), 0
        part.add(sample, shared)
    if part.samples:
        yield part


def fair_shares(batch: Sequence[Sample], n: int) -> list[list[Sample]]:
    """Split a batch into n shares with about equal numbers of ids, keeping shared prefixes together if possible."""
    shares: list[list[Sample]] = [[] for _ in range(n)]
    ordered = [(sample, len(sample.ids) - shared) for sample, shared in in_tree_order(batch)]
    total, run = sum(fresh for _, fresh in ordered), 0
    for sample, fresh in ordered:
        shares[(2 * run + fresh) * n // (2 * total)].append(sample)  # by its midpoint
        run += fresh
    return shares


def trained(part: MicroBatch) -> Iterator[tuple[Sample, list[int], int]]:
    """Yield each sampled token as its sample, the nodes of the sample, and the position of the token in the sample."""
    for sample, nodes in zip(part.samples, part.nodes, strict=True):
        for at, sampled in enumerate(sample.mask):
            if sampled:
                yield sample, nodes, at


def normalizer(samples: Sequence[Sample], config: LearnerConfig) -> int:
    """Return the divisor of the loss: the number of trained tokens of a batch or, with `episode-mean`, of episodes."""
    return len(samples) if config.by_episode else sum(sum(sample.mask) for sample in samples)


def means(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    """Turn the sums of all shares of a batch into metrics.

    The sums in WEIGHTED are divided by `weight`, all other sums by `tokens`. For maxima, the metric is the maximum over
    the shares.
    """
    totals = {name: sum(share.get(name, 0.0) for share in shares) for name in ("tokens", "weight")}
    metrics = {}
    for name in dict.fromkeys(name for share in shares for name in share if name not in totals):
        values = [share.get(name, 0.0) for share in shares]
        over = totals["weight" if name in WEIGHTED else "tokens"]
        metrics[name] = max(values) if name.endswith("max") else sum(values) / max(over, 1.0)
    return metrics
